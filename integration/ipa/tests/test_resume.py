"""After a restart: the lookup of the real agent object brings the conductor's command back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from ironic_python_agent import agent as ipa_agent
from ironic_python_agent import hardware
from ironic_python_agent.extensions import base

from careen_ipa import ids, manager
from tests.conftest import ALLOWED, make_node
from tests.fake_agent import FakeAgent, Script
from tests.test_manager import step_of, write_steps

Json = dict[str, Any]

STEP = {
    "step": "generic_container_step",
    "interface": "deploy",
    "priority": 0,
    "args": {"container_url": ALLOWED},
}


def lookup(phase: str = "clean", index: int = 0) -> Json:
    """Return a lookup's answer; of the node it has four fields only."""
    node = make_node(phase, index=index, steps=[STEP, STEP])
    fields = {"uuid", "driver_internal_info"}
    known = {name: value for name, value in node.items() if name in fields}
    return {"node": {**known, "properties": {}, "instance_info": {}}, "config": {"heartbeat_timeout": 60}}


def id_of(answer: Json, phase: str = "clean") -> str:
    node = answer["node"]
    return ids.run_id(node, STEP["step"], STEP["args"], ids.place_of(node, phase))[0]  # type: ignore[arg-type]


@pytest.fixture
def ipa(agent: FakeAgent, conf: Any) -> Iterator[Any]:
    """Return IPA's agent object as it is after its start, before the lookup."""
    host = ipa_agent.Host("127.0.0.1", 9999)
    found = ipa_agent.IronicPythonAgent(None, host, host, 1, 1, None, 1, 1, True, "t" * 32)
    hardware.get_managers()
    hardware.API_CLIENT = None
    yield found
    base._EXT_MANAGER = None


def settle(ipa: Any) -> Json:
    """Return the only command after its end."""
    hardware.API_CLIENT = object()
    [command] = ipa.command_results.values()
    command.join(60)
    return dict(command.serialize())


@pytest.mark.parametrize("phase", ["clean", "deploy", "service"])
def test_a_running_step_goes_on(ipa: Any, agent: FakeAgent, phase: str) -> None:
    answer = lookup(phase)
    identifier = id_of(answer, phase)
    run = agent.add_run(
        identifier, state="running", node=answer["node"]["uuid"], boot_id="boot-1", step=STEP["step"]
    )
    ipa.process_lookup_data(answer)
    [command] = ipa.command_results.values()
    assert command.command_name == f"execute_{phase}_step"
    assert not command.is_done()
    run.update(outcome={"exit_code": 0}, state="succeeded")
    ended = settle(ipa)
    assert ended["command_status"] == "SUCCEEDED"
    # What the conductor compares with its current step.
    assert ended["command_result"][f"{phase}_step"] == STEP
    assert list(agent.runs) == [identifier]


def test_the_policy_is_told_once_ipa_knows_it(
    ipa: Any, agent: FakeAgent, conf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step of the file continues, too: its name is needed before IPA has applied the lookup's answer."""
    step = {"step": "long", "interface": "deploy", "priority": 0}
    write_steps(conf, step_of("long"))
    answer = lookup()
    answer["node"]["driver_internal_info"]["clean_steps"] = [step]
    identifier, _ = ids.run_id(answer["node"], "long", {}, ids.place_of(answer["node"], "clean"))
    agent.add_run(identifier, state="succeeded", node=answer["node"]["uuid"], boot_id="boot-1", step="long")
    told: list[Any] = []
    wait = manager._await_lookup

    def watched() -> None:
        told.append(agent.asked("PATCH", "/v1/config"))
        wait()

    monkeypatch.setattr(manager, "_await_lookup", watched)
    ipa.process_lookup_data(answer)
    assert settle(ipa)["command_status"] == "SUCCEEDED"
    assert told
    assert told[0] == []


def test_a_step_lost_in_a_reboot_fails(ipa: Any, agent: FakeAgent) -> None:
    answer = lookup()
    outcome = {"code": "lost", "message": "the node was rebooted", "remedy": "Look at it"}
    agent.add_run(id_of(answer), node=answer["node"]["uuid"], outcome=outcome)
    ipa.process_lookup_data(answer)
    ended = settle(ipa)
    assert ended["command_status"] == "FAILED"
    assert ended["command_error"].details.startswith("the node was rebooted. Look at it.\n")


def test_a_step_that_ended_while_ipa_was_away_is_reported(ipa: Any, agent: FakeAgent) -> None:
    answer = lookup()
    agent.add_run(id_of(answer), state="succeeded", node=answer["node"]["uuid"], boot_id="boot-1")
    ipa.process_lookup_data(answer)
    assert settle(ipa)["command_status"] == "SUCCEEDED"


def test_a_success_before_the_reboot_is_left_alone(ipa: Any, agent: FakeAgent) -> None:
    """The conductor rebooted the node after that step: a second report would reboot it in a loop."""
    answer = lookup()
    agent.add_run(id_of(answer), state="succeeded", node=answer["node"]["uuid"], boot_id="boot-0")
    ipa.process_lookup_data(answer)
    assert not ipa.command_results


def test_nothing_is_started(ipa: Any, agent: FakeAgent) -> None:
    agent.default = Script(gate=threading.Event())
    # The run of the first step exists, the conductor waits for the second.
    agent.add_run(id_of(lookup(index=0)), node=lookup()["node"]["uuid"])
    ipa.process_lookup_data(lookup(index=1))
    assert not ipa.command_results
    assert agent.asked("POST", "/v1/runs") == []


@pytest.mark.parametrize(
    "info", [{}, {"clean_step_index": 7}, {"clean_steps": None}, {"clean_steps": [{"x": 1}]}]
)
def test_a_node_that_says_less(ipa: Any, agent: FakeAgent, info: Json) -> None:
    answer = lookup()
    agent.add_run(id_of(answer), node=answer["node"]["uuid"])
    if info:
        answer["node"]["driver_internal_info"].update(info)
    else:
        answer["node"]["driver_internal_info"] = {}
    ipa.process_lookup_data(answer)
    assert not ipa.command_results


def test_switched_off(ipa: Any, agent: FakeAgent, conf: Any) -> None:
    conf.set_override("resume", False, group="careen")
    answer = lookup()
    agent.add_run(id_of(answer), node=answer["node"]["uuid"])
    ipa.process_lookup_data(answer)
    assert not ipa.command_results


def test_an_agent_that_went_away_does_not_stop_ipa(ipa: Any, agent: FakeAgent) -> None:
    agent.stop()
    ipa.process_lookup_data(lookup())
    assert not ipa.command_results
