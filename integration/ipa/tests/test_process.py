"""The real ironic-python-agent as a process, its HTTP API, a conductor that lookup and heartbeats drive."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ALLOWED, OTHER
from tests.fake_agent import FakeAgent, Script
from tests.namespace import Namespace

Json = dict[str, Any]

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(bool(Namespace.missing()), reason=Namespace.missing() or "-"),
]

ROOT = Path(__file__).parent.parent
TOKEN = "t" * 40
#: A time limit in seconds; an idle machine needs a tenth of it.
PATIENCE = 180
GENERIC = {"step": "generic_container_step", "args": {"container_url": ALLOWED}}


class Site:
    """One node with its conductor."""

    def __init__(self, directory: Path, socket: Path) -> None:
        self.directory = directory
        self.namespace = Namespace(directory)
        self.log = directory / "ipa.log"
        self._conductor: subprocess.Popen[bytes] | None = None
        self._answer = directory / "conductor.out"
        self.api_version = "1.62"
        steps = directory / "steps.yaml"
        (directory / "ipa.conf").write_text(
            f"[DEFAULT]\ndebug = true\ndisk_wait_attempts = 0\n"
            f"[container]\ncontainer_steps_file = {steps}\n"
            f"[careen]\nsocket = {socket}\nstart_timeout = 1\n"
        )

    def conduct(self, phase: str, *steps: Json, **containers: Any) -> None:
        """Start a conductor that wants steps executed."""
        containers.setdefault("allowed_containers", [ALLOWED])
        containers.setdefault("container_steps_file", str(self.directory / "steps.yaml"))
        self._conductor = self.namespace.start(
            "/bin/sh",
            "-c",
            'exec "$0" "$@" >conductor.out',
            sys.executable,
            "-m",
            "conductor",
            *("--phase", phase),
            *("--steps", json.dumps(steps)),
            *("--containers", json.dumps(containers)),
            *("--token", TOKEN),
            *("--api-version", self.api_version),
            *("--logs", str(self.directory / "logs.tar.gz")),
            *("--timeout", str(PATIENCE)),
            output=self.directory / "conductor.log",
            environment={"PYTHONPATH": str(ROOT)},
        )

    def boot(self) -> subprocess.Popen[bytes]:
        """Start ironic-python-agent."""
        return self.namespace.start(*self.command(self.directory / "ipa.conf"), output=self.log)

    @staticmethod
    def command(config: Path) -> list[str]:
        """Return the command that is ironic-python-agent."""
        return [
            str(Path(sys.executable).parent / "ironic-python-agent"),
            f"--config-file={config}",
            "--api_url=http://127.0.0.1:6385",
            "--listen_host=127.0.0.1",
            "--advertise_host=127.0.0.1",
            f"--agent_token={TOKEN}",
        ]

    def end(self) -> Json:
        """Wait for the conductor's end and return what it saw."""
        assert self._conductor is not None
        self._conductor.wait(2 * PATIENCE)
        text = self._answer.read_text()
        assert text, self.directory.joinpath("conductor.log").read_text() + self.log.read_text()[-5000:]
        outcome = json.loads(text)
        outcome["code"] = self._conductor.returncode
        assert outcome["code"] != 2, self.log.read_text()[-5000:]
        return dict(outcome)


@pytest.fixture
def site(tmp_path: Path, agent: FakeAgent) -> Iterator[Site]:
    found = Site(tmp_path, agent.path)
    yield found
    found.namespace.close()


@pytest.mark.parametrize("phase", ["clean", "deploy", "service"])
def test_two_containers_in_a_row(site: Site, agent: FakeAgent, phase: str) -> None:
    agent.default = Script(lines=["flashing"], outcome={"result": {"firmware": "2.1"}})
    site.conduct(phase, GENERIC, GENERIC)
    site.boot()
    outcome = site.end()
    assert outcome["error"] == ""
    assert [step["status"] for step in outcome["ended"]] == ["SUCCEEDED", "SUCCEEDED"]
    assert outcome["ended"][0]["result"]["result"] == {"firmware": "2.1"}
    assert "generic_container_step" in [one["step"] for one in outcome["advertised"]["CareenHardwareManager"]]
    assert len(agent.runs) == 2
    # The agent got the settings of the lookup before anything ran.
    assert agent.options["allowed_containers"] == [ALLOWED]
    assert "flashing" in site.log.read_text()


