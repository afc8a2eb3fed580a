"""The id that makes a repeated command one run, and two commands two runs."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from careen_ipa import ids
from tests.conftest import make_node

Json = dict[str, Any]

ARGS = {"container_url": "registry.example.com/tool:1", "run_options": ["--rm"]}


def identify(node: Json, step: str = "generic_container_step", args: Json | None = None) -> str:
    phase = ids.phase_of(node, step)
    found, _ = ids.run_id(node, step, ARGS if args is None else args, ids.place_of(node, phase))
    return found


def test_the_agent_accepts_the_id() -> None:
    found = identify(make_node(index=12))
    # The rule of POST /v1/runs.
    assert re.fullmatch(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,63}", found)
    assert found.startswith("ipa-c-")
    assert "-12-" in found


def test_a_repeated_command_has_the_same_id() -> None:
    node = make_node()
    again = json.loads(json.dumps(node))
    assert identify(node) == identify(again)


def test_heartbeats_between_do_not_change_it() -> None:
    later = make_node(provision_updated_at="2026-11-01T11:00:00+00:00")
    later["driver_internal_info"]["agent_last_heartbeat"] = "2026-11-01T11:00:00"
    assert identify(make_node()) == identify(later)


def test_null_arguments_are_no_arguments() -> None:
    assert identify(make_node()) == identify(make_node(), args={**ARGS, "pull_options": None})


@pytest.mark.parametrize(
    "other",
    [
        make_node(index=1),
        make_node("deploy"),
        make_node("service"),
        make_node(uuid="another"),
        make_node(
            driver_internal_info={
                "agent_cached_clean_steps_refreshed": "2026-11-01T12:00:00.000001",
                "clean_step_index": 0,
            }
        ),
    ],
    ids=["next step", "deployment", "service", "another node", "cleaned again"],
)
def test_another_execution_has_another_id(other: Json) -> None:
    assert identify(make_node()) != identify(other)


def test_another_step_or_argument_has_another_id() -> None:
    mine = identify(make_node())
    assert mine != identify(make_node(), step="container_clean_step")
    assert mine != identify(make_node(), args={**ARGS, "run_options": ["--privileged"]})


def test_lookup_gives_the_id_of_the_command() -> None:
    """A node as the lookup shows it has only these fields."""
    full = make_node()
    seen = {name: full[name] for name in ("uuid", "driver_internal_info")}
    place = ids.place_of(seen, "clean")
    assert ids.run_id(seen, "generic_container_step", ARGS, place)[0] == identify(full)


def test_a_node_without_a_place_is_identified_by_all_that_was_sent() -> None:
    node = make_node(driver_internal_info={})
    assert identify(node) == identify(json.loads(json.dumps(node)))
    assert identify(node) != identify({**node, "provision_updated_at": "2026-11-01T10:00:05+00:00"})
    parsed = ids.parse(identify(node))
    assert parsed == ids.ParsedId("clean", "", None)


def test_a_node_that_says_nothing_gets_a_new_id_each_time() -> None:
    bare = {"uuid": "x"}
    first, repeatable = ids.run_id(bare, "s", {}, ids.place_of(bare, ""))
    second, _ = ids.run_id(bare, "s", {}, ids.place_of(bare, ""))
    assert first != second
    assert not repeatable


@pytest.mark.parametrize(
    ("node", "phase"),
    [
        ({"provision_state": "cleaning"}, "clean"),
        ({"provision_state": "clean wait"}, "clean"),
        ({"provision_state": "deploying"}, "deploy"),
        ({"provision_state": "wait call-back"}, "deploy"),
        ({"provision_state": "servicing"}, "service"),
        ({"provision_state": "active", "service_step": {"step": "s"}}, "service"),
        ({"clean_step": {"step": "other"}, "deploy_step": {"step": "s"}}, "deploy"),
        ({"clean_step": {}, "provision_state": None}, ""),
        ({}, ""),
    ],
)
def test_phase(node: Json, phase: str) -> None:
    assert ids.phase_of(node, "s") == phase


def test_parse() -> None:
    whole = identify(make_node("deploy", index=3))
    assert ids.parse(whole) == ids.ParsedId("deploy", whole.split("-")[2], 3)
    for foreign in ("", "brave_curie", "ipa-c", "ipa-q-1f0c2b3a4d5e-2-0123456789abcdef", whole + ".x"):
        assert ids.parse(foreign) is None
