"""The node object that Ironic sends, as an agent sees it."""

from __future__ import annotations

import copy
import secrets
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

Json = dict[str, Any]

_STATES = {
    "clean": ("clean wait", "cleaning"),
    "deploy": ("wait call-back", "deploying"),
    "service": ("service wait", "servicing"),
}


def utcnow() -> str:
    """Return the time in the format of Ironic's driver_internal_info."""
    return datetime.now(timezone.utc).replace(tzinfo=None).isoformat()


@dataclass
class Node:
    """A node in a phase that has a list of steps."""

    phase: str
    uuid: str = field(default_factory=lambda: str(uuid.uuid4()))
    name: str = "node-1"
    #: At least 32 characters, or IPA does not accept it.
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    #: Whether the ramdisk has the token from elsewhere, so that a restarted IPA has it again.
    token_pregenerated: bool = False
    token_given: bool = False
    #: The agent's certificate from its first heartbeat, which must not change before a reboot.
    verify_ca: str = ""
    #: The [agent_containers] section.
    containers: Json = field(default_factory=dict)
    info: Json = field(default_factory=dict)
    waiting: bool = True
    heartbeat_timeout: int = 60

    @property
    def index(self) -> int | None:
        """The step that is being executed, counted from 0."""
        found = self.info.get(f"{self.phase}_step_index")
        return found if isinstance(found, int) else None

    @property
    def steps(self) -> list[Json]:
        """The list of steps of this phase."""
        return list(self.info.get(f"{self.phase}_steps") or [])

    def step(self) -> Json:
        """Return the step that is being executed, {} before the first."""
        return {} if self.index is None else self.steps[self.index]

    def refreshed(self, cached: Json, versions: Json, steps: list[Json]) -> None:
        """Set the list of steps, as at the beginning of the phase."""
        self.info["hardware_manager_version"] = versions
        self.info[f"agent_cached_{self.phase}_steps"] = cached
        self.info[f"agent_cached_{self.phase}_steps_refreshed"] = utcnow()
        self.info[f"{self.phase}_steps"] = steps

    def document(self) -> Json:
        """Return the node for a command, with masked secrets."""
        waits, works = _STATES[self.phase]
        current = copy.deepcopy(self.step())
        return {
            "uuid": self.uuid,
            "name": self.name,
            "instance_uuid": None,
            "driver": "redfish",
            "driver_info": {"redfish_password": "******"},
            "driver_internal_info": {**copy.deepcopy(self.info), "agent_secret_token": "******"},
            "instance_info": {},
            "properties": {},
            "provision_state": waits if self.waiting else works,
            "provision_updated_at": utcnow(),
            "target_provision_state": "available",
            "clean_step": current if self.phase == "clean" else {},
            "deploy_step": current if self.phase == "deploy" else {},
            "service_step": current if self.phase == "service" else {},
        }

    def lookup(self) -> Json:
        """Return the answer of a lookup; only the first one has the token."""
        document = self.document()
        token = "******" if self.token_given else self.token
        self.token_given = True
        config: Json = {
            "heartbeat_timeout": self.heartbeat_timeout,
            "agent_token": "******" if self.token_pregenerated else token,
            "agent_token_required": True,
            "metrics": {},
            "metrics_statsd": {},
            "agent_containers": self.containers,
        }
        fields = ("uuid", "properties", "instance_info", "driver_internal_info")
        return {"node": {name: document[name] for name in fields}, "config": config}
