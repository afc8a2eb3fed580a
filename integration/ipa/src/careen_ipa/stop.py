"""Aborts the running step when a signal stops IPA.

IPA itself handles no signal: SIGTERM ends the process at once, and after SIGINT the interpreter waits for the thread
that executes the command. A container that careen runs would continue. That is right after a crash of IPA (the next IPA
finds the run) and wrong after an intended stop. So a handler for the two signals sends the abort and then has the
signal's usual effect. The agent executes the abort; the handler does not wait for it. If IPA was started with a signal
ignored, the signal stays ignored.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from oslo_log import log

from careen_ipa.client import Client, ClientError

LOG = log.getLogger(__name__)

#: How long the handler waits for the agent to accept the abort, in seconds.
ABORT_TIMEOUT = 3.0

_active: dict[str, Client] = {}
_installed: set[int] = set()


@contextlib.contextmanager
def guard(client: Client, run_id: str) -> Iterator[None]:
    """Abort run_id if a signal stops IPA meanwhile."""
    _active[run_id] = client
    try:
        yield
    finally:
        _active.pop(run_id, None)


def abort_active(reason: str) -> None:
    """Abort the guarded runs."""
    # No lock: a signal handler runs in the main thread between two of its instructions, and the copy is one
    # operation of the interpreter.
    for run_id, client in list(_active.items()):
        try:
            client.abort(run_id, reason, timeout=ABORT_TIMEOUT)
        except ClientError as exc:
            LOG.error("The container run %s could not be aborted and goes on: %s", run_id, exc)
        else:
            LOG.warning("The container run %s is being aborted: %s", run_id, reason)


def install() -> bool:
    """Install handlers for SIGTERM and SIGINT, in the main thread only. Returns whether it did."""
    if threading.current_thread() is not threading.main_thread():
        LOG.info(
            "Hardware managers were loaded outside the main thread: steps will not be aborted by SIGTERM"
        )
        return False
    for number in (signal.SIGTERM, signal.SIGINT):
        if number not in _installed:
            # IPA's parent ignores the signal, such as a shell that starts IPA in the background: it does not stop IPA.
            if signal.getsignal(number) is not signal.SIG_IGN:
                _install(number)
            _installed.add(number)
    return True


def _install(number: signal.Signals) -> None:
    previous = signal.getsignal(number)

    def handle(signum: int, frame: FrameType | None) -> None:
        abort_active(f"ironic-python-agent was stopped ({signal.Signals(signum).name})")
        if callable(previous):
            previous(signum, frame)
        elif previous is signal.SIG_DFL:
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
            # Still running: the first process of a container or of a ramdisk has no default action.
            os._exit(128 + signum)

    signal.signal(number, handle)
