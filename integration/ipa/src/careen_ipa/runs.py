"""One run from request to outcome.

The run belongs to the agent, which outlives this process and may itself be restarted while the container goes on.
So a lost connection is no failure of the step: the request is repeated under the same id, and only when the agent
stays away for longer than the configured time is the step given up, with the run aborted if anybody still listens.
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

#: How long one wait request is held open by the agent, in seconds.
WAIT = 30

#: A result file that is larger than this many characters of JSON stays out of the step's return value: IPA sends
#: every result again with each heartbeat's question.
MAX_RESULT = 64 << 10

_DURATION = re.compile(r"^(\d+(\.\d+)?(ms|s|m|h))+$")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Settings:
    """What of the configuration a run needs."""

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
    """Executes runs with one agent."""

    def __init__(
        self, client: Client, settings: Settings, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        """Run with client's agent."""
        self._client = client
        self._settings = settings
        self._sleep = sleep

    def execute(self, request: Mapping[str, Any]) -> Json:
        """Request the run, follow it to its end and return it. A run that exists already is joined.

        :raises ClientError: the agent refused the run, or stayed away.
        """
        run_id = str(request["id"])
        with stop.guard(self._client, run_id):
            run = self.persist(lambda: self._create(request))
            if run.get("state") in FINAL:
                # A repeated command, or a container that was quicker than the answer: the output is still wanted.
                LOG.info("The container run %s has ended already: %s", run_id, run.get("state"))
            return self._follow(run_id, run)

    def _create(self, request: Mapping[str, Any]) -> Json:
        try:
            return self._client.create_run(request)
        except Problem as exc:
            # The id is made of the command. A request that differs in something else, such as a time limit that was
            # configured anew between two starts of IPA, is the same command still.
            if exc.code != "conflict":
                raise
            run = self._client.run(str(request["id"]))
            LOG.info("The container run %s is under way with other limits than this request's", run.get("id"))
            return run

    def join(self, run: Json) -> Json:
        """Follow a run that was requested before to its end and return it."""
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
            # Not known to run any more, yet perhaps running: ask for its end before the step is called failed.
            with contextlib.suppress(ClientError):
                self._client.abort(run_id, "ironic-python-agent lost contact with the careen agent")
            raise
        finally:
            for follower in followers:
                # After the end nothing more comes but what is on its way.
                follower.finish(5 if run.get("state") in FINAL else 0)
        return run

    def persist(self, call: Callable[[], _T]) -> _T:
        """Repeat a call while the agent is away, which is safe for calls that are idempotent."""
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
                # The agent is there, what runs the containers is not, or not yet.
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
