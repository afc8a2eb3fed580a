"""Continues the conductor's command after a restart of IPA or of the node.

IPA keeps the commands it executes in memory only. If an agent has an empty list of commands, the conductor assumes an
intended reboot, counts the step as done and continues with the next one. So a restart of IPA during a step, or a
crash of the node during a firmware flash, counts as success.

The agent has the run, and the run's id contains its place in the conductor's list. The lookup's answer has the list and
the index. If the two agree, the conductor is waiting for that run, and this module gives the same command to IPA
again. By its id the command becomes the same run: still running, ended, or lost in the reboot. The conductor sees a
command that runs, and then its end.

This never starts a step. A run must exist, and a success of an earlier boot is ignored: it belongs to a
``reboot_requested`` step after its reboot.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from ironic_python_agent.extensions import base
from oslo_log import log

from careen_ipa import ids
from careen_ipa.client import Client, ClientError, Json

LOG = log.getLogger(__name__)

#: The provision state that the conductor is in while it executes a step of the phase.
_STATES = {"clean": "cleaning", "deploy": "deploying", "service": "servicing"}


def resume(client: Client, node: Mapping[str, Any]) -> bool:
    """Give IPA the command again that it was executing for node. Returns whether there was one.

    Call it between the lookup and the first heartbeat.
    """
    agent = _agent()
    if agent is None or agent.command_results:
        return False
    try:
        runs = client.runs()
        boot = client.version().get("boot_id")
    except ClientError as exc:
        LOG.warning("Cannot look for a step that was interrupted: %s", exc)
        return False
    for phase in ids.PHASES:
        found = _find(runs, node, phase, boot)
        if found is not None:
            step, run = found
            _execute(agent, node, phase, step, run)
            return True
    return False


def _find(runs: list[Json], node: Mapping[str, Any], phase: str, boot: object) -> tuple[Json, Json] | None:
    """Return the step that the conductor waits for and its run."""
    place = ids.place_of(node, phase)
    if not place.known:
        return None
    step = _current(node, phase, place.index)
    if step is None:
        return None
    identifier, _ = ids.run_id(node, str(step["step"]), step.get("args") or {}, place)
    run = next((run for run in runs if run.get("id") == identifier), None)
    if run is None:
        return None
    rebooted = run.get("boot_id") not in (None, "", boot)
    if rebooted and run.get("state") == "succeeded":
        return None
    return step, run


def _current(node: Mapping[str, Any], phase: str, index: int | None) -> Json | None:
    steps = (node.get("driver_internal_info") or {}).get(f"{phase}_steps")
    if not isinstance(steps, list) or index is None or index >= len(steps):
        return None
    step = steps[index]
    return step if isinstance(step, dict) and isinstance(step.get("step"), str) else None


def _execute(agent: Any, node: Mapping[str, Any], phase: str, step: Json, run: Json) -> None:
    LOG.warning(
        "The container run %s (%s) was made for step %s, which the conductor waits for: the command goes on",
        run.get("id"),
        run.get("state"),
        step["step"],
    )
    known = {**node, "provision_state": node.get("provision_state") or _STATES[phase]}
    agent.execute_command(f"{phase}.execute_{phase}_step", step=step, node=known, ports=[])


def _agent() -> Any:
    """Return IPA's agent object, or None if hardware managers are used without one."""
    if threading.current_thread() is not threading.main_thread():
        # Lookup happens in the main thread; any other thread executes a command.
        return None
    try:
        return base.get_extension("clean").agent
    except Exception as exc:  # noqa: BLE001  IPA's way to say that there is no agent differs between releases
        LOG.debug("No agent to give commands to: %s", exc)
        return None
