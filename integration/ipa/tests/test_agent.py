"""The plugin with careen's real agent: its socket, journal, state machine, steps file and policy.

Only the containers are not real: they are lines of text, see ``realagent``. Needs Go, to build it.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from careen_ipa.client import Client, Problem
from careen_ipa.logs import LOG
from careen_ipa.manager import CareenHardwareManager
from tests.conftest import build, make_node
from tests.namespace import Namespace
from tests.test_logs import Watch
from tests.test_manager import Ipa, failure, names, step_of
from tests.test_process import GENERIC, Site, until

Json = dict[str, Any]

ROOT = Path(__file__).parents[3]
GO = shutil.which("go")
TOOL = "registry.example.com/tool:1"

pytestmark = pytest.mark.skipif(GO is None, reason="Go is not installed, which builds the agent")


class RealAgent:
    """The agent's process; its state outlives it."""

    def __init__(self, program: Path, directory: Path, socket: Path) -> None:
        self._command = [str(program), str(socket), str(directory)]
        self.directory = directory
        self._socket = socket
        self._process: subprocess.Popen[bytes] | None = None

    def script(self, **images: str) -> None:
        (self.directory / "scripts.json").write_text(json.dumps(images))

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE)
        for _ in range(1000):
            if self._socket.exists():
                return
            threading.Event().wait(0.01)  # another process provides no event
        raise AssertionError("the agent does not listen")

    def stop(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait(60)
            self._process = None


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("realagent", tmp_path_factory)


@pytest.fixture
def real(program: Path, tmp_path: Path, socket_path: Path) -> Iterator[RealAgent]:
    directory = tmp_path / "agent"
    directory.mkdir()
    found = RealAgent(program, directory, socket_path)
    found.script()
    found.start()
    yield found
    found.stop()


@pytest.fixture
def ipa(real: RealAgent, conf: Any) -> Ipa:
    conf.set_override("allowed_containers", [TOOL], group="container")
    conf.set_override("container_steps_file", conf.container.container_steps_file, group="container")
    return Ipa()


def test_it_is_ready(real: RealAgent, conf: Any) -> None:
    assert CareenHardwareManager().evaluate_hardware_support() == 3


@pytest.mark.parametrize(("phase", "priority"), [("clean", 20), ("deploy", 0), ("service", 0)])
def test_steps(ipa: Ipa, conf: Any, phase: str, priority: int) -> None:
    Path(conf.container.container_steps_file).write_text(
        yaml.safe_dump({"steps": [step_of("my_step")], "careen": {"sequence": True, "aliases": ["second"]}})
    )
    steps = ipa.get_steps(phase, make_node(phase))[f"{phase}_steps"]["CareenHardwareManager"]
    assert names(steps)[:3] == ["generic_container_step", "container_clean_step", "my_step"]
    assert {"second", "container_sequence_step"} <= set(names(steps))
    assert steps[2]["priority"] == priority


def test_a_reserved_name_fails_the_listing(ipa: Ipa, conf: Any) -> None:
    Path(conf.container.container_steps_file).write_text(
        yaml.safe_dump({"steps": [step_of("erase_devices")]})
    )
    with pytest.raises(Exception, match="erase_devices"):
        ipa.get_steps("clean", make_node())


def test_success(ipa: Ipa, real: RealAgent, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    real.script(tool='out=flashing/result={"firmware": "2.1"}')
    command = ipa.execute("clean", make_node(), "generic_container_step", container_url=TOOL)
    assert command["command_status"] == "SUCCEEDED", command
    value = command["command_result"]["clean_result"]
    assert value["result"] == {"firmware": "2.1"}
    assert value["exit_code"] == 0
    assert value["digest"].startswith("sha256:")
    assert "stdout] flashing" in caplog.text


def test_failure(ipa: Ipa, real: RealAgent) -> None:
    real.script(tool="out=no controller/exit=3")
    details = failure(ipa.execute("clean", make_node(), "generic_container_step", container_url=TOOL)).split(
        "\n"
    )
    assert "the container exited with code 3. Read its output" in details[0]
    assert details[-1] == "no controller"


def test_an_image_that_is_not_permitted(ipa: Ipa) -> None:
    other = "docker://registry.example.com/other:1"
    command = ipa.execute("clean", make_node(), "generic_container_step", container_url=other)
    assert command["command_error"]["type"] == "ContainerNotPermittedError"
    assert failure(command).startswith(
        f"Container image {other} is not in [container]allowed_containers and "
    )


def test_bad_options(ipa: Ipa, conf: Any) -> None:
    conf.set_override("allow_arbitrary_containers", True, group="container")
    command = ipa.execute(
        "clean", make_node(), "generic_container_step", container_url=TOOL, run_options="--memory=plenty"
    )
    assert command["command_error"]["type"] == "InvalidCommandParamsError"
    assert "memory" in failure(command)


@pytest.mark.parametrize("phase", ["clean", "deploy", "service"])
def test_several_containers_in_one_step(ipa: Ipa, real: RealAgent, conf: Any, phase: str) -> None:
    """A sequence runs in its order, ends with the first that fails, and runs nothing if one is refused."""
    Path(conf.container.container_steps_file).write_text(yaml.safe_dump({"careen": {"sequence": True}}))
    client = Client(conf.careen.socket)
    images = [f"registry.example.com/{name}:1" for name in ("first", "second", "broken", "never")]
    conf.set_override("allowed_containers", images, group="container")
    first, second, broken, never = ({"container_url": image} for image in images)
    real.script(first="out=one", second="out=two", broken="out=no controller/exit=3", never="out=never")

    def execute(index: int, *parts: Json) -> Json:
        return ipa.execute(phase, make_node(phase, index=index), "container_sequence_step", sequence=parts)

    ipa.get_steps(phase, make_node(phase))
    command = execute(0, first, second)
    assert command["command_status"] == "SUCCEEDED", command
    [run] = client.runs()
    assert client.log_text(run["id"], 1000).split() == [b"one", b"two"]

    refusal = failure(execute(1, first, {"container_url": "registry.example.com/other:1"}))
    assert "is not in [container]allowed_containers" in refusal
    assert len(client.runs()) == 1

    details = failure(execute(2, first, broken, never)).split("\n")
    assert "exited with code 3" in details[0]
    assert details[-1] == "no controller"
    run = client.runs()[-1]
    assert (run["state"], run["part"], run["parts"]) == ("failed", 2, 3)
    assert client.log_text(run["id"], 1000).split() == [b"one", b"no", b"controller"]


@pytest.mark.parametrize("phase", ["clean", "deploy", "service"])
def test_a_step_under_several_names(ipa: Ipa, conf: Any, phase: str) -> None:
    """A deploy template may name a step once; aliases and sequences run several containers."""
    file = Path(conf.container.container_steps_file)
    file.write_text(yaml.safe_dump({"careen": {"aliases": ["container_step_2"]}}))
    ipa.get_steps(phase, make_node(phase))
    for index, step in enumerate(("generic_container_step", "container_step_2")):
        command = ipa.execute(phase, make_node(phase, index=index), step, container_url=TOOL)
        assert command["command_status"] == "SUCCEEDED", command
    other = "registry.example.com/other:1"
    command = ipa.execute(phase, make_node(phase, index=2), "container_step_2", container_url=other)
    assert command["command_error"]["type"] == "ContainerNotPermittedError"


def test_a_repeated_command_is_one_run(ipa: Ipa, real: RealAgent, conf: Any) -> None:
    real.script(tool="exit=1")
    first = ipa.execute("clean", make_node(), "generic_container_step", container_url=TOOL)
    real.script()
    again = ipa.execute("clean", make_node(), "generic_container_step", container_url=TOOL)
    assert failure(first) == failure(again)
    # Also after a restart of the agent.
    real.stop()
    real.start()
    third = ipa.execute("clean", make_node(), "generic_container_step", container_url=TOOL)
    assert failure(first) == failure(third)
    assert len(Client(conf.careen.socket).runs()) == 1


def test_the_policy_outlives_the_agent(ipa: Ipa, real: RealAgent, conf: Any) -> None:
    """The conductor's settings hold for the next request, even if the plugin has not sent them again."""
    ipa.get_steps("clean", make_node())
    real.stop()
    real.start()
    client = Client(conf.careen.socket)
    origins = {one["key"]: one["from"] for one in client.config()["settings"]}
    assert origins["container.allowed_containers"] == "conductor"
    with pytest.raises(Problem, match="is not in \\[container]allowed_containers"):
        client.create_run({"step": "generic_container_step", "args": {"container_url": "other:1"}})
    real.stop()
    (real.directory / "conductor.json").write_text("{")
    real.start()
    with pytest.raises(Problem, match="cannot read the saved conductor settings in "):
        client.create_run({"step": "generic_container_step", "args": {"container_url": TOOL}})
    # IPA has the settings and sends them again before any other request.
    command = ipa.execute("clean", make_node(), "generic_container_step", container_url=TOOL)
    assert command["command_status"] == "SUCCEEDED"


def test_settings_of_an_earlier_conductor_are_taken_back(real: RealAgent, conf: Any) -> None:
    client = Client(conf.careen.socket)
    client.patch_config({"allow_arbitrary_containers": True})
    Ipa().get_steps("clean", make_node())
    values = {one["key"]: one["value"] for one in client.config()["settings"]}
    assert values["container.allow_arbitrary_containers"] == "false"


def test_an_abort_ends_the_step(
    ipa: Ipa, real: RealAgent, conf: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    real.script(tool="out=working/run=forever")
    working = threading.Event()
    handler = Watch("stdout] working", working)
    LOG.logger.addHandler(handler)
    try:
        command = ipa.start("clean", make_node(), "generic_container_step", container_url=TOOL)
        assert working.wait(60)
    finally:
        LOG.logger.removeHandler(handler)
    client = Client(conf.careen.socket)
    [run] = client.runs()
    client.abort(run["id"], "ironic-python-agent was stopped (SIGTERM)")
    command.join()
    assert "ironic-python-agent was stopped (SIGTERM)" in command.command_error.details


def test_step_limits(ipa: Ipa, real: RealAgent, conf: Any) -> None:
    conf.set_override("step_timeouts", {"generic_container_step": "100ms"}, group="careen")
    real.script(tool="run=forever")
    details = failure(ipa.execute("clean", make_node(), "generic_container_step", container_url=TOOL))
    assert "code timeout" in details


def test_bundles_are_collected(ipa: Ipa, real: RealAgent) -> None:
    ipa.execute("clean", make_node(), "generic_container_step", container_url=TOOL)
    files: Json = {}
    CareenHardwareManager().collect_system_logs(files, [])
    [run] = json.loads(files["careen/runs.json"].getvalue())
    bundle = files[f"careen/{run['id']}.tar"]
    with tarfile.open(fileobj=bundle) as archive:
        assert f"careen-{run['id']}" in archive.getnames()[0]


@pytest.mark.process
@pytest.mark.skipif(bool(Namespace.missing()), reason=Namespace.missing() or "-")
def test_ipa_crashes_in_the_middle(real: RealAgent, tmp_path: Path, socket_path: Path) -> None:
    """The real IPA as a process, the real agent: the next IPA finds the step, and nothing runs twice."""
    real.script(tool="out=half-way/run=15s")
    client = Client(str(socket_path))
    site = Site(tmp_path, socket_path)
    try:
        site.conduct("clean", {**GENERIC, "args": {"container_url": TOOL}}, allowed_containers=[TOOL])
        first = site.boot()
        until(lambda: [run for run in client.runs() if run["state"] == "running"])
        first.kill()
        first.wait()
        site.boot()
        outcome = site.end()
    finally:
        site.namespace.close()
    assert [step["status"] for step in outcome["ended"]] == ["SUCCEEDED"], outcome
    assert len(client.runs()) == 1
