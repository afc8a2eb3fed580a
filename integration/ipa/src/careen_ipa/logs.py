"""A run's output and progress in IPA's log, while it runs.

The output of a container is not trusted. A line may hold escape sequences that change the reader's terminal, or bytes
that are not text. There may be any number of lines, while a ramdisk's journal has a few megabytes, which other
programs need too.
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from oslo_log import log

from careen_ipa.client import Client, ClientError, Stream

LOG = log.getLogger(__name__)

#: The longest line of output that goes to the log, in characters.
MAX_LINE = 2000

#: ANSI control sequences (CSI), operating system commands and their like (OSC, DCS, APC, PM, SOS), and two-character
#: escapes. An OSC without an end takes only the rest of its line.
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x9b[0-?]*[ -/]*[@-~]|\x1b[\]PX^_].*?(?:\x07|\x1b\\|$)|\x1b[ -/]*[0-~]",
    re.DOTALL,
)
#: Control characters, and the marks that reverse the direction of text.
_CONTROLS = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ud800-\udfff]"
)


def clean(text: str, limit: int = MAX_LINE) -> str:
    """Return text with no escape sequence and no control character but tab, at most limit characters long.

    If carriage returns overwrite a line several times, as in progress bars, the last state is kept.
    """
    if "\r" in text:
        text = next((part for part in reversed(text.split("\r")) if part.strip()), "")
    text = _CONTROLS.sub(_visible, _ESCAPES.sub("", text))
    return text if len(text) <= limit else text[:limit] + " ..."


def _visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def line_text(line: Mapping[str, Any]) -> str:
    """Return a LogLine's text; bytes that are not UTF-8 become escapes."""
    encoded = line.get("base64")
    if isinstance(encoded, str) and encoded:
        try:
            return base64.b64decode(encoded).decode("utf-8", "backslashreplace")
        except (binascii.Error, ValueError):
            return encoded
    return str(line.get("text") or "")


