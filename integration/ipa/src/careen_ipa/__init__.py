"""Runs IPA's container steps through the careen agent's socket.

The package is a hardware manager for ironic-python-agent (IPA). It takes the place of IPA's own
``ContainerHardwareManager``: the same steps with the same arguments, but they are run by the careen agent behind
its unix socket, and what a ``podman`` child process cannot give comes back: progress, live output, a failure that
says its cause first, a structured result, and one run for one command however often the command arrives.

``client``   HTTP over the unix socket; knows nothing of IPA
``ids``      which command is this: the id that makes a repeated command one run
``runs``     one run from request to outcome, agent restarts included
``logs``     the container's output and the pull's progress in IPA's log
``errors``   problems and outcomes as IPA's errors
``resume``   after a restart of IPA: the command that was being executed goes on
``certificate``  after a restart of IPA: the TLS certificate stays the same
``stop``     IPA is told to stop: the run is aborted
``collect``  runs' logs in IPA's log collection
``config``   the options of the ``[careen]`` section
``manager``  the hardware manager, which puts the above together
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
