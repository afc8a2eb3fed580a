"""Commands to the agent's HTTP API."""

from __future__ import annotations

import http.client
import json
import ssl
from typing import Any
from urllib.parse import urlencode, urlsplit

Json = dict[str, Any]


class ConnectionFailed(Exception):
    """No answer, so it is unknown whether the command arrived."""


class ApiError(Exception):
    """An HTTP status that is not a success."""

    def __init__(self, status: int, text: str) -> None:
        """Keep status and the agent's faultstring."""
        self.status = status
        super().__init__(f"HTTP {status}: {text}")


class AgentClient:
    """The agent that heartbeats from url."""

    #: Ironic's [agent]max_command_attempts and command_timeout.
    ATTEMPTS = 3
    TIMEOUT = 60.0

    def __init__(self, url: str, token: str, ca: str = "") -> None:
        """Use token; ca is the agent's certificate from its heartbeat, "" for plain HTTP."""
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._port = parts.port or 9999
        self._token = token
        self._context: ssl.SSLContext | None = None
        if parts.scheme == "https":
            self._context = ssl.create_default_context(cadata=ca or None)
            # If a forwarded port leads to the agent, its certificate names another address.
            self._context.check_hostname = False

    def command(self, name: str, params: Json, wait: bool = False) -> Json:
        """Send a command. The body is made once: a repetition is the same in every byte, as in Ironic."""
        body = json.dumps({"name": name, "params": params}).encode()
        for attempt in range(self.ATTEMPTS):
            try:
                return self._request("POST", {"wait": str(wait).lower()}, body)
            except ConnectionFailed:
                running = self._running(name)
                if running is not None:
                    return running
                if attempt == self.ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def commands(self) -> list[Json]:
        """Return the agent's list of commands, oldest first."""
        return list(self._request("GET", {}, None)["commands"])

    def _running(self, name: str) -> Json | None:
        """Return the last command if it is the one that was sent and still runs: then it had arrived."""
        try:
            commands = self.commands()
        except ConnectionFailed:
            return None
        last = commands[-1] if commands else {}
        same = last.get("command_name") == name.partition(".")[2]
        return last if same and last.get("command_status") == "RUNNING" else None

    def _request(self, method: str, query: dict[str, str], body: bytes | None) -> Json:
        path = "/v1/commands/?" + urlencode({**query, "agent_token": self._token})
        if self._context is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=self.TIMEOUT)
        else:
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=self.TIMEOUT, context=self._context
            )
        try:
            connection.request(method, path, body=body, headers={"Content-Type": "application/json"})
            response = connection.getresponse()
            raw = response.read()
        except (OSError, http.client.HTTPException) as exc:
            raise ConnectionFailed(str(exc)) from exc
        finally:
            connection.close()
        document = json.loads(raw)
        if response.status >= 400:
            raise ApiError(response.status, str(document.get("faultstring")))
        return dict(document)
