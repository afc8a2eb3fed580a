"""One run from request to outcome.

The run belongs to the agent, which outlives this process and may itself be restarted while the container continues.
So a lost connection is not a failure of the step: the request is repeated with the same id. If the agent is absent for
longer than the configured time, the step fails, and the run is aborted if the agent can still be reached.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from oslo_log import log

from careen_ipa import stop
from careen_ipa.client import Client, ClientError, Json, Problem, Unreachable
from careen_ipa.logs import EventFollower, OutputFollower

LOG = log.getLogger(__name__)

FINAL = frozenset({"succeeded", "failed", "aborted", "timed_out", "lost"})

#: How long the agent holds one wait request open, in seconds.
WAIT = 30

#: A result file with more characters of JSON than this is not in the step's return value: IPA sends
#: every result again with each heartbeat's question.
MAX_RESULT = 64 << 10

_DURATION = re.compile(r"^(\d+(\.\d+)?(ms|s|m|h))+$")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Settings:
    """The part of the configuration that a run needs."""

    unreachable_timeout: float = 120.0
    step_timeout: str = ""
    step_timeouts: Mapping[str, str] = field(default_factory=dict)
    silence_timeout: str = ""
    log_output: bool = True
    log_rate: int = 100

    def limits(self, step: str) -> dict[str, str]:
        """Return the members timeout and silence_timeout of a request to run step."""
        timeout = self.step_timeouts.get(step) or self.step_timeout
        if timeout and not _DURATION.match(timeout):
            raise ValueError(f'[careen]step_timeouts: "{timeout}" for {step} is not a duration such as 90m')
        pairs = {"timeout": timeout, "silence_timeout": self.silence_timeout}
        return {key: value for key, value in pairs.items() if value}


class Runner:
    """Executes runs on one agent."""

    def __init__(
        self, client: Client, settings: Settings, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Use the agent of client."""
        self._client = client
        self._settings = settings
        self._sleep = sleep

    def execute(self, request: Mapping[str, Any]) -> Json:
        """Request the run, follow it to its end and return it. If it exists already, follow that one.

        :raises ClientError: the agent refused the run, or did not answer.
        """
        run_id = str(request["id"])
        with stop.guard(self._client, run_id):
            run = self.persist(lambda: self._create(request))
            if run.get("state") in FINAL:
                # A repeated command, or a container that ended before the answer: its output is still needed.
                LOG.info("The container run %s has ended already: %s", run_id, run.get("state"))
            return self._follow(run_id, run)

    def _create(self, request: Mapping[str, Any]) -> Json:
        try:
            return self._client.create_run(request)
        except Problem as exc:
            # The id comes from the command. A request that differs only elsewhere, such as in a time limit that
            # changed between two starts of IPA, is the same command.
            if exc.code != "conflict":
                raise
            run = self._client.run(str(request["id"]))
            LOG.info("The container run %s is under way with other limits than this request's", run.get("id"))
            return run

    def join(self, run: Json) -> Json:
        """Follow a run that exists already to its end and return it."""
        run_id = str(run["id"])
        with stop.guard(self._client, run_id):
            return self._follow(run_id, run)

    def _follow(self, run_id: str, run: Json) -> Json:
        image = str(run.get("image") or "")
        followers: list[OutputFollower | EventFollower] = [EventFollower(self._client, run_id, image)]
        if self._settings.log_output:
            followers.append(OutputFollower(self._client, run_id, self._settings.log_rate))
        for follower in followers:
            follower.start()
        try:
            while run.get("state") not in FINAL:
                run = self.persist(lambda: self._client.wait(run_id, WAIT))
        except ClientError:
            # The run may still be active: request its abort before the step fails.
            with contextlib.suppress(ClientError):
                self._client.abort(run_id, "ironic-python-agent lost contact with the careen agent")
            raise
        finally:
            for follower in followers:
                # After the end only lines in transit arrive.
                follower.finish(5 if run.get("state") in FINAL else 0)
        return run

    def persist(self, call: Callable[[], _T]) -> _T:
        """Repeat a call while the agent is absent, which is safe for idempotent calls."""
        deadline: float | None = None
        while True:
            try:
                return call()
            except Unreachable as exc:
                now = time.monotonic()
                if deadline is None:
                    deadline = now + self._settings.unreachable_timeout
                    LOG.warning("%s; trying again for %d s", exc, self._settings.unreachable_timeout)
                if now >= deadline:
                    raise
            except Problem as exc:
                # The agent answers, but containerd is not available, or not yet.
                if exc.code != "unreachable" or (deadline is not None and time.monotonic() >= deadline):
                    raise
                deadline = deadline or time.monotonic() + self._settings.unreachable_timeout
            self._sleep(1)


def value_of(run: Mapping[str, Any], size: Callable[[object], int]) -> Json:
    """Return what a successful step returns to IPA: figures and the container's own result.

    ``size`` gives the length of a value's JSON.
    """
    outcome: Mapping[str, Any] = run.get("outcome") or {}
    value: Json = {"run": run.get("id"), "image": run.get("image")}
    for name in ("digest", "warnings"):
        if run.get(name):
            value[name] = run[name]
    for name in ("exit_code", "duration", "phases", "leftovers", "reboot_reason"):
        if outcome.get(name) is not None:
            value[name] = outcome[name]
    if outcome.get("reboot_requested"):
        value["reboot_requested"] = True
    result = outcome.get("result")
    if result is not None:
        length = size(result)
        if length > MAX_RESULT:
            value["result_omitted"] = f"{length} characters of JSON; GET /v1/runs/{run.get('id')} has them"
        else:
            value["result"] = result
    return value
