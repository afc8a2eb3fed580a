"""The part of Ironic's API that an agent uses: versions, lookup, heartbeat."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from conductor.flow import Flow

Json = dict[str, Any]

#: With tokens (1.62) and without automatic TLS (1.68).
DEFAULT_API_VERSION = "1.62"


class Server(ThreadingHTTPServer):
    """The API on host and port; port 0 chooses a free one."""

    daemon_threads = True

    def __init__(
        self, flow: Flow, host: str = "127.0.0.1", port: int = 0, api_version: str = DEFAULT_API_VERSION
    ) -> None:
        """Serve flow's node. api_version 1.68 makes agents use TLS."""
        super().__init__((host, port), _Handler)
        self.flow = flow
        self.api_version = api_version
        #: The number of lookups and heartbeats.
        self.lookups = 0
        self.heartbeats = 0

    @property
    def url(self) -> str:
        """The value for IPA's api_url."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}"

    def start(self) -> None:
        """Serve in the background until shutdown."""
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path in ("", "/"):
            version = {
                "id": "v1",
                "version": self.server.api_version,
                "min_version": "1.1",
                "status": "CURRENT",
            }
            self._answer(200, {"default_version": version, "versions": [version]})
        elif path == "/v1/lookup":
            self.server.lookups += 1
            self._answer(200, self.server.flow.node.lookup())
        else:
            self._answer(404, {"error_message": {"faultstring": "Not found"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        node = self.server.flow.node
        if urlsplit(self.path).path != f"/v1/heartbeat/{node.uuid}":
            self._answer(404, {"error_message": {"faultstring": "Not found"}})
            return
        self.server.heartbeats += 1
        refusal = self.server.flow.heartbeat(
            str(body.get("callback_url")),
            str(body.get("agent_token")),
            str(body.get("agent_verify_ca") or ""),
        )
        if refusal:
            self._answer(400, {"error_message": {"faultstring": refusal}})
        else:
            self._answer(202, None)

    def _answer(self, status: int, document: Json | None) -> None:
        raw = b"" if document is None else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the agent's log has every request."""
