"""A client of careen's socket: HTTP and JSON over AF_UNIX, standard library only.

Every request has a new connection. That costs a fraction of a millisecond on a unix socket, and leaves no state to
share between threads or to repair after a restart of the agent.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode

Json = dict[str, Any]

#: The part of the agent's api_version that must match.
API_MAJOR = "1"

#: The largest JSON document that is read, in bytes: a run's result file is at most 1 MiB.
MAX_DOCUMENT = 16 << 20
#: The longest line of a log or event stream that is read, in bytes.
MAX_LINE = 4 << 20


class ClientError(Exception):
    """Any error between this client and the agent."""


class Unreachable(ClientError):
    """The agent did not answer: no socket, refused, closed half-way or timed out."""


class ProtocolError(ClientError):
    """The answer does not come from careen's API."""


class Problem(ClientError):
    """An RFC 9457 problem document of the agent.

    ``code`` is one of the agent's stable codes, ``remedy`` one sentence without a final stop, or "".
    """

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        """Take the members of document that are known; all of them are optional."""
        self.status = status
        self.code = str(document.get("code") or "")
        self.detail = str(document.get("detail") or document.get("title") or f"HTTP status {status}")
        self.remedy = str(document.get("remedy") or "")
        self.field = str(document.get("field") or "")
        self.holder = str(document.get("holder") or "")
        attrs = document.get("attrs")
        self.attrs: Json = dict(attrs) if isinstance(attrs, Mapping) else {}
        super().__init__(self.detail)


class _UnixConnection(http.client.HTTPConnection):
    """An HTTPConnection to a unix socket, which can be cut from another thread."""

    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("careen", timeout=timeout)
        self._path = path
        # http.client drops the socket when it knows the response's end; cut needs it until then.
        self._raw: socket.socket | None = None

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(self.timeout)
            sock.connect(self._path)
        except BaseException:
            sock.close()
            raise
        self.sock = sock
        self._raw = sock

    def read_timeout(self, seconds: float | None) -> None:
        if self._raw is not None:
            self._raw.settimeout(seconds)

    def cut(self) -> None:
        """End a read in which another thread is blocked."""
        if self._raw is not None:
            # A closed socket needs no shutdown.
            with contextlib.suppress(OSError):
                self._raw.shutdown(socket.SHUT_RDWR)


class Stream(Iterator[Json]):
    """JSON documents as they arrive; an iterator that close() ends from any thread."""

    def __init__(self, connection: _UnixConnection, response: http.client.HTTPResponse, sse: bool) -> None:
        """Read response as server-sent events (sse) or as one document a line."""
        self._connection = connection
        self._response = response
        self._sse = sse
        self._closed = False
        self._buffer = bytearray()

    def __next__(self) -> Json:
        """Return the next document. A stream that breaks off raises Unreachable."""
        data: list[str] = []
        while True:
            line = self._line()
            if line is None:
                self.close()
                raise StopIteration
            if not self._sse:
                if line:
                    return _decode(line.encode())
                continue
            # Server-sent events: data lines up to an empty line; id and event repeat the content of the data.
            if line.startswith("data:"):
                data.append(line[5:].removeprefix(" "))
            elif not line and data:
                return _decode("\n".join(data).encode())

    def _line(self) -> str | None:
        """Return the next line without its end, or None after the last one."""
        while b"\n" not in self._buffer:
            if len(self._buffer) > MAX_LINE:
                raise ProtocolError("the careen agent sent a line that is too long")
            data = self._read()
            if not data:
                return None
            self._buffer += data
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = bytearray(rest)
        return line.decode("utf-8", "replace").rstrip("\r")

    def _read(self) -> bytes:
        """Return the bytes that have arrived; empty only at the end."""
        if self._closed:
            return b""
        try:
            # Not readline: it treats a broken connection within a chunked body as the body's end.
            return self._response.read1(65536)
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as exc:
            # http.client raises the last two if close() closes the socket during the read.
            if self._closed:
                return b""
            raise Unreachable(f"the careen agent's stream broke off: {exc}") from exc

    def close(self) -> None:
        """End the stream. A __next__ in another thread stops."""
        self._closed = True
        self._connection.cut()

    def __enter__(self) -> Stream:
        """Return the stream itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the stream and its connection."""
        self.close()
        with contextlib.suppress(OSError, ValueError):
            self._response.close()
        self._connection.close()


