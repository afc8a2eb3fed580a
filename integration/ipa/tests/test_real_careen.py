"""The real careen, real IPA, real containers from a real registry; both ways in.

``dropin``  IPA's own container manager, unchanged, with a link ``podman`` to careen on its PATH
``plugin``  this package's manager, and no podman at all

The binary is CAREEN_BINARY, or bin/careen at the repository's root (``make build``).
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from careen_ipa.client import Client, ClientError
from tests.conftest import build
from tests.namespace import Namespace
from tests.test_process import Site, until

Json = dict[str, Any]

ROOT = Path(__file__).parents[3]
BINARY = Path(os.environ.get("CAREEN_BINARY", ROOT / "bin" / "careen"))
GO = shutil.which("go")
_ENVIRONMENT = dict(os.environ)


def _missing() -> str:
    if not BINARY.exists() and "CAREEN_BINARY" not in os.environ:
        return f"{BINARY} is not there: make build"
    if GO is None or shutil.which("busybox") is None:
        return "Go and busybox make the registry's images"
    return Namespace.missing()


pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(bool(_missing()), reason=_missing() or "-"),
]


class Careen:
    """``careen agent``, with a store and a state of its own."""

    def __init__(self, directory: Path, store: Path) -> None:
        self.directory = directory
        self.socket = directory / "careen.sock"
        self.client = Client(str(self.socket))
        self._store = store
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [str(BINARY), "agent", "--root", str(self._store), "--run-dir", str(self.directory)]
        command += ["--socket", str(self.socket), "--stop-on-exit"]
        with (self.directory / "agent.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env={"PATH": ""})
        until(self._ready)

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.directory / "agent.log").read_text()
        try:
            return bool(self.client.health()["ready"])
        except ClientError:
            return False

    def kill(self) -> None:
        """End the agent as a crash does: containers go on."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(120)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield HOST:PORT of a registry with the images of Go's package ``images``."""
    program = build("imageserver", tmp_path_factory)
    server = subprocess.Popen([str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=_ENVIRONMENT)
    assert server.stdin is not None
    assert server.stdout is not None
    yield server.stdout.readline().decode().strip()
    server.stdin.close()
    server.wait(120)


@pytest.fixture
def careen(tmp_path: Path) -> Iterator[Careen]:
    # A socket's path has a limit, which that of a test's directory is near to.
    directory = Path(tempfile.mkdtemp(prefix="ci-", dir="/run"))
    found = Careen(directory, tmp_path / "store")
    try:
        found.start()
        yield found
    finally:
        found.stop()
        shutil.rmtree(directory, ignore_errors=True)


class Ipa(Site):
    """A node with the real careen."""

    def __init__(self, directory: Path, careen: Careen, way: str, registry: str) -> None:
        super().__init__(directory, careen.socket)
        self.way = way
        self.registry = registry
        self.gate = directory / "gate"
        self.gate.mkdir()
        #: What the conductor sends at lookup. The registry has no certificate.
        self.policy = {
            "allowed_containers": [self.image(name) for name in ("ok", "fail", "wait")],
            "pull_options": "--tls-verify=false",
        }
        self.manager = "CareenHardwareManager" if way == "plugin" else "ContainerHardwareManager"
        if way == "dropin":
            # The plugin is installed here too, and set aside by its switch.
            with (directory / "ipa.conf").open("a") as conf:
                conf.write("support_level = none\n")
            (directory / "bin" / "podman").symlink_to(BINARY.resolve())
            self.namespace.environment["CAREEN_SOCKET"] = str(careen.socket)

    def image(self, name: str) -> str:
        return f"docker://{self.registry}/ipa/{name}:1"

    def generic(self, name: str, **args: Any) -> Json:
        return {"step": "generic_container_step", "args": {"container_url": self.image(name), **args}}

    def bake(self, *steps: Json) -> None:
        """Write the steps file, whose steps are trusted."""
        defaults = {"interface": "deploy", "priority": 0, "reboot_requested": False, "abortable": True}
        (self.directory / "steps.yaml").write_text(
            yaml.safe_dump({"steps": [{**defaults, **s} for s in steps]})
        )

    def phase(self, phase: str, *steps: Json) -> Json:
        """Boot IPA and return how the phase ended."""
        self.conduct(phase, *steps, **self.policy)
        self.boot()
        return self.end()


@pytest.fixture(params=["dropin", "plugin"])
def ipa(request: pytest.FixtureRequest, tmp_path: Path, careen: Careen, registry: str) -> Iterator[Ipa]:
    found = Ipa(tmp_path, careen, request.param, registry)
    yield found
    found.namespace.close()


@pytest.mark.parametrize("phase", ["clean", "deploy", "service"])
def test_containers_in_a_row(ipa: Ipa, careen: Careen, phase: str) -> None:
    ipa.bake({"name": "flash", "image": ipa.image("ok")})
    steps = [ipa.generic("ok"), {"step": "flash"}]
    if phase == "clean":
        steps.insert(0, ipa.generic("ok"))  # one that is there twice; each step takes IPA five seconds
    outcome = ipa.phase(phase, *steps)
    assert outcome["error"] == "", ipa.log.read_text()[-5000:]
    assert [step["status"] for step in outcome["ended"]] == ["SUCCEEDED"] * len(steps)
    assert [step["step"] for step in outcome["advertised"][ipa.manager]] == [
        "generic_container_step",
        "container_clean_step",
        "flash",
    ]
    runs = careen.client.runs()
    assert [run["state"] for run in runs] == ["succeeded"] * len(steps)
    if ipa.way == "plugin":
        value = outcome["ended"][0]["result"]
        assert value["result"] == {"firmware": "2.1"}
        assert value["exit_code"] == 0
        assert "stdout] flashing " in ipa.log.read_text()


def test_failure_and_log_collection(ipa: Ipa, careen: Careen) -> None:
    outcome = ipa.phase("clean", ipa.generic("fail"), ipa.generic("ok"))
    assert outcome["code"] == 1
    assert "cannot find controller" in outcome["error"]
    [run] = careen.client.runs()
    assert run["outcome"]["exit_code"] == 3
    with tarfile.open(ipa.directory / "logs.tar.gz") as logs:
        names = logs.getnames()
    if ipa.way == "plugin":
        first, *rest = outcome["error"].split("\n")
        assert "exited with code 3" in first
        assert rest[-1] == "cannot find controller"
        assert any(name.startswith(f"careen/{run['id']}.tar") for name in names), names


def test_an_image_that_is_not_permitted(ipa: Ipa, careen: Careen) -> None:
    outcome = ipa.phase("service", ipa.generic("other"))
    assert f"Container image {ipa.image('other')} is not in [container]allowed_containers" in outcome["error"]
    assert not careen.client.runs()


def test_bad_options(ipa: Ipa, careen: Careen) -> None:
    ipa.bake({"name": "flash", "image": ipa.image("ok"), "run_options": "--rm --memory=plenty"})
    outcome = ipa.phase("deploy", {"step": "flash"})
    assert "--memory=plenty" in outcome["error"]
    assert not [run for run in careen.client.runs() if run["state"] == "succeeded"]


def test_a_registry_that_is_down(ipa: Ipa, careen: Careen) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        ipa.bake({"name": "flash", "image": f"127.0.0.1:{taken.getsockname()[1]}/ipa/ok:1"})
        outcome = ipa.phase("clean", {"step": "flash"})
    assert "connection refused" in outcome["error"]
    if ipa.way == "plugin":
        assert "connection refused" in outcome["error"].split("\n")[0]


def test_ipa_is_restarted_in_the_middle(ipa: Ipa, careen: Careen) -> None:
    """Killed, and started again while the container works.

    With the plugin the step goes on. IPA's own manager knows nothing of it and the conductor counts it as done; careen
    still lets no container begin before the one that works has ended.
    """
    volume = f"--rm -v {ipa.gate}:/gate"
    ipa.bake({"name": "long", "image": ipa.image("wait"), "run_options": volume})
    ipa.conduct("clean", {"step": "long"}, ipa.generic("ok"), **ipa.policy)
    first = ipa.boot()
    until(lambda: [run for run in careen.client.runs() if run["state"] == "running"])
    first.kill()
    first.wait()
    ipa.boot()
    if ipa.way == "plugin":
        until(lambda: "the command goes on" in ipa.log.read_text())
    else:
        until(lambda: len(careen.client.runs()) == 2)
    assert "succeeded" not in [run["state"] for run in careen.client.runs()]
    (ipa.gate / "open").touch()
    outcome = ipa.end()
    assert outcome["error"] == "", json.dumps(outcome)
    wanted = ["SUCCEEDED", "SUCCEEDED"] if ipa.way == "plugin" else ["SKIPPED", "SUCCEEDED"]
    assert [step["status"] for step in outcome["ended"]] == wanted
    runs = sorted(careen.client.runs(), key=lambda run: str(run["created_at"]))
    assert [run["state"] for run in runs] == ["succeeded", "succeeded"]
    assert runs[1]["started_at"] >= runs[0]["ended_at"]


def test_the_agent_is_restarted_in_the_middle(ipa: Ipa, careen: Careen) -> None:
    """The container goes on, and to IPA nothing has happened."""
    ipa.bake({"name": "long", "image": ipa.image("wait"), "run_options": f"--rm -v {ipa.gate}:/gate"})
    ipa.conduct("service", {"step": "long"}, ipa.generic("ok"), **ipa.policy)
    ipa.boot()
    until(lambda: [run for run in careen.client.runs() if run["state"] == "running"])
    careen.kill()
    careen.start()
    assert [run["state"] for run in careen.client.runs()] == ["running"]
    (ipa.gate / "open").touch()
    outcome = ipa.end()
    assert outcome["error"] == "", json.dumps(outcome)
    assert [step["status"] for step in outcome["ended"]] == ["SUCCEEDED", "SUCCEEDED"]
