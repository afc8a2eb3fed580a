"""A test conductor: the part of Ironic that an ironic-python-agent talks to.

It answers lookup and heartbeats as Ironic's API does and, driven by the heartbeats, sends the agent its commands as
Ironic's conductor does: the list of steps first, then one step after another, with the agent's token, the node object
and the hardware managers' versions. It reads the end of a step from the agent's list of commands. The caller does what
Ironic does with machines (power, boot, network).

``node``    the node object, as an agent sees it
``client``  commands to the agent's API, repeated as Ironic repeats them
``flow``    from heartbeat to next command
``server``  the API
"""
