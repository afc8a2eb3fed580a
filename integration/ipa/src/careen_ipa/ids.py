"""Run ids, which identify a command so that a repeated command is one run.

Ironic has no request id. Its conductor builds the body of ``execute_clean_step`` once. It sends the same bytes again
if it got no answer and the agent's last command is not a running one of the same name. So a quick step may be
executed twice. After a restart of IPA the same step can also arrive with a node object whose time stamps are newer.

The conductor identifies an execution by its place in the list of steps: the node, the phase, the list (made again,
with a time stamp in ``driver_internal_info``, whenever cleaning, a deployment or a service begins) and the index in
it. The id consists of these and of the step with its arguments::

    ipa-c-1f0c2b3a4d5e-2-0123456789abcdef
        |  session     |  digest of node, phase, session, index, step and arguments
        phase          index

So a repeated command has the same id, and the same step at another place in the list, or in a later cleaning, has
another id. The id uses only fields that IPA gets at lookup already, because :mod:`careen_ipa.resume` must compute
the same id.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

PHASES = ("clean", "deploy", "service")

#: Ironic's provision states in which steps of a phase are executed.
_STATES = {
    "cleaning": "clean",
    "clean wait": "clean",
    "clean hold": "clean",
    "deploying": "deploy",
    "wait call-back": "deploy",
    "deploy hold": "deploy",
    "servicing": "service",
    "service wait": "service",
    "service hold": "service",
}

_ID = re.compile(r"^ipa-(?P<phase>[cdsx])-(?P<session>[0-9a-f]{12}|any)-(?P<index>\d+|x)-[0-9a-f]{16}$")


@dataclass(frozen=True)
class Place:
    """The place of a command in the conductor's lists."""

    phase: str
    #: A digest that changes whenever the conductor makes a new list of steps; "" if the node has no such field.
    session: str
    #: The index of the step in the list, or None if the node has no such field.
    index: int | None

    @property
    def known(self) -> bool:
        """Whether session and index identify one execution."""
        return bool(self.session) and self.index is not None


@dataclass(frozen=True)
class ParsedId:
    """The parts of a run id."""

    phase: str
    session: str
    index: int | None


def phase_of(node: Mapping[str, Any], step: str = "") -> str:
    """Return the phase that node is in: clean, deploy, service, or "" if it is in none."""
    phase = _STATES.get(str(node.get("provision_state") or "").lower())
    if phase:
        return phase
    for candidate in PHASES:
        current = node.get(f"{candidate}_step")
        if isinstance(current, Mapping) and current and (not step or current.get("step") == step):
            return candidate
    return ""


def place_of(node: Mapping[str, Any], phase: str) -> Place:
    """Return the node's place in the list of phase."""
    info = node.get("driver_internal_info")
    if not phase or not isinstance(info, Mapping):
        return Place(phase, "", None)
    stamp = info.get(f"agent_cached_{phase}_steps_refreshed")
    index = info.get(f"{phase}_step_index")
    session = _digest([node.get("uuid"), phase, str(stamp)])[:12] if stamp else ""
    return Place(phase, session, index if isinstance(index, int) and index >= 0 else None)


def run_id(node: Mapping[str, Any], step: str, args: Mapping[str, Any], place: Place) -> tuple[str, bool]:
    """Return the run's id, and whether a repetition of the command gets the same one.

    If the node has no list or no index (a child node, or a caller that is not Ironic), the id comes from the whole
    request, provided that it has a time stamp of Ironic; a repeated request is the same in every byte. Without a
    time stamp a second execution looks like a repetition. To skip a requested step would be as wrong as to run one
    twice, so the id is then new each time.
    """
    # IPA passes an argument that is null on, and the step's default for it is null.
    args = {name: value for name, value in args.items() if value is not None}
    letter = place.phase[:1] or "x"
    index = "x" if place.index is None else str(place.index)
    if place.known:
        digest = _digest([node.get("uuid"), place.phase, place.session, place.index, step, args])
        return f"ipa-{letter}-{place.session}-{index}-{digest[:16]}", True
    session = place.session or "any"
    if node.get("provision_updated_at") or node.get("updated_at"):
        digest = _digest([dict(node), step, args])
        return f"ipa-{letter}-{session}-{index}-{digest[:16]}", True
    return f"ipa-{letter}-{session}-{index}-{uuid.uuid4().hex[:16]}", False


def parse(identifier: str) -> ParsedId | None:
    """Split a run id into its parts; None if this module did not make it."""
    match = _ID.match(identifier)
    if match is None:
        return None
    phase = {"c": "clean", "d": "deploy", "s": "service", "x": ""}[match["phase"]]
    session = "" if match["session"] == "any" else match["session"]
    index = None if match["index"] == "x" else int(match["index"])
    return ParsedId(phase, session, index)


def _digest(value: object) -> str:
    # default=str: a node object holds only JSON, but a caller inside IPA may pass a date.
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
