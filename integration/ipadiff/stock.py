"""Print as JSON what the stock container manager of the installed IPA is like."""

import inspect
import json
from unittest import mock

from oslo_concurrency import processutils

from ironic_python_agent import config

config.populate_config()  # the modules below read it while they are imported

from oslo_config import cfg  # noqa: E402

from ironic_python_agent import hardware  # noqa: E402
from ironic_python_agent import utils  # noqa: E402
from ironic_python_agent.hardware_managers import container  # noqa: E402


def support(present, calls=None):
    """What the manager says where only one of the runtimes is usable."""
    def execute(*argv, **kwargs):
        if calls is not None:
            calls.append(list(argv))
        if argv[0] != present:
            raise processutils.ProcessExecutionError()
        return '', ''

    with mock.patch.object(utils, 'execute', execute):
        return container.ContainerHardwareManager().evaluate_hardware_support()


def main():
    cfg.CONF([], prog='ironic-python-agent', default_config_files=[],
             default_config_dirs=[])
    probe = []
    manager = container.ContainerHardwareManager()
    version = manager.get_version()
    hooks = ('evaluate_hardware_support', 'initialize', 'get_version',
             'get_clean_steps', 'get_deploy_steps', 'get_service_steps',
             'collect_system_logs', 'full_sync')
    levels = ('NONE', 'GENERIC', 'MAINLINE', 'SERVICE_PROVIDER')
    print(json.dumps({
        'name': version['name'],
        'version': version['version'],
        'support': {'podman': support('podman'), 'docker': support('docker'),
                    'neither': support('', probe)},
        'probe': probe,
        'hooks': {name: str(inspect.signature(
            getattr(hardware.HardwareManager, name))) for name in hooks},
        'level': {name: getattr(hardware.HardwareSupport, name)
                  for name in levels},
        'options': {opt.name: opt.default for opt in config.container_opts},
    }))


if __name__ == '__main__':
    main()
