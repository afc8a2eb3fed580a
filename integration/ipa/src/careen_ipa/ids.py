"""Which command is this: run ids that make a repeated command one run.

Ironic has no request id. Its conductor builds the body of ``execute_clean_step`` once and sends it again, byte for
byte, when it got no answer and the agent's last command is not a running one of the same name; so a step that was
quick may be executed twice. After a restart of IPA the same step can also arrive with a node object whose time
stamps have moved on.

What identifies an execution to the conductor is its place in its own list: the node, the phase, the list of steps
(re-made, with a time stamp in ``driver_internal_info``, whenever cleaning, a deployment or a service begins) and
the index in it. The id is made of these and of the step with its arguments::

    ipa-c-1f0c2b3a4d5e-2-0123456789abcdef
        |  session     |  digest of node, phase, session, index, step and arguments
        phase          index

so a command that is sent again has the same id, and the same step at another place in the list, or in a later
cleaning, has another one. The fields used are those that IPA gets at lookup already, not only with a command,
since :mod:`careen_ipa.resume` has to arrive at the same id.
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
    """Where in the conductor's lists a command stands."""

    phase: str
    #: A digest that changes whenever the conductor makes a new list of steps; "" when the node does not say.
    session: str
    #: The index of the step in the list, or None when the node does not say.
    index: int | None

    @property
    def known(self) -> bool:
        """Whether session and index identify one execution."""
        return bool(self.session) and self.index is not None


@dataclass(frozen=True)
class ParsedId:
    """A run id taken apart."""

    phase: str
    session: str
    index: int | None


def phase_of(node: Mapping[str, Any], step: str = "") -> str:
    """Return the phase that node is in: clean, deploy, service, or "" when it does not say."""
    phase = _STATES.get(str(node.get("provision_state") or "").lower())
    if phase:
        return phase
    for candidate in PHASES:
        current = node.get(f"{candidate}_step")
        if isinstance(current, Mapping) and current and (not step or current.get("step") == step):
            return candidate
    return ""


def place_of(node: Mapping[str, Any], phase: str) -> Place:
    """Return the place in phase's list at which node is."""
    info = node.get("driver_internal_info")
    if not phase or not isinstance(info, Mapping):
        return Place(phase, "", None)
    stamp = info.get(f"agent_cached_{phase}_steps_refreshed")
    index = info.get(f"{phase}_step_index")
    session = _digest([node.get("uuid"), phase, str(stamp)])[:12] if stamp else ""
    return Place(phase, session, index if isinstance(index, int) and index >= 0 else None)


def run_id(node: Mapping[str, Any], step: str, args: Mapping[str, Any], place: Place) -> tuple[str, bool]:
    """Return the run's id, and whether a repetition of the command gets the same one.

    A node that does not say where it is in which list (a child node, or a caller that is not Ironic) is identified
    by all that was sent, if that includes a time of Ironic's; the repetition of a request is the same in every
    byte. With no such time two executions cannot be told from a repetition, and leaving out a step that was asked
    for would be as wrong as running one twice: the id is then a new one each time.
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
    """Take a run id apart; None when it is not one of this module's."""
    match = _ID.match(identifier)
    if match is None:
        return None
    phase = {"c": "clean", "d": "deploy", "s": "service", "x": ""}[match["phase"]]
    session = "" if match["session"] == "any" else match["session"]
    index = None if match["index"] == "x" else int(match["index"])
    return ParsedId(phase, session, index)


def _digest(value: object) -> str:
    # default=str: a node object holds only JSON, but a caller inside IPA may hand over a date.
    text = json.dumps(value, sort_keys=True, default=str, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