def test_failure_and_log_collection(site: Site, agent: FakeAgent) -> None:
    agent.default = Script(lines=["cannot find controller"], exit_code=3)
    site.conduct("clean", GENERIC)
    site.boot()
    outcome = site.end()
    assert outcome["code"] == 1
    first, *rest = outcome["error"].split("\n")
    assert first.startswith("Clean step deploy.generic_container_step failed on node ")
    assert first.endswith(f"container {ALLOWED} ended with exit code 3. See the last lines of its output.")
    assert rest[-1] == "cannot find controller"
    [identifier] = agent.runs
    with tarfile.open(site.directory / "logs.tar.gz") as logs:
        assert f"careen/{identifier}.tar.gz" in logs.getnames()


def test_an_image_that_is_not_permitted(site: Site, agent: FakeAgent) -> None:
    site.conduct("service", {**GENERIC, "args": {"container_url": OTHER}})
    site.boot()
    assert f"Container image {OTHER} is not in [container]allowed_containers" in site.end()["error"]
    assert not agent.runs


def test_without_an_agent_there_are_no_steps(site: Site, agent: FakeAgent) -> None:
    agent.stop()
    site.conduct("clean", GENERIC)
    site.boot()
    assert "Node does not support these clean steps: ['generic_container_step']" in site.end()["error"]
    assert (
        "Container steps are not available through careen: cannot reach the careen agent"
        in site.log.read_text()
    )


@pytest.mark.parametrize("api_version", ["1.62", "1.68"])
def test_ipa_crashes_in_the_middle(site: Site, agent: FakeAgent, api_version: str) -> None:
    """The next IPA finds the step; the conductor learns its real end; nothing runs twice.

    With 1.68 IPA uses TLS, and Ironic refuses another certificate than that of the first heartbeat.
    """
    site.api_version = api_version
    gate, started = threading.Event(), threading.Event()
    agent.default = Script(lines=["half-way"], gate=gate, started=started.set)
    site.conduct("clean", GENERIC)
    first = site.boot()
    assert started.wait(PATIENCE)
    first.kill()
    first.wait()
    asked = len(agent.asked("GET", "/v1/steps"))
    site.boot()
    until(lambda: len(agent.asked("POST", "/v1/runs")) > 1)
    gate.set()
    outcome = site.end()
    assert [step["status"] for step in outcome["ended"]] == ["SUCCEEDED"]
    assert outcome["error"] == ""
    assert len(agent.runs) == 1
    assert len(agent.asked("GET", "/v1/steps")) == asked


def test_the_node_crashes_in_the_middle(site: Site, agent: FakeAgent) -> None:
    """It must not count as done, not even as the last step."""
    started = threading.Event()
    agent.default = Script(gate=threading.Event(), started=started.set)
    site.conduct("clean", GENERIC)
    first = site.boot()
    assert started.wait(PATIENCE)
    first.kill()
    first.wait()
    [run] = agent.runs.values()
    message = "cannot complete step generic_container_step: the node was rebooted"
    agent.version["boot_id"] = "boot-2"
    run.update(outcome={"code": "lost", "message": message, "attrs": {"reason": "interrupted_by_reboot"}})
    run.update(state="lost")
    site.boot()
    outcome = site.end()
    assert [step["status"] for step in outcome["ended"]] == ["FAILED"]
    assert message in outcome["error"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopping_ipa_aborts_the_step(site: Site, agent: FakeAgent, number: signal.Signals) -> None:
    started = threading.Event()
    agent.default = Script(gate=threading.Event(), started=started.set)
    site.conduct("clean", GENERIC)
    process = site.boot()
    assert started.wait(PATIENCE)
    process.send_signal(number)
    assert process.wait(PATIENCE) == (-number if number is signal.SIGTERM else 0)
    [run] = agent.runs.values()
    assert run.aborted.wait(PATIENCE)
    assert run.document["stop_reason"] == f"ironic-python-agent was stopped ({number.name})"


def test_a_signal_that_ipa_was_started_to_ignore_aborts_nothing(site: Site, agent: FakeAgent) -> None:
    started = threading.Event()
    agent.default = Script(gate=threading.Event(), started=started.set)
    site.conduct("clean", GENERIC)
    command = site.command(site.directory / "ipa.conf")
    process = site.namespace.start(*command, output=site.log, interrupt="ignore")
    assert started.wait(PATIENCE)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == -signal.SIGTERM
    [run] = agent.runs.values()
    assert run.aborted.wait(PATIENCE)
    assert run.document["stop_reason"] == "ironic-python-agent was stopped (SIGTERM)"
    assert len(agent.asked("POST", f"/v1/runs/{run.document['id']}/abort")) == 1


def until(condition: Any) -> None:
    """Wait for a change by another process, which provides no event."""
    ended = threading.Event()
    for _ in range(10 * PATIENCE):
        if condition():
            return
        ended.wait(0.1)
    raise AssertionError("it does not come to pass")
