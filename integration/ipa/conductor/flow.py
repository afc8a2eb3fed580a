"""What Ironic's conductor does at a heartbeat."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from conductor.client import AgentClient, ApiError, ConnectionFailed
from conductor.node import Node

LOG = logging.getLogger(__name__)

Json = dict[str, Any]


@dataclass
class Ended:
    """How a step ended: SUCCEEDED with its result, FAILED with the details, SKIPPED after an unexpected restart."""

    step: Json
    status: str
    result: Any = None
    details: str = ""


@dataclass
class Outcome:
    """The end of the phase. ``error`` is Ironic's last_error."""

    advertised: Json = field(default_factory=dict)
    ended: list[Ended] = field(default_factory=list)
    error: str = ""
    #: The names of all commands as the agent lists them at the end.
    commands: list[str] = field(default_factory=list)


class Flow:
    """A phase of a node, from the first heartbeat to the last step."""

    def __init__(
        self,
        node: Node,
        steps: list[Json],
        agent_url: str = "",
        reboot: Callable[[], None] | None = None,
        collect_logs: bool = False,
    ) -> None:
        """Execute steps on node.

        :param agent_url: the agent's URL, if it differs from the one in the heartbeat.
        :param reboot: called for a step with reboot_requested after it has succeeded.
        :param collect_logs: send log.collect_system_logs after a failure; the answer is in logs.
        """
        self.node = node
        self.outcome = Outcome()
        self.logs = ""
        self.done = threading.Event()
        #: Set when the agent has taken a command to execute a step.
        self.step_sent = threading.Event()
        self._steps = steps
        self._url = agent_url
        self._reboot = reboot
        self._collect = collect_logs
        self._lock = threading.Lock()

    def heartbeat(self, callback_url: str, token: str, ca: str) -> str:
        """Act on a heartbeat. Returns Ironic's reason for a refusal, "" for none."""
        if token != self.node.token:
            return "Agent token is not valid"
        if ca and self.node.verify_ca not in ("", ca):
            return "Detected change in ramdisk provided agent_verify_ca"
        self.node.verify_ca = ca
        # One at a time, like the lock on a node; a heartbeat during another one is skipped.
        if self.done.is_set() or not self._lock.acquire(blocking=False):
            return ""
        thread = threading.Thread(target=self._act, args=(self._url or callback_url, ca), daemon=True)
        thread.start()
        return ""

    def _act(self, url: str, ca: str) -> None:
        client = AgentClient(url, self.node.token, ca)
        try:
            self._next(client)
        except (ConnectionFailed, ApiError) as exc:
            LOG.warning("heartbeat: %s", exc)
        except Exception as exc:  # the caller waits for done
            LOG.exception("the conductor failed")
            self._finish(client, f"conductor: {exc}")
        finally:
            self._lock.release()

    def _next(self, client: AgentClient) -> None:
        if self.node.index is None:
            if not self._refresh(client):
                return
            self._execute(client, 0)
            return
        commands = client.commands()
        phase = self.node.phase
        if not commands or (len(commands) == 1 and commands[0]["command_name"] == f"get_{phase}_steps"):
            # A ramdisk that has just booted. Ironic counts the step as done, intended or not.
            if not self.node.info.pop(f"{phase}_reboot", False):
                self.outcome.ended.append(Ended(self.node.step(), "SKIPPED"))
            self._execute(client, self.node.index + 1)
            return
        last = commands[-1]
        if last["command_name"] != f"execute_{phase}_step" or last["command_status"] == "RUNNING":
            return
        self._judge(client, last)

    def _refresh(self, client: AgentClient) -> bool:
        phase = self.node.phase
        answer = client.command(
            f"{phase}.get_{phase}_steps", {"node": self.node.document(), "ports": []}, wait=True
        )
        result = answer.get("command_result") or {}
        if f"{phase}_steps" not in result:
            error = answer.get("command_error") or {}
            self._finish(client, f"Failed to load in-band {phase} steps: {error.get('details')}")
            return False
        advertised = result[f"{phase}_steps"]
        self.outcome.advertised = advertised
        known = {step["step"]: step for steps in advertised.values() for step in steps}
        missing = [step["step"] for step in self._steps if step["step"] not in known]
        if missing:
            self._finish(client, f"Node does not support these {phase} steps: {missing}")
            return False
        self.node.refreshed(advertised, result["hardware_manager_version"], self._steps)
        return True

    def _execute(self, client: AgentClient, index: int) -> None:
        if index >= len(self._steps):
            self._finish(client, "")
            return
        phase = self.node.phase
        self.node.info[f"{phase}_step_index"] = index
        self.node.waiting = False
        params = {
            "step": self.node.step(),
            "node": self.node.document(),
            "ports": [],
            f"{phase}_version": self.node.info["hardware_manager_version"],
        }
        client.command(f"{phase}.execute_{phase}_step", params)
        self.node.waiting = True
        self.step_sent.set()

    def _judge(self, client: AgentClient, command: Json) -> None:
        phase, step = self.node.phase, self.node.step()
        status = command["command_status"]
        if status != "SUCCEEDED":
            error = command.get("command_error") or {}
            details = str(error.get("details") or error.get("message") or status)
            self.outcome.ended.append(Ended(step, status, details=details))
            name = f"{step.get('interface')}.{step['step']}"
            message = f"{phase.capitalize()} step {name} failed on node {self.node.uuid}. {details}"
            self._finish(client, message)
            return
        echo = (command.get("command_result") or {}).get(f"{phase}_step") or {}
        if any(echo.get(key) != step.get(key) for key in ("interface", "step")):
            return  # the step before; the new one has not begun
        self.outcome.ended.append(Ended(step, status, result=command["command_result"][f"{phase}_result"]))
        if step.get("reboot_requested") and self._reboot is not None:
            self.node.info[f"{phase}_reboot"] = True
            self.node.verify_ca = ""  # Ironic forgets it with the token when it reboots a node
            self._reboot()
            return
        assert self.node.index is not None  # noqa: S101  for the type checker: a step was executed
        self._execute(client, self.node.index + 1)

    def _finish(self, client: AgentClient, error: str) -> None:
        self.outcome.error = error
        try:
            self.outcome.commands = [command["command_name"] for command in client.commands()]
            if error and self._collect:
                answer = client.command("log.collect_system_logs", {}, wait=True)
                self.logs = str((answer.get("command_result") or {}).get("system_logs") or "")
        except (ConnectionFailed, ApiError) as exc:
            LOG.warning("after the end: %s", exc)
        self.done.set()
