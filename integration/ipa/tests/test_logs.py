"""The path of a container's output into IPA's log."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from careen_ipa import logs
from careen_ipa.client import Client
from tests.fake_agent import FakeAgent


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("plain\ttext", "plain\ttext"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("never\x1b]0;ends", "never"),
        ("\x1b(Bcharset\x1bc", "charset"),
        ("\x9b2Jcleared", "cleared"),
        ("10%\r 50%\r100%", "100%"),
        ("done\r", "done"),
        ("bell\x07 nul\x00", "bell\\x07 nul\\x00"),
        ("a\x1b", "a\\x1b"),
        ("forged\nline", "forged\\x0aline"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("x" * 3000, "x" * 2000 + " ..."),
        ("grüße \U0001f600", "grüße \U0001f600"),
        ("half \ud83d", "half \\ud83d"),
    ],
)
def test_clean(raw: str, shown: str) -> None:
    assert logs.clean(raw) == shown


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ({"text": "a"}, "a"),
        ({"text": "", "base64": "/2E="}, "\\xffa"),
        ({"base64": "not base64!"}, "not base64!"),
        ({}, ""),
    ],
)
def test_line_text(line: dict[str, Any], text: str) -> None:
    assert logs.line_text(line) == text


@pytest.mark.parametrize(
    ("stamp", "value"),
    [
        ("1970-01-01T00:00:01Z", 1_000_000_000),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01T01:00:00.000000001+01:00", 1),
        ("yesterday", 0),
        (None, 0),
    ],
)
def test_nanoseconds(stamp: object, value: int) -> None:
    assert logs.nanoseconds(stamp) == value


def test_limiter() -> None:
    clock = [0.0]
    limiter = logs.Limiter(2, now=lambda: clock[0])
    assert [limiter.admit()[0] for _ in range(21)] == [True] * 20 + [False]
    assert limiter.left_out() == 1
    clock[0] = 1.0
    assert limiter.admit() == (True, 1)
    assert limiter.admit() == (True, 0)
    assert limiter.admit() == (False, 0)


def test_output_goes_on_after_an_agent_restart(agent: FakeAgent, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run = agent.add_run("one", state="running")
    for number in range(3):
        run.write(f"line {number}")
    seen = threading.Event()
    follower = logs.OutputFollower(Client(str(agent.path)), "one", rate=100)
    handler = Watch("line 2", seen)
    logs.LOG.logger.addHandler(handler)
    try:
        follower.start()
        assert seen.wait(60)
        agent.stop()
        run.write("line 3")
        run.write("line 4")
        run.update(state="succeeded")
        agent.start()
        follower.finish(10)
    finally:
        logs.LOG.logger.removeHandler(handler)
    lines = [record.getMessage() for record in caplog.records if "[one stdout]" in record.getMessage()]
    assert lines == [f"[one stdout] line {number}" for number in range(5)]


def test_a_flood_is_cut_and_counted(agent: FakeAgent, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run = agent.add_run("one", state="running")
    for number in range(100):
        run.write(str(number))
    run.update(state="succeeded")
    follower = logs.OutputFollower(Client(str(agent.path)), "one", rate=1)
    follower.start()
    follower.finish(10)
    messages = [record.getMessage() for record in caplog.records]
    written = [text for text in messages if "stdout]" in text]
    assert 10 <= len(written) < 20
    assert (
        f"[one careen] {100 - len(written)} lines of output are left out here; the run's log has them"
        in messages
    )


def test_progress_is_thinned_out(agent: FakeAgent, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run = agent.add_run("one", state="running")
    run.event(type="pull", pull={"status": "resolving", "done": 0, "total": 0})
    waiting = {
        "status": "waiting",
        "done": 0,
        "total": 0,
        "message": "waiting for a route to 192.0.2.7: no address yet",
    }
    run.event(type="pull", pull=waiting)
    for percent in range(101):
        run.event(
            type="pull",
            pull={"status": "downloading", "done": percent << 20, "total": 100 << 20, "rate": 1 << 20},
        )
    run.event(type="warning", message="no time limit")
    run.update(state="succeeded")
    follower = logs.EventFollower(Client(str(agent.path)), "one", "tool:1", now=lambda: 0.0)
    follower.start()
    follower.finish(10)
    messages = [record.getMessage() for record in caplog.records if record.getMessage().startswith("[one]")]
    assert messages[0] == "[one] pulling tool:1: resolving, 0.0 MiB"
    assert messages[1] == "[one] pulling tool:1: waiting for a route to 192.0.2.7: no address yet"
    assert messages[2] == "[one] pulling tool:1: downloading, 0 % of 100.0 MiB, 1.0 MiB/s"
    assert len([text for text in messages if "downloading" in text]) == 11
    assert messages[-2:] == ["[one] no time limit", "[one] succeeded"]


class Watch(logging.Handler):
    """Sets an event at a line of the log."""

    def __init__(self, text: str, event: threading.Event) -> None:
        super().__init__()
        self._text = text
        self._event = event

    def emit(self, record: logging.LogRecord) -> None:
        if self._text in record.getMessage():
            self._event.set()
