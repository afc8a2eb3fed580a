"""After a restart, of IPA or of the node, the conductor's command goes on.

IPA keeps the commands it executes in memory only. The conductor takes an agent with an empty list of commands for
one that was booted on purpose, counts the step as done and goes to the next one. So a restart of IPA in the middle
of a step, or a node that crashes in the middle of a firmware flash, passes as success.

The agent knows better: it has the run, under an id that says for which place in the conductor's list it was made.
And the lookup's answer has the list and the index. Where the two agree, the conductor is waiting for that very run,
and the same command is given to IPA again. Through the id it becomes the same run: still running, ended, or lost
with the reboot. The conductor sees a command that runs, and then its end.

No step is ever started by this. A run has to exist, and a success of an earlier boot is left alone: it is what a
``reboot_requested`` step looks like after its reboot.
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

    To be called between lookup and first heartbeat.
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
    """Return the step that the conductor waits for and the run that was made for it."""
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
    """Return IPA's agent object, or None where hardware managers are used without one."""
    if threading.current_thread() is not threading.main_thread():
        # Lookup happens in the main thread; anything else is a command that is being executed.
        return None
    try:
        return base.get_extension("clean").agent
    except Exception as exc:  # noqa: BLE001  IPA's way to say that there is no agent differs between releases
        LOG.debug("No agent to give commands to: %s", exc)
        return None