class Client:
    """The careen agent behind the socket at path. May be used by several threads at once."""

    def __init__(self, path: str, timeout: float = 30.0) -> None:
        """Speak to the socket at path, waiting timeout seconds for connections and answers."""
        self.path = path
        self.timeout = timeout

    def version(self) -> Json:
        """GET /v1/version."""
        return self._object("GET", "/v1/version")

    def health(self) -> Json:
        """GET /v1/health; the document is the same for ready (200) and not ready (503)."""
        return self._object("GET", "/v1/health", accept=(200, 503))

    def config(self) -> Json:
        """GET /v1/config: the options in force and where each came from."""
        return self._object("GET", "/v1/config")

    def patch_config(self, options: Mapping[str, Any]) -> None:
        """PATCH /v1/config: what the conductor sent at lookup."""
        self._request("PATCH", "/v1/config", body=options)

    def steps(self, phase: str, reserved: list[str]) -> list[Json]:
        """GET /v1/steps for phase clean, deploy or service."""
        query = urlencode({"phase": phase, "reserved": ",".join(reserved)})
        answer = _decode_any(self._request("GET", f"/v1/steps?{query}"))
        return _list(answer, "steps")

    def create_run(self, body: Mapping[str, Any]) -> Json:
        """POST /v1/runs. The same id gives the same run."""
        return self._object("POST", "/v1/runs", body=body)

    def runs(self) -> list[Json]:
        """GET /v1/runs."""
        return _list(_decode_any(self._request("GET", "/v1/runs")), "runs")

    def run(self, run_id: str) -> Json:
        """GET /v1/runs/{id}."""
        return self._object("GET", _run_path(run_id))

    def wait(self, run_id: str, seconds: int) -> Json:
        """GET /v1/runs/{id}/wait: the run once it has ended, or its state after so many seconds."""
        path = f"{_run_path(run_id)}/wait?timeout={seconds}s"
        return self._object("GET", path, timeout=seconds + self.timeout)

    def abort(self, run_id: str, reason: str, timeout: float | None = None) -> None:
        """POST /v1/runs/{id}/abort."""
        self._request("POST", f"{_run_path(run_id)}/abort", body={"reason": reason}, timeout=timeout)

    def delete(self, run_id: str) -> None:
        """DELETE /v1/runs/{id}: forget a run that has ended."""
        self._request("DELETE", _run_path(run_id))

    def bundle(self, run_id: str, limit: int) -> tuple[str, bytes]:
        """GET /v1/runs/{id}/bundle: content type and bytes, at most limit of them."""
        return self._raw("GET", f"{_run_path(run_id)}/bundle", limit=limit)

    def log_text(self, run_id: str, limit: int) -> bytes:
        """GET /v1/runs/{id}/logs as plain text, at most limit bytes."""
        return self._raw("GET", f"{_run_path(run_id)}/logs", limit=limit, headers={"Accept": "text/plain"})[1]

    def follow_logs(self, run_id: str, after: str = "") -> Stream:
        """GET /v1/runs/{id}/logs?follow=true: LogLine documents, from the first line or the cursor after on."""
        query = urlencode({"follow": "true", **({"after": after} if after else {})})
        return self._stream(f"{_run_path(run_id)}/logs?{query}", "application/x-ndjson")

    def follow_events(self, run_id: str, after: int | None = None) -> Stream:
        """GET /v1/runs/{id}/events: Event documents with a sequence number above after."""
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        return self._stream(f"{_run_path(run_id)}/events", "text/event-stream", headers)

    def _object(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        accept: tuple[int, ...] = (),
    ) -> Json:
        return _decode(self._request(method, path, body, timeout, accept))

    def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        accept: tuple[int, ...] = (),
    ) -> bytes:
        return self._raw(method, path, body, timeout, accept, MAX_DOCUMENT)[1]

    def _raw(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        accept: tuple[int, ...] = (),
        limit: int = MAX_DOCUMENT,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[str, bytes]:
        connection = _UnixConnection(self.path, self.timeout if timeout is None else timeout)
        try:
            response = self._send(connection, method, path, body, headers)
            raw = response.read(limit + 1)
            if response.length and len(raw) <= limit:
                raise Unreachable(
                    f"the careen agent's answer broke off, {response.length} bytes before its end"
                )
            if response.status >= 400 and response.status not in accept:
                raise _problem(response.status, raw)
            if len(raw) > limit:
                raise ProtocolError(f"the answer to {method} {path} is larger than {limit} bytes")
            return response.getheader("Content-Type", ""), raw
        except (OSError, http.client.HTTPException) as exc:
            raise self._unreachable(exc) from exc
        finally:
            connection.close()

    def _stream(self, path: str, media: str, headers: Mapping[str, str] | None = None) -> Stream:
        connection = _UnixConnection(self.path, self.timeout)
        try:
            response = self._send(connection, "GET", path, None, {"Accept": media, **(headers or {})})
            if response.status >= 400:
                raise _problem(response.status, response.read(MAX_DOCUMENT))
            # A container may be silent for hours. The agent's end shows as the end of the connection.
            connection.read_timeout(None)
        except (OSError, http.client.HTTPException) as exc:
            connection.close()
            raise self._unreachable(exc) from exc
        except BaseException:
            connection.close()
            raise
        return Stream(connection, response, sse=media == "text/event-stream")

    @staticmethod
    def _send(
        connection: _UnixConnection,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
    ) -> http.client.HTTPResponse:
        sent = {"Accept": "application/json", "Connection": "close", **(headers or {})}
        payload: bytes | None = None
        if body is not None:
            payload = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        connection.request(method, path, body=payload, headers=sent)
        return connection.getresponse()

    def _unreachable(self, exc: Exception) -> Unreachable:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc) or type(exc).__name__
        return Unreachable(f"cannot reach the careen agent at {self.path}: {reason}")


def _run_path(run_id: str) -> str:
    return "/v1/runs/" + quote(run_id, safe="")


def _problem(status: int, raw: bytes) -> Problem:
    try:
        return Problem(status, _decode(raw))
    except ProtocolError:
        text = raw[:200].decode("utf-8", "replace").strip()
        return Problem(status, {"detail": f"HTTP status {status}: {text}" if text else None})


def _decode_any(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as exc:
        raise ProtocolError(f"the careen agent's answer is not JSON: {exc}") from exc


def _decode(raw: bytes) -> Json:
    document = _decode_any(raw)
    if not isinstance(document, dict):
        raise ProtocolError(f"the careen agent's answer is a {type(document).__name__}, not an object")
    return document


def _list(answer: object, what: str) -> list[Json]:
    """Return answer as a list of objects."""
    if not isinstance(answer, list) or not all(isinstance(item, dict) for item in answer):
        raise ProtocolError(f"the careen agent's answer is no list of {what}")
    return answer
