"""The real careen, real IPA, real containers from a real registry; both integrations.

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
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import careen_ipa
from careen_ipa.client import Client, ClientError
from tests.conftest import build
from tests.namespace import Namespace
from tests.test_process import Site, until

Json = dict[str, Any]

ROOT = Path(__file__).parents[3]
#: Where the plugin is installed from.
PLUGIN = Path(careen_ipa.__file__).parent
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
    """``careen agent``, with a private store and state."""

    def __init__(self, directory: Path, store: Path) -> None:
        self.directory = directory
        # In a separate directory, which is all that a container with IPA needs to see.
        self.socket = directory / "socket" / "careen.sock"
        self.socket.parent.mkdir()
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
        """End the agent as a crash does: containers continue."""
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
    # The length of a socket's path is limited, and the path of a test's directory is long.
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
        self.careen = careen
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
            # The plugin is installed here too, and switched off.
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
    """Killed, and started again while the container runs.

    With the plugin the step continues. IPA's own manager does not have the command, and the conductor counts the step
    as done; careen still starts no container before the running one has ended.
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
    """The container continues, and IPA does not notice the restart."""
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


def command_lines(ipa: Ipa) -> str:
    """Return the command lines of all processes but those that IPA started itself."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes()
        except OSError:
            continue  # it has ended
        # IPA's own manager passes options to podman as arguments. careen starts the later processes.
        if not (ipa.way == "dropin" and line.startswith(b"podman\0")):
            lines.append(line.decode(errors="replace"))
    assert lines
    return "\n".join(lines)


def shown(careen: Careen, run: str) -> str:
    """Return all data that the socket and the command line show of a run."""
    paths = ["runs", "config", "health", "audit", "steps?phase=clean", f"runs/{run}"]
    paths += [f"runs/{run}/{part}" for part in ("spec", "logs")]
    texts = [careen.client._request("GET", path) for path in ("/metrics", *(f"/v1/{path}" for path in paths))]
    media, bundle = careen.client.bundle(run, 4 << 20)
    assert "tar" in media
    texts.append(bundle)
    commands = [["ps", "-a"], ["inspect", run], ["logs", run], ["config"], ["step", "list"]]
    if careen.client.run(run)["state"] != "running":
        commands.append(["events", run])  # those of an active run do not end
    for command in commands:
        ended = subprocess.run(
            [str(BINARY), f"--socket={careen.socket}", *command], capture_output=True, check=True
        )
        texts += [ended.stdout, ended.stderr]
    return b"\n".join(texts).decode(errors="replace")


def test_secrets_reach_nobody(ipa: Ipa, careen: Careen) -> None:
    """Credentials and variables of a step: not in logs, command lines, errors, answers or collected files."""
    marker = f"m4rker-{ipa.way}"  # part of every secret; another test may run at the same time
    secrets = {
        "run_options": f"--rm -v {ipa.gate}:/gate -e PASSWORD={marker}-env --env=BMC=root/{marker}",
        "pull_options": f"--tls-verify=false --creds=op:{marker}-creds",
    }
    ipa.bake(
        {"name": "long", "image": ipa.image("wait"), **secrets},
        {"name": "broken", "image": ipa.image("fail"), **secrets},
    )
    ipa.conduct("clean", {"step": "long"}, {"step": "broken"}, **ipa.policy)
    ipa.boot()

    def running() -> list[str]:
        return [str(run["id"]) for run in careen.client.runs() if run["state"] == "running"]

    until(running)
    [run] = running()
    container = careen.client.run(run)["pid"]
    assert f"PASSWORD={marker}-env" in Path(f"/proc/{container}/environ").read_text(), "it has them"
    assert marker not in command_lines(ipa)
    assert marker not in shown(careen, run)
    (ipa.gate / "open").touch()
    outcome = ipa.end()
    assert [step["status"] for step in outcome["ended"]] == ["SUCCEEDED", "FAILED"]
    for one in careen.client.runs():
        assert marker not in shown(careen, str(one["id"]))
    for path in careen.directory.rglob("*"):
        if path.is_file():
            assert marker.encode() not in path.read_bytes(), path
    with tarfile.open(ipa.directory / "logs.tar.gz") as logs:
        for member in logs:
            # IPA's own manager logs the arguments of podman.
            if member.isfile() and (ipa.way == "plugin" or member.name.startswith("careen/")):
                file = logs.extractfile(member)
                assert file is not None
                assert marker.encode() not in file.read(), member.name
    if ipa.way == "plugin":
        assert marker not in ipa.log.read_text()
        assert marker not in json.dumps(outcome)
    else:
        assert marker not in outcome["error"].partition("Stdout:")[2]


class ContainedIpa(Ipa):
    """IPA in a container that has only the directory with the socket from the node."""

    def __init__(self, directory: Path, careen: Careen, registry: str) -> None:
        super().__init__(directory, careen, "plugin", registry)
        (directory / "config").mkdir()

    def boot(self) -> subprocess.Popen[bytes]:
        text = (self.directory / "ipa.conf").read_text().split("[careen]")[0]
        # The agent cannot read IPA's files, and IPA does not know the place of the agent's.
        text += "[careen]\nforward_config = all\nstart_timeout = 1\n"
        (self.directory / "config" / "ipa.conf").write_text(text)
        return self.namespace.start_in_container(
            *self.command(Path("/etc/ipa/ipa.conf")), output=self.log, mounts=self.mounts()
        )

    def mounts(self) -> list[str]:
        # Also an interpreter outside of /usr.
        interpreter = [] if sys.base_prefix.startswith("/usr") else [sys.base_prefix]
        return [
            *interpreter,
            sys.prefix,
            str(PLUGIN),
            f"{self.directory / 'config'}:/etc/ipa",
            f"{self.careen.socket.parent}:/run/careen",
        ]

    def files(self) -> list[str]:
        """Return all that IPA can see outside of its operating system, its environment and the kernel's views."""
        output = self.directory / "files"
        # The programs that IPA may start are links; find is not among them.
        find = "find / -xdev -not -path '/usr/*' -print; find /run/careen /etc/ipa -print"
        process = self.namespace.start_in_container(
            *("/bin/sh", "-c", f"PATH=/usr/bin; {find}"), output=output, mounts=self.mounts()
        )
        assert process.wait(60) == 0, output.read_text()
        return output.read_text().splitlines()


