"""Fixtures: an agent on a socket, IPA's modules in their first state, a node as Ironic sends it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ironic_python_agent import config as ipa_config  # noqa: F401  registers what hardware reads
from ironic_python_agent import hardware
from ironic_python_agent.extensions import base
from oslo_config import cfg
from oslo_log import log

from careen_ipa import config, stop
from careen_ipa.manager import CareenHardwareManager
from tests.fake_agent import FakeAgent

Json = dict[str, Any]

ALLOWED = "docker://registry.example.com/allowed:1"
OTHER = "docker://registry.example.com/other:1"


#: The environment at the start of the tests; each test has a PATH without compilers.
_ENVIRONMENT = dict(os.environ)


def build(program: str, directories: pytest.TempPathFactory) -> Path:
    """Return a Go program of this directory; run-tests.sh builds them once for all processes."""
    made = os.environ.get("CAREEN_IPA_PROGRAMS")
    if made:
        return Path(made) / program
    path = directories.mktemp(program) / program
    command = [
        "go",
        "build",
        "-tags",
        "seccomp netgo osusergo",
        "-o",
        str(path),
        f"./integration/ipa/{program}",
    ]
    subprocess.run(command, cwd=Path(__file__).parents[3], check=True, timeout=900, env=_ENVIRONMENT)
    return path


@pytest.fixture(scope="session", autouse=True)
def _configured() -> None:
    log.register_options(cfg.CONF)
    cfg.CONF([], project="ironic-python-agent", default_config_files=[], default_config_dirs=[])
    config.register(cfg.CONF)


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "careen.sock"


@pytest.fixture
def conf(socket_path: Path, tmp_path: Path) -> Iterator[Any]:
    """Return IPA's configuration for the socket; overrides of a test end with the test."""
    cfg.CONF.set_override("socket", str(socket_path), group="careen")
    cfg.CONF.set_override("start_timeout", 0, group="careen")
    cfg.CONF.set_override("unreachable_timeout", 5, group="careen")
    cfg.CONF.set_override("disk_wait_attempts", 0)
    cfg.CONF.set_override("container_steps_file", str(tmp_path / "steps.yaml"), group="container")
    yield cfg.CONF
    cfg.CONF.clear_override("disk_wait_attempts")
    clear_overrides("careen")
    clear_overrides("container")


def clear_overrides(group: str) -> None:
    """Remove every override of a group.

    oslo.config keeps the location of an override that was cleared, and get_location then reports it for the
    default. A manager would treat such an option as one that the conductor sent.
    """
    for name in cfg.CONF[group]:
        cfg.CONF.clear_override(name, group=group)
        cfg.CONF._get_opt_info(name, group).pop("location", None)


@pytest.fixture
def agent(socket_path: Path) -> Iterator[FakeAgent]:
    fake = FakeAgent(socket_path)
    fake.start()
    yield fake
    fake.stop()


#: The programs that IPA may start here. It inventories a node when it loads its managers: it would assemble RAID
#: arrays and load IPMI drivers on the machine that runs the tests.
HARMLESS = ("cat", "echo", "lsblk", "sh", "udevadm")


@pytest.fixture(autouse=True)
def _harmless_path(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path_factory.mktemp("bin")
    for name in HARMLESS:
        found = shutil.which(name)
        if found:
            (programs / name).symlink_to(found)
    monkeypatch.setenv("PATH", str(programs))


@pytest.fixture(autouse=True)
def _fresh_ipa() -> Iterator[None]:
    """Give every test a freshly started IPA, and restore the signal handlers of the process."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    hardware._global_managers = None
    hardware._CACHED_HW_INFO = None
    hardware.NODE = None
    hardware.API_CLIENT = object()
    base._EXT_MANAGER = None
    yield
    stop._installed.clear()
    stop._active.clear()
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def manager(agent: FakeAgent, conf: Any) -> CareenHardwareManager:
    return CareenHardwareManager()


def make_node(phase: str = "clean", index: int = 0, steps: list[Json] | None = None, **members: Any) -> Json:
    """Return a node object as the conductor sends it with a step, reduced to the fields that matter."""
    state = {"clean": "cleaning", "deploy": "deploying", "service": "servicing"}[phase]
    return {
        "uuid": "1be26c0b-03f2-4d2e-ae87-c02d7f33c123",
        "name": "node-1",
        "instance_uuid": None,
        "provision_state": state,
        "provision_updated_at": "2026-11-01T10:00:00+00:00",
        "driver_info": {"redfish_password": "******"},
        "driver_internal_info": {
            f"agent_cached_{phase}_steps_refreshed": "2026-11-01T09:59:58.123456",
            f"{phase}_step_index": index,
            f"{phase}_steps": steps or [],
            "agent_secret_token": "******",
        },
        **members,
    }


@pytest.fixture
def node() -> Json:
    return make_node()
