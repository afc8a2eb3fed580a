"""A small careen agent on a real unix socket: the API's documents, containers that are scripts.

It does not imitate steps and policy: IPA's own container manager decides them, with a configuration that consists of
the values from the socket. So the tests find values that the plugin sends wrong or not at all.
"""

from __future__ import annotations

import itertools
import json
import socketserver
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, unquote, urlsplit

from ironic_python_agent import config as ipa_config
from ironic_python_agent import errors, utils
from ironic_python_agent.hardware_managers import container
from oslo_config import cfg

Json = dict[str, Any]

#: The members of POST /v1/runs that a step may have; the agent refuses any other.
REQUEST = {
    "id",
    "step",
    "phase",
    "args",
    "node",
    "route",
    "env",
    "timeout",
    "silence_timeout",
    "reboot_exit_codes",
}

BUILTIN = ("generic_container_step", "container_clean_step")
#: The agent's step for several containers; the agent runs it as one run.
SEQUENCE = "container_sequence_step"

FINAL = ("succeeded", "failed", "aborted", "timed_out", "lost")


def now() -> str:
    """Return the time as Go writes it."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@dataclass
class Script:
    """The script of a container."""

    lines: list[str] = field(default_factory=list)
    exit_code: int = 0
    #: The container runs until this is set.
    gate: threading.Event | None = None
    pull: list[Json] = field(default_factory=list)
    #: Members of the outcome to set or replace, and the state to end in.
    outcome: Json = field(default_factory=dict)
    state: str = ""
    #: Called in the run's thread when the container starts.
    started: Callable[[], None] = lambda: None


class Run:
    """A run and its streams."""

    def __init__(self, document: Json, script: Script) -> None:
        self.document = document
        self.script = script
        self.lines: list[Json] = []
        self.events: list[Json] = []
        self.changed = threading.Condition()
        self.aborted = threading.Event()
        self.request: Json = {}

    @property
    def final(self) -> bool:
        return self.document["state"] in FINAL

    def update(self, **members: Any) -> None:
        with self.changed:
            self.document.update(members)
            if "state" in members:
                self._event({"type": "state", "state": members["state"]})
            self.changed.notify_all()

    def _event(self, event: Json) -> None:
        self.events.append({"seq": len(self.events) + 1, "time": now(), "run": self.document["id"], **event})

    def event(self, **event: Any) -> None:
        with self.changed:
            self._event(event)
            self.changed.notify_all()

    def write(self, text: str, stream: str = "stdout", **members: Any) -> None:
        with self.changed:
            cursor = str(len(self.lines) + 1)
            self.lines.append({"time": now(), "stream": stream, "text": text, "cursor": cursor, **members})
            self.changed.notify_all()

    def execute(self) -> None:
        """Live the life of a container; one that its creator's signal does not end waits for its gate."""
        script = self.script
        self.update(state="pulling")
        for progress in script.pull:
            self.event(type="pull", pull=progress)
        self.update(state="running", digest="sha256:" + "1" * 64)
        script.started()
        for line in script.lines:
            self.write(line)
        while script.gate is not None and not script.gate.wait(0.01):
            if self.aborted.is_set():
                break
        aborted = self.aborted.is_set()
        outcome: Json = {"duration": "1.5s", "phases": {"running": "1.2s"}, "log_tail": script.lines[-20:]}
        state = "succeeded"
        if aborted:
            state = "aborted"
            outcome |= {
                "code": "aborted",
                "message": f"run {self.document['id']} was aborted",
                "exit_code": 143,
            }
        elif script.exit_code:
            state = "failed"
            outcome |= {
                "code": "exit",
                "exit_code": script.exit_code,
                "message": f"container {self.document['image']} ended with exit code {script.exit_code}",
                "remedy": "See the last lines of its output",
            }
        else:
            outcome["exit_code"] = 0
        self.update(outcome=outcome | script.outcome, ended_at=now())
        self.update(state=script.state or state)


