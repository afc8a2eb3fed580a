"""Runs IPA's container steps through the careen agent's socket.

The package is a hardware manager for ironic-python-agent (IPA). It takes the place of IPA's own
``ContainerHardwareManager``: the same steps with the same arguments, but the careen agent behind its unix socket runs
them. It returns what a ``podman`` child process cannot: progress, live output, a failure that begins with its cause, a
structured result, and one run for one command, even if the command arrives several times.

``client``   HTTP over the unix socket; independent of IPA
``ids``      the ids that make a repeated command one run
``runs``     one run from request to outcome, agent restarts included
``logs``     the container's output and the pull's progress in IPA's log
``errors``   problems and outcomes as IPA's errors
``resume``   continues the interrupted command after a restart of IPA
``certificate``  keeps the TLS certificate after a restart of IPA
``stop``     aborts the run when a signal stops IPA
``collect``  runs' logs in IPA's log collection
``config``   the options of the ``[careen]`` section
``manager``  the hardware manager, which puts the above together
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