def nanoseconds(stamp: object) -> int:
    """Return an RFC 3339 time with up to nine decimals as nanoseconds since 1970; 0 if it is none."""
    match = re.match(r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$", str(stamp))
    if match is None:
        return 0
    zone = "+00:00" if match[3] == "Z" else match[3]
    whole = datetime.fromisoformat(match[1] + zone).astimezone(timezone.utc)
    return int(whole.timestamp()) * 10**9 + int((match[2] or "0").ljust(9, "0"))


class Limiter:
    """Admits rate lines a second on average, and at most the lines of ten seconds at once."""

    def __init__(self, rate: int, now: Callable[[], float] = time.monotonic) -> None:
        """Start with a full bucket."""
        self._rate = rate
        self._now = now
        self._tokens = 10.0 * rate
        self._last = now()
        self._dropped = 0

    def admit(self) -> tuple[bool, int]:
        """Return whether the next line may be written, and how many were dropped before it."""
        now = self._now()
        self._tokens = min(10.0 * self._rate, self._tokens + (now - self._last) * self._rate)
        self._last = now
        if self._tokens < 1:
            self._dropped += 1
            return False, 0
        self._tokens -= 1
        dropped, self._dropped = self._dropped, 0
        return True, dropped

    def left_out(self) -> int:
        """Return how many lines were dropped since the last one that was admitted."""
        return self._dropped


class _Follower:
    """A thread that reads a stream of the agent, and continues after a restart of the agent."""

    def __init__(self, name: str) -> None:
        self._stop = threading.Event()
        self._stream: Stream | None = None
        self._lock = threading.Lock()
        # A daemon: IPA must be able to exit while a container continues.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self, timeout: float) -> None:
        """Wait for the end of the stream, for at most timeout seconds."""
        self._thread.join(timeout)
        self._stop.set()
        with self._lock:
            if self._stream is not None:
                self._stream.close()
        self._thread.join(2)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with self._lock:
                    stream = self._stream = self._open()
                with stream:
                    for document in stream:
                        self._take(document)
                return
            except ClientError as exc:
                # Another call waits for the step; only the copy of the output is lost here.
                LOG.debug("%s: %s", self._thread.name, exc)
            except Exception:  # a bad line must not end the copy, nor IPA
                LOG.exception("%s cannot go on", self._thread.name)
                return
            self._stop.wait(1)

    def _open(self) -> Stream:
        raise NotImplementedError

    def _take(self, document: Mapping[str, Any]) -> None:
        raise NotImplementedError


class OutputFollower(_Follower):
    """Writes a run's output to IPA's log as it arrives."""

    def __init__(self, client: Client, run_id: str, rate: int) -> None:
        """Follow run_id; at most rate lines a second on average are written."""
        super().__init__(f"careen-output-{run_id}")
        self._client = client
        self._id = run_id
        self._limiter = Limiter(rate)
        # The cursor after the last line, to continue after an interruption.
        self._cursor = ""

    def finish(self, timeout: float) -> None:
        """Wait for the end of the output, and log how many lines were dropped."""
        super().finish(timeout)
        if self._limiter.left_out():
            self._note(self._limiter.left_out())

    def _open(self) -> Stream:
        return self._client.follow_logs(self._id, self._cursor)

    def _take(self, document: Mapping[str, Any]) -> None:
        self._cursor = str(document.get("cursor") or "")
        admitted, dropped = self._limiter.admit()
        if dropped:
            self._note(dropped)
        if admitted:
            stream = clean(str(document.get("stream") or "stdout"), limit=16)
            LOG.info("[%s %s] %s", self._id, stream, clean(line_text(document)))

    def _note(self, count: int) -> None:
        LOG.info("[%s careen] %d lines of output are left out here; the run's log has them", self._id, count)


class EventFollower(_Follower):
    """Writes a run's states, pull progress and warnings to IPA's log."""

    #: Progress is logged when it has grown by this many per cent, or after this many seconds.
    STEP = 10
    INTERVAL = 15.0

    def __init__(
        self, client: Client, run_id: str, image: str, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Follow run_id, which runs image."""
        super().__init__(f"careen-events-{run_id}")
        self._client = client
        self._id = run_id
        self._image = image
        self._now = now
        self._seq: int | None = None
        self._status = ""
        self._percent = 0
        self._logged = 0.0

    def _open(self) -> Stream:
        return self._client.follow_events(self._id, self._seq)

    def _take(self, document: Mapping[str, Any]) -> None:
        seq = document.get("seq")
        if isinstance(seq, int):
            if self._seq is not None and seq <= self._seq:
                return
            self._seq = seq
        kind = document.get("type")
        message = clean(str(document.get("message") or ""))
        if kind == "state":
            LOG.info("[%s] %s%s", self._id, document.get("state"), f": {message}" if message else "")
        elif kind == "warning":
            LOG.warning("[%s] %s", self._id, message)
        elif kind == "critical":
            LOG.info("[%s] critical section: %s", self._id, message)
        elif kind == "pull" and isinstance(document.get("pull"), Mapping):
            self._pull(document["pull"])

    def _pull(self, pull: Mapping[str, Any]) -> None:
        status = str(pull.get("status") or "")
        done, total = int(pull.get("done") or 0), int(pull.get("total") or 0)
        percent = min(100, done * 100 // total) if total > 0 else 0
        now = self._now()
        if (
            status == self._status
            and percent < self._percent + self.STEP
            and now < self._logged + self.INTERVAL
        ):
            return
        self._status, self._percent, self._logged = status, percent, now
        text = f"{percent} % of {_mib(total)}" if total else _mib(done)
        if pull.get("rate"):
            text += f", {_mib(int(pull['rate']))}/s"
        if pull.get("retries"):
            text += f", {pull['retries']} retries"
        if pull.get("message"):
            LOG.info("[%s] pulling %s: %s", self._id, self._image, clean(str(pull["message"])))
            return
        LOG.info("[%s] pulling %s: %s, %s", self._id, self._image, status, text)


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"