@pytest.fixture
def contained(tmp_path: Path, careen: Careen, registry: str) -> Iterator[ContainedIpa]:
    found = ContainedIpa(tmp_path, careen, registry)
    yield found
    found.namespace.close()


def test_ipa_in_a_container(contained: ContainedIpa, careen: Careen) -> None:
    """Steps of both kinds, live output and a restart of the agent, through the socket only."""
    seen = contained.files()
    assert "/run/careen/careen.sock" in seen
    assert not [path for path in seen if "steps.yaml" in path or str(careen.directory) in path]
    assert not {"/var/lib/careen", "/etc/passwd", "/etc/hostname"} & set(seen)
    assert [path for path in seen if path.startswith("/run/careen/")] == ["/run/careen/careen.sock"]

    ipa = contained
    ipa.bake({"name": "long", "image": ipa.image("wait"), "run_options": f"--rm -v {ipa.gate}:/gate"})
    ipa.conduct("clean", {"step": "long"}, ipa.generic("ok"), **ipa.policy)
    ipa.boot()
    until(lambda: [run for run in careen.client.runs() if run["state"] == "running"])
    until(lambda: "stdout] half-way" in ipa.log.read_text())
    careen.kill()
    careen.start()
    (ipa.gate / "open").touch()
    outcome = ipa.end()
    assert outcome["error"] == "", json.dumps(outcome)
    assert [step["status"] for step in outcome["ended"]] == ["SUCCEEDED", "SUCCEEDED"]
    assert outcome["ended"][1]["result"]["result"] == {"firmware": "2.1"}
    settings = {one["key"]: one["from"] for one in careen.client.config()["settings"]}
    assert settings["container.runner"] == "conductor", "what IPA has was told the agent"


def test_log_collection_from_a_container(contained: ContainedIpa, careen: Careen) -> None:
    outcome = contained.phase("service", contained.generic("fail"))
    assert "exited with code 3" in outcome["error"].split("\n")[0]
    [run] = careen.client.runs()
    with tarfile.open(contained.directory / "logs.tar.gz") as logs:
        assert f"careen/{run['id']}.tar" in logs.getnames()