class FakeAgent:
    """The agent. Attributes may be changed between requests."""

    def __init__(self, path: Path, execute: bool = False) -> None:
        """Listen at path. With execute, call IPA's utils.execute for containers as IPA's own manager does."""
        self.path = path
        self.execute = execute
        self.version: Json = {"version": "1.0.0", "api_version": "v1", "boot_id": "boot-1"}
        self.health: Json = {"ready": True, "checks": []}
        self.scripts: dict[str, Script] = {}
        self.default = Script()
        self.runs: dict[str, Run] = {}
        self.options: Json = {}
        self.requests: list[tuple[str, str, Json | None]] = []
        self.bundles = True
        #: IPA's manager, which makes the decisions.
        self.manager: Any = container.ContainerHardwareManager
        #: Requests whose connection is cut before an answer: method and path's start to how many.
        self.cut: dict[tuple[str, str], int] = {}
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = _Server(str(self.path), _Handler)
        self._server.agent = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and cut every connection, as the end of the process would."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._server.cut_all()
        self._server.server_close()
        self._thread.join()
        self.path.unlink(missing_ok=True)
        self._server = None

    def asked(self, method: str, start: str = "/") -> list[Json | None]:
        """Return the bodies of the requests with this method and path prefix."""
        return [body for verb, path, body in self.requests if verb == method and path.startswith(start)]

    def add_run(self, identifier: str, state: str = "lost", **members: Any) -> Run:
        """Put a run into the journal."""
        document = {
            "id": identifier,
            "state": state,
            "image": "registry.example.com/tool:1",
            "abortable": True,
            "created_at": now(),
            "boot_id": "boot-0",
            **members,
        }
        if state in FINAL:
            document.setdefault("outcome", {})
        run = self.runs[identifier] = Run(document, self.default)
        return run

    # Decisions of IPA's own manager.

    def stock(self) -> Any:
        """Return a stock manager and the patch under which it reads this agent's configuration."""
        conf = cfg.ConfigOpts()
        conf.register_opts(ipa_config.container_opts, group="container")  # type: ignore[attr-defined]
        conf([], default_config_files=[], default_config_dirs=[])
        for name, value in self.options.items():
            conf.set_override(name, value, group="container")
        return mock.patch.object(container, "CONF", conf)

    def list_steps(self, phase: str, reserved: set[str]) -> list[Json]:
        with self._lock, self.stock():
            try:
                steps = self.manager()._get_steps(automatic=phase == "clean")
            except errors.HardwareManagerConfigurationError as exc:
                raise Refusal(422, "bad_steps", exc.details) from exc
        for step in steps:
            if step["step"] not in BUILTIN and step["step"] in reserved:
                raise Refusal(422, "bad_steps", f"Container step '{step['step']}' collides")
        return [*steps, {**steps[0], "step": SEQUENCE, "argsinfo": {"sequence": {"required": True}}}]

    def parts(self, body: Json) -> list[Json]:
        """Return the images and options of a step's parts; the policy decides on each."""
        step, args = body["step"], body.get("args") or {}
        with self._lock, self.stock():
            stock = self.manager()
            if step in (*BUILTIN, SEQUENCE):
                wanted = args["sequence"] if step == SEQUENCE else [args]
                trusted = False
            else:
                file = container.CONF.container.container_steps_file  # type: ignore[attr-defined]
                found = [one for one in stock._load_steps_from_yaml(file) if one["name"] == step]
                if not found:
                    raise Refusal(404, "not_found", f"no such step {step}")
                wanted = [{**found[0], "container_url": found[0]["image"]}]
                trusted = True
            parts = []
            for one in wanted:
                try:
                    pull, run = stock._apply_container_policy(
                        one.get("container_url"), one.get("pull_options"), one.get("run_options"), trusted
                    )
                except errors.InvalidCommandParamsError as exc:
                    raise Refusal(400, "bad_request", exc.details) from exc
                except errors.ContainerNotPermittedError as exc:
                    detail = f"cannot run step {step}: {exc.details}"
                    raise Refusal(403, "policy", detail, "Add the image to the allowlist") from exc
                parts.append(
                    {"container_url": one["container_url"], "pull_options": pull, "run_options": run}
                )
            return parts

    def create(self, body: Json) -> Json:
        existing = self.runs.get(body["id"])
        if existing is not None:
            if existing.request and existing.request != body:
                detail = f"cannot take run {body['id']}: another request has this id"
                raise Refusal(409, "conflict", detail, holder=body["id"])
            return existing.document
        unknown = body.keys() - REQUEST
        if unknown:
            raise Refusal(400, "bad_request", f"unknown member {sorted(unknown)}")
        parts = self.parts(body)
        part = parts[0]
        image = part["container_url"]
        script = self.scripts.get(image, self.default)
        document = {
            "id": body["id"],
            "state": "queued",
            "step": body["step"],
            "phase": body.get("phase"),
            "node": (body.get("node") or {}).get("uuid"),
            "image": image,
            "abortable": True,
            "created_at": now(),
            "boot_id": self.version["boot_id"],
        }
        run = self.runs[body["id"]] = Run(document, script)
        run.request = body
        if self.execute:
            runner = self.options.get("runner", "podman")
            utils.execute(runner, "--version")
            utils.execute(runner, "pull", *part["pull_options"], image)
            utils.execute(runner, "run", *part["run_options"], image)
        accepted = dict(document)
        threading.Thread(target=run.execute, daemon=True).start()
        return accepted


