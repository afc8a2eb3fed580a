"""The client: documents, problems, streams, and broken connections."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from careen_ipa.client import Client, Problem, ProtocolError, Unreachable
from tests.fake_agent import FakeAgent, Run, Script


@pytest.fixture
def client(agent: FakeAgent) -> Client:
    return Client(str(agent.path), timeout=5)


def answer(path: Path, raw: bytes) -> threading.Thread:
    """Answer one connection at path with raw bytes."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)

    def serve() -> None:
        connection, _ = server.accept()
        with connection, server:
            connection.recv(65536)
            connection.sendall(raw)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_documents(agent: FakeAgent, client: Client) -> None:
    assert client.version()["api_version"] == "v1"
    assert client.health()["ready"] is True
    assert client.config() == {"container": {}}
    assert client.runs() == []
    client.patch_config({"allow_arbitrary_containers": True})
    assert agent.options == {"allow_arbitrary_containers": True}


def test_health_is_a_document_when_not_ready(agent: FakeAgent, client: Client) -> None:
    agent.health = {"ready": False, "checks": [{"name": "cgroup", "status": "error", "detail": "none"}]}
    assert client.health() == agent.health


def test_problem(client: Client) -> None:
    with pytest.raises(Problem) as caught:
        client.run("ipa-none")
    assert caught.value.status == 404
    assert caught.value.code == "not_found"


def test_identifiers_are_quoted(agent: FakeAgent, client: Client) -> None:
    with pytest.raises(Problem):
        client.run("../version?x=")
    assert agent.requests[-1][1] == "/v1/runs/..%2Fversion%3Fx%3D"


@pytest.mark.parametrize(
    ("raw", "kind", "text"),
    [
        (b"", Unreachable, "closed connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", Unreachable, "broke off, 97 bytes"),
        (b"SSH-2.0-OpenSSH\r\n", Unreachable, "SSH"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", ProtocolError, "not JSON"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", ProtocolError, "not an object"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * 3000, ProtocolError, "not JSON"),
        (b"HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops", Problem, "HTTP status 500: oops"),
        (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", Problem, "HTTP status 403"),
        (b'HTTP/1.1 400 No\r\nContent-Length: 24\r\n\r\n{"detail":"d","attrs":1}', Problem, "^d$"),
    ],
)
def test_strange_answers(tmp_path: Path, raw: bytes, kind: type[Exception], text: str) -> None:
    path = tmp_path / "strange.sock"
    thread = answer(path, raw)
    with pytest.raises(kind, match=text):
        Client(str(path), timeout=5).version()
    thread.join(5)


def test_no_socket(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"cannot reach the careen agent at .*none.sock: No such file"):
        Client(str(tmp_path / "none.sock")).version()


def test_nobody_listens(tmp_path: Path) -> None:
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    with pytest.raises(Unreachable, match="Connection refused"):
        Client(str(path)).version()


def test_silence_times_out(tmp_path: Path) -> None:
    path = tmp_path / "silent.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen(1)
        with pytest.raises(Unreachable, match="timed out"):
            Client(str(path), timeout=0.1).version()


def test_streams(agent: FakeAgent, client: Client) -> None:
    run = agent.add_run("one", state="running")
    run.write("first")
    run.event(type="warning", message="careful")
    with client.follow_logs("one") as logs, client.follow_events("one") as events:
        assert next(logs)["text"] == "first"
        assert next(events)["message"] == "careful"
        run.write("second", stream="stderr")
        run.update(state="succeeded")
        assert [line["text"] for line in logs] == ["second"]
        assert [event.get("state") for event in events] == ["succeeded"]
    with client.follow_events("one", after=1) as events:
        assert [event["seq"] for event in events] == [2]


def test_stream_of_no_run(client: Client) -> None:
    with pytest.raises(Problem):
        client.follow_logs("none")


def test_close_ends_a_stream_that_another_thread_reads(agent: FakeAgent, client: Client) -> None:
    agent.add_run("one", state="running")
    stream = client.follow_logs("one")
    seen: list[object] = []
    reader = threading.Thread(target=lambda: seen.extend(stream))
    reader.start()
    stream.close()
    reader.join(5)
    assert not reader.is_alive()
    assert seen == []


def test_a_stream_that_breaks_off_says_so(agent: FakeAgent, client: Client) -> None:
    run: Run = agent.add_run("one", state="running")
    run.write("first")
    with client.follow_logs("one") as logs:
        assert next(logs)["text"] == "first"
        agent.stop()
        with pytest.raises(Unreachable):
            next(logs)


def test_wait_returns_early_when_the_run_ends(agent: FakeAgent, client: Client) -> None:
    agent.options = {"allow_arbitrary_containers": True}
    agent.default = Script(gate=threading.Event())
    run = {"id": "w", "step": "generic_container_step", "args": {"container_url": "x"}}
    assert client.create_run(run)["state"] in ("queued", "pulling", "running")
    assert client.wait("w", 0)["state"] in ("queued", "pulling", "running")
    assert agent.default.gate is not None
    agent.default.gate.set()
    assert client.wait("w", 30)["state"] == "succeeded"
