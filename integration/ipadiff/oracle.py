"""Answer what the real ironic-python-agent does, one JSON line for each.

Every request gives the configuration it starts from, so none depends on an
earlier one:

  file      text of a configuration file, or null
  env       variables OS_CONTAINER__*
  override  agent_containers as the conductor sends them at lookup, or null
  yaml      text of the steps file, or null for none

and an op:

  config    -> {"options": {name: {"value": v} | {"error": text}}}
  policy    url, pull, run, trusted of _apply_container_policy
  options   value of _as_options
  list      phase -> what get_<phase>_steps returns
  run       step, args -> the commands that would be executed

The answer is {"ok": ...} or {"error": class, "text": text, "stage": stage},
where stage is start (IPA does not start), lookup (the answer of the conductor
cannot be processed) or step.
"""

import json
import os
import sys
import tempfile
from unittest import mock

from oslo_config import cfg

from ironic_python_agent import config

CONF = cfg.CONF
config.populate_config()  # before the modules that read it when imported

from ironic_python_agent import agent  # noqa: E402
from ironic_python_agent import hardware  # noqa: E402
from ironic_python_agent import utils  # noqa: E402
from ironic_python_agent.hardware_managers import container  # noqa: E402

OPTIONS = ('allow_arbitrary_containers', 'allowed_containers',
           'container_steps_file', 'runner', 'pull_options', 'run_options')


class Stage(Exception):
    def __init__(self, stage, cause):
        self.stage, self.cause = stage, cause


class Oracle:
    def __init__(self, directory):
        self.directory = directory
        self.conf_dir = os.path.join(directory, 'conf.d')
        self.conf_file = os.path.join(self.conf_dir, 'a.conf')
        self.steps_file = os.path.join(directory, 'mysteps.yaml')
        os.makedirs(self.conf_dir)
        self.last_file = object()
        self.argv = []

    def start(self, request):
        """Do what cmd/agent.py does, as far as the configuration goes."""
        text = request.get('file')
        for name in [n for n in os.environ if n.startswith('OS_CONTAINER__')]:
            del os.environ[name]
        os.environ.update(request.get('env') or {})
        try:
            for name in OPTIONS:
                CONF.clear_override(name, group='container')
            if text != self.last_file or request.get('env'):
                if text is None:
                    if os.path.exists(self.conf_file):
                        os.remove(self.conf_file)
                else:
                    with open(self.conf_file, 'w', newline='',
                              encoding='utf-8') as f:
                        f.write(text)
                self.last_file = object()
                CONF.clear()
                CONF(['--config-dir', self.conf_dir],
                     prog='ironic-python-agent', default_config_files=[],
                     default_config_dirs=[])
                self.last_file = text
            # IPA logs every value at its start, so a bad one ends it there.
            for name in OPTIONS:
                CONF.container[name]
        except SystemExit as e:
            raise Stage('start', RuntimeError(str(e)))
        except Exception as e:
            raise Stage('start', e)
        if request.get('override') is not None:
            content = {'node': {'uuid': 'u'},
                       'config': {'heartbeat_timeout': 1,
                                  'agent_containers': request['override']}}
            try:
                with mock.patch.object(hardware, 'cache_node'):
                    agent.IronicPythonAgent.process_lookup_data(
                        mock.Mock(), content)
            except Exception as e:
                raise Stage('lookup', e)
        if 'yaml' in request:
            CONF.set_override('container_steps_file', self.steps_file,
                              group='container')
            if request['yaml'] is None:
                if os.path.exists(self.steps_file):
                    os.remove(self.steps_file)
            else:
                with open(self.steps_file, 'w', newline='',
                          encoding='utf-8') as f:
                    f.write(request['yaml'])

    def manager(self):
        cls = container.ContainerHardwareManager
        cls._RESERVED_NAMES = None
        manager = cls()
        hardware._global_managers = [
            {'manager': m} for m in (manager, hardware.GenericHardwareManager())]
        return manager

    def op_config(self, request):
        out = {}
        for name in OPTIONS:
            try:
                out[name] = {'value': CONF.container[name]}
            except Exception as e:
                out[name] = {'error': str(e)}
        return {'options': out}

    def op_policy(self, request):
        pull, run = self.manager()._apply_container_policy(
            request['url'], request['pull'], request['run'],
            request['trusted'])
        return {'pull': pull, 'run': run}

    def op_options(self, request):
        return container._as_options(request['value'])

    def op_list(self, request):
        method = 'get_%s_steps' % request['phase']
        steps = getattr(self.manager(), method)({}, [])
        json.dumps(steps, allow_nan=False)  # IPA answers in JSON, too
        return steps

    def op_run(self, request):
        self.argv = []
        manager = self.manager()
        with mock.patch.object(utils, 'execute', self.execute):
            getattr(manager, request['step'])({}, [], **request['args'])
        return self.argv

    def execute(self, *argv, **kwargs):
        # Popen refuses anything that is not a string.
        for word in argv:
            if not isinstance(word, str):
                raise TypeError('expected str, got %r' % (word,))
        self.argv.append(list(argv))
        return 'version', ''

    def answer(self, request):
        try:
            self.start(request)
            return {'ok': getattr(self, 'op_' + request['op'])(request)}
        except Stage as e:
            return {'error': type(e.cause).__name__, 'text': str(e.cause),
                    'stage': e.stage}
        except RecursionError:
            return {'error': 'RecursionError', 'text': '', 'stage': 'step'}
        except Exception as e:
            text = getattr(e, 'details', None) or str(e)
            return {'error': type(e).__name__, 'text': str(text),
                    'stage': 'step'}


def main():
    import logging
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as directory:
        oracle = Oracle(directory)
        print(json.dumps({'steps_file': oracle.steps_file}), flush=True)
        for line in sys.stdin:
            answer = oracle.answer(json.loads(line))
            sys.stdout.write(json.dumps(answer) + '\n')
            sys.stdout.flush()


if __name__ == '__main__':
    main()