class Refusal(Exception):
    """A problem document."""

    def __init__(self, status: int, code: str, detail: str, remedy: str = "", **members: Any) -> None:
        self.status = status
        self.document = {
            "type": f"https://careen-project.github.io/problems/{code}",
            "title": code,
            "status": status,
            "detail": detail,
            "code": code,
            "remedy": remedy,
            **members,
        }
        super().__init__(detail)


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 32
    agent: FakeAgent

    def __init__(self, *args: Any) -> None:
        self.connections: set[Any] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.connections.discard(request)
        super().shutdown_request(request)

    def cut_all(self) -> None:
        for connection in list(self.connections):
            try:
                connection.shutdown(2)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors of cut connections, which are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PATCH = do_DELETE = do_GET

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        url = urlsplit(self.path)
        agent = self.server.agent
        agent.requests.append((self.command, url.path, body))
        for (method, start), count in agent.cut.items():
            if method == self.command and url.path.startswith(start) and count > 0:
                agent.cut[method, start] = count - 1
                # The work is done, its answer is lost.
                if method == "POST" and start == "/v1/runs":
                    agent.create(body or {})
                self.close_connection = True
                self.connection.shutdown(2)
                return
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        try:
            self._route(self.command, [unquote(part) for part in url.path.split("/")[2:]], query, body or {})
        except Refusal as exc:
            self._json(exc.status, exc.document, "application/problem+json")

    def _route(self, method: str, path: list[str], query: dict[str, str], body: Json) -> None:
        agent = self.server.agent
        match [method, *path]:
            case ["GET", "version"]:
                self._json(200, agent.version)
            case ["GET", "health"]:
                self._json(200 if agent.health["ready"] else 503, agent.health)
            case ["GET", "config"]:
                self._json(200, {"container": agent.options})
            case ["PATCH", "config"]:
                agent.options = dict(body)
                self._json(200, {"container": agent.options})
            case ["GET", "steps"]:
                reserved = set(query.get("reserved", "").split(","))
                self._json(200, agent.list_steps(query["phase"], reserved))
            case ["POST", "runs"]:
                self._json(202, agent.create(body))
            case ["GET", "runs"]:
                self._json(200, [run.document for run in agent.runs.values()])
            case [_, "runs", identifier, *rest] if identifier in agent.runs:
                self._run(method, agent.runs[identifier], rest, query, body)
            case _:
                raise Refusal(404, "not_found", f"no such thing as {'/'.join(path)}")

    def _run(self, method: str, run: Run, rest: list[str], query: dict[str, str], body: Json) -> None:
        agent = self.server.agent
        match [method, *rest]:
            case ["GET"]:
                self._json(200, run.document)
            case ["DELETE"]:
                del agent.runs[run.document["id"]]
                self.send_response(204)
                self.end_headers()
            case ["GET", "wait"]:
                deadline = time.monotonic() + int(query["timeout"].removesuffix("s"))
                with run.changed:
                    while not run.final and time.monotonic() < deadline:
                        run.changed.wait(0.5)
                self._json(200, run.document)
            case ["POST", "abort"]:
                run.document["stop_reason"] = body.get("reason")
                run.aborted.set()
                self._json(202, run.document)
            case ["GET", "logs"] if "follow" in query:
                self._follow(
                    run,
                    run.lines,
                    "application/x-ndjson",
                    lambda line: json.dumps(line) + "\n",
                    int(query.get("after", 0)),
                )
            case ["GET", "logs"]:
                self._bytes(200, "\n".join(line["text"] for line in run.lines).encode(), "text/plain")
            case ["GET", "events"]:
                after = int(self.headers.get("Last-Event-ID") or 0)
                self._follow(run, run.events, "text/event-stream", _sse, after)
            case ["GET", "bundle"] if agent.bundles:
                self._bytes(200, b"\x1f\x8b bundle of " + run.document["id"].encode(), "application/gzip")
            case _:
                raise Refusal(404, "not_found", "no such thing")

    def _follow(
        self, run: Run, items: list[Json], media: str, show: Callable[[Json], str], start: int
    ) -> None:
        self.send_response(200)
        self.send_header("Content-Type", media)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for position in itertools.count(start):
            with run.changed:
                while position >= len(items) and not run.final:
                    run.changed.wait(0.5)
                if position >= len(items):
                    break
                text = show(items[position]).encode()
            self.wfile.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def _json(self, status: int, document: object, media: str = "application/json") -> None:
        self._bytes(status, json.dumps(document).encode(), media)

    def _bytes(self, status: int, data: bytes, media: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _ndjson(line: Json) -> str:
    return json.dumps(line) + "\n"


def _sse(event: Json) -> str:
    return f": keep-alive\n\nid: {event['seq']}\nevent: {event['type']}\ndata: {json.dumps(event)}\n\n"
