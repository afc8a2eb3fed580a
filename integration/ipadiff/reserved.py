#!/usr/bin/env python3
"""Print the names that steps may not have, from the installed ironic-python-agent.

Usage: .cache/ipa/current/bin/python integration/ipadiff/reserved.py > steps/ipa/reserved.txt

IPA takes dir() of its classes and of the managers that are loaded, which are
instances, so what their constructors set is reserved, too. Names with two
underscores on both sides differ between versions of Python; they stay in, for
IPA refuses them as well, and the test does not compare them.
"""

import importlib.metadata

from ironic_python_agent import config

config.populate_config()  # the modules below read it while they are imported

from ironic_python_agent import hardware  # noqa: E402
from ironic_python_agent.hardware_managers import container  # noqa: E402


def reserved():
    names = set()
    for cls in (container.ContainerHardwareManager,
                hardware.GenericHardwareManager):
        names.update(dir(cls))
        names.update(dir(cls()))
    return sorted(names)


if __name__ == '__main__':
    print('# Made by integration/ipadiff/reserved.py from ironic-python-agent '
          + importlib.metadata.version('ironic-python-agent'))
    for name in reserved():
        print(name)
