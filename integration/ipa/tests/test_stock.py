"""IPA's own unit tests of its container manager, run against careen's.

The tests come with IPA's wheel and are not changed. Their names for the manager's class are given careen's
manager, which speaks over a real socket to an agent that executes containers as IPA's manager does, through
``utils.execute``. So the configuration and the arguments of a test must arrive at the agent, and errors must come back
as the classes that the test expects. Tests of the internals of IPA's manager cannot apply; each is listed with its
reason, and a test that is in neither list makes this one fail.
"""

from __future__ import annotations

import importlib
import unittest
from collections.abc import Iterator
from types import ModuleType
from typing import Any
from unittest import mock

import pytest
from ironic_python_agent import hardware
from ironic_python_agent.hardware_managers import container
from oslo_config import cfg

from careen_ipa.client import Client
from careen_ipa.manager import CareenHardwareManager
from tests.conftest import clear_overrides, make_node
from tests.fake_agent import FakeAgent

_INSIDE = "tests a function inside IPA's module; the agent has its own, compared by the differential test"
_RUNNER = (
    "the manager needs an agent, not podman or docker on the PATH: test_manager has the cases of the agent"
)
_FILE = "the agent reads the steps file; test_manager has the same cases over the socket"

#: The tests that do not apply, with the reason.
NOT_APPLICABLE = {
    "TestOptionNormalization.test_nothing_to_normalize": _INSIDE,
    "TestOptionNormalization.test_already_split": _INSIDE,
    "TestOptionNormalization.test_space_separated_single_element": _INSIDE,
    "TestOptionNormalization.test_bare_string": _INSIDE,
    "TestEvaluateHardwareSupport.test_podman_available": _RUNNER,
    "TestEvaluateHardwareSupport.test_docker_available": _RUNNER,
    "TestEvaluateHardwareSupport.test_no_runners": _RUNNER,
    "TestEvaluateHardwareSupport.test_installed_but_unrunnable_runtime_is_not_support": _RUNNER,
    "TestEvaluateHardwareSupport.test_configured_runner_missing_is_reported": _RUNNER,
    "TestContainerPolicy.test_trusted_step_bypasses_allowlist": (
        "calls a private method with trusted=True; careen's manager has no way to assert trust, the agent derives it "
        "from where the step was defined"
    ),
    "TestStepEntryPoints.test_create_container_step": _INSIDE,
    "TestStepEntryPoints.test_yaml_step_is_created_trusted": _INSIDE,
    "TestStepNameResolution.test_resolves_yaml_step": (
        "looks at the keywords of IPA's partial object; that a step of the file runs is in test_manager"
    ),
    "TestStepNameResolution.test_refuses_to_shadow_any_loaded_manager": (
        "names the stock class in the list of managers; test_manager has the case with the managers that IPA loads"
    ),
    "TestStepNameResolution.test_reserved_names_are_not_cached_before_managers_load": (
        "careen's manager caches no reserved names"
    ),
    "TestStepNameResolution.test_deepcopy_does_not_recurse": "expects IPA's class; the same is tested below",
    "TestStepNameResolution.test_unknown_attribute_message_is_interpolated": "expects the name of IPA's class",
    "TestLoadStepsFromYaml.test_missing_file_is_not_an_error": _FILE,
    "TestLoadStepsFromYaml.test_nothing_to_load": _FILE,
    "TestLoadStepsFromYaml.test_malformed_yaml_is_reported": _FILE,
    "TestLoadStepsFromYaml.test_top_level_not_a_mapping_is_reported": _FILE,
    "TestLoadStepsFromYaml.test_steps_not_a_list_is_reported": _FILE,
    "TestLoadStepsFromYaml.test_step_missing_required_key_is_reported": _FILE,
}


def load() -> ModuleType:
    """Import IPA's test module."""
    return importlib.import_module("ironic_python_agent.tests.unit.hardware_managers.test_container")


def names() -> list[str]:
    """Return the tests of IPA's module as Class.method."""
    suite = unittest.defaultTestLoader.loadTestsFromModule(load())
    # The id is package.module.Class.method.
    return sorted(".".join(test.id().split(".")[-2:]) for group in suite for test in group)  # type: ignore[union-attr]


@pytest.fixture
def stand_in(agent: FakeAgent) -> Iterator[None]:
    """Put careen's manager where the tests find IPA's."""
    agent.execute = True
    original = container.ContainerHardwareManager

    class StandIn(CareenHardwareManager):
        _RESERVED_NAMES = None

        def __init__(self) -> None:
            super().__init__()
            self._client = Client(str(agent.path))

        # The tests pass mocks for nodes; the plugin needs a node that JSON can encode.
        def generic_container_step(self, node: Any, ports: Any, *args: Any, **kwargs: Any) -> Any:
            _fresh(agent)
            return super().generic_container_step(make_node(), [], *args, **kwargs)

        def container_clean_step(self, node: Any, ports: Any, *args: Any, **kwargs: Any) -> Any:
            _fresh(agent)
            return super().container_clean_step(make_node(), [], *args, **kwargs)

    # The agent needs the original for its decisions.
    agent.manager = original
    # The tests register command line options, as before a command line was read.
    cfg.CONF.clear()
    with mock.patch.object(container, "ContainerHardwareManager", StandIn):
        yield
    clear_overrides("container")
    cfg.CONF([], project="ironic-python-agent", default_config_files=[], default_config_dirs=[])


def _fresh(agent: FakeAgent) -> None:
    """Forget the runs: the tests call a step several times where a conductor would have continued."""
    agent.runs.clear()


@pytest.mark.parametrize("name", [name for name in names() if name not in NOT_APPLICABLE])
def test_stock(name: str, stand_in: None) -> None:
    module = load()
    group, _, method = name.partition(".")
    result = unittest.TestResult()
    getattr(module, group)(method).run(result)
    problems = [text for _, text in result.errors + result.failures]
    assert not problems, problems[0]
    assert result.testsRun == 1
    assert not result.skipped


def test_every_stock_test_is_run_or_listed() -> None:
    unknown = set(NOT_APPLICABLE) - set(names())
    assert not unknown, "IPA no longer has these tests"
    assert all(NOT_APPLICABLE.values())


def test_copying_does_not_recurse(agent: FakeAgent, conf: Any) -> None:
    """Protocol lookups, which IPA tests for its own class, must not send requests to the agent."""
    manager = CareenHardwareManager.__new__(CareenHardwareManager)
    with pytest.raises(AttributeError, match="CareenHardwareManager object has no attribute anything"):
        _ = manager.anything  # type: ignore[attr-defined]
    assert not hasattr(CareenHardwareManager(), "__deepcopy__")
    assert agent.requests == []
    assert hardware._global_managers is None
