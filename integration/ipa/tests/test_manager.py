"""The manager inside the real IPA: its dispatch, its extensions, its plugin loading."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from ironic_python_agent import errors, hardware, utils
from ironic_python_agent.extensions import base

from careen_ipa.manager import CareenHardwareManager
from tests.conftest import ALLOWED, OTHER, make_node
from tests.fake_agent import FakeAgent, Script

Json = dict[str, Any]


class Ipa:
    """IPA without its process: the real extensions and dispatch, and a list of commands as its agent has."""

    def __init__(self) -> None:
        self.commands = base.ExecuteCommandMixin()  # type: ignore[attr-defined]
        self.commands.command_results.clear()
        self.commands.force_heartbeat = lambda: None
        self.commands.ext_mgr = base.init_ext_manager(self.commands)

    def get_steps(self, phase: str, node: Json) -> Json:
        result = self.commands.execute_command(f"{phase}.get_{phase}_steps", node=node, ports=[])
        if result.command_error is not None:
            raise result.command_error
        return dict(result.command_result)

    def start(self, phase: str, node: Json, step: str, **args: Any) -> Any:
        """Send a step as the conductor does, with all of its fields."""
        body = {"interface": "deploy", "step": step, "priority": 0, "args": args}
        return self.commands.execute_command(f"{phase}.execute_{phase}_step", step=body, node=node, ports=[])

    def execute(self, phase: str, node: Json, step: str, **args: Any) -> Json:
        """Send a step and return the command as the conductor sees it in the end."""
        command = self.start(phase, node, step, **args).join()
        return dict(json.loads(json.dumps(command.serialize(), default=lambda value: value.serialize())))


@pytest.fixture
def ipa(agent: FakeAgent, conf: Any) -> Ipa:
    agent.options = {}
    conf.set_override("allowed_containers", [ALLOWED], group="container")
    return Ipa()


def write_steps(conf: Any, *steps: Json) -> None:
    Path(conf.container.container_steps_file).write_text(yaml.safe_dump({"steps": list(steps)}))
    conf.set_override("container_steps_file", conf.container.container_steps_file, group="container")


def step_of(name: str, **members: Any) -> Json:
    return {
        "name": name,
        "image": OTHER,
        "interface": "deploy",
        "reboot_requested": False,
        "abortable": True,
        "priority": 20,
        **members,
    }


def names(steps: list[Json]) -> list[str]:
    return [str(step["step"]) for step in steps]


# Loading.


def test_ipa_finds_the_manager_by_its_entry_point(agent: FakeAgent, conf: Any) -> None:
    details = hardware.get_managers_detail()
    assert details[0]["name"] == "CareenHardwareManager"
    assert details[0]["support"] == hardware.HardwareSupport.SERVICE_PROVIDER
    assert hardware.get_current_versions()["CareenHardwareManager"] == "1"


@pytest.mark.parametrize(("level", "value"), [("mainline", 2), ("service_provider", 3), ("none", 0)])
def test_support_level_is_a_switch(agent: FakeAgent, conf: Any, level: str, value: int) -> None:
    conf.set_override("support_level", level, group="careen")
    assert CareenHardwareManager().evaluate_hardware_support() == value


def unusable(caplog: pytest.LogCaptureFixture, manager: CareenHardwareManager) -> str:
    """Return the one line with the reason why the manager is not usable."""
    caplog.set_level(logging.INFO, logger="careen_ipa")
    assert manager.evaluate_hardware_support() == hardware.HardwareSupport.NONE
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("careen_ipa")]
    assert len(lines) == 1
    return lines[0]


def test_no_agent(conf: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert "No such file or directory; is the careen unit" in unusable(caplog, CareenHardwareManager())


def test_agent_that_is_not_ready(
    agent: FakeAgent, manager: CareenHardwareManager, caplog: pytest.LogCaptureFixture
) -> None:
    check = {"name": "overlay", "status": "error", "detail": "not in this kernel", "remedy": "Add the module"}
    agent.health = {"ready": False, "checks": [check, {"name": "ok", "status": "ok", "detail": ""}]}
    line = unusable(caplog, manager)
    assert line.endswith("the agent is not ready: overlay: not in this kernel. Add the module")


def test_agent_of_another_version(
    agent: FakeAgent, manager: CareenHardwareManager, caplog: pytest.LogCaptureFixture
) -> None:
    agent.version = {"version": "9.0.0", "api_version": "v2", "boot_id": "b"}
    assert "(careen 9.0.0) has API version v2, this plugin needs 1" in unusable(caplog, manager)


def test_an_agent_that_starts_late_is_waited_for(socket_path: Path, conf: Any) -> None:
    conf.set_override("start_timeout", 30, group="careen")
    late = FakeAgent(socket_path)
    timer = threading.Timer(0.3, late.start)
    timer.start()
    try:
        assert (
            CareenHardwareManager().evaluate_hardware_support() == hardware.HardwareSupport.SERVICE_PROVIDER
        )
    finally:
        timer.join()
        late.stop()


# Listing.


@pytest.mark.parametrize(("phase", "priority"), [("clean", 20), ("deploy", 0), ("service", 0)])
def test_steps_by_phase(ipa: Ipa, conf: Any, phase: str, priority: int) -> None:
    write_steps(conf, step_of("my_step", reboot_requested=True, abortable=False))
    answer = ipa.get_steps(phase, make_node(phase))
    steps = answer[f"{phase}_steps"]["CareenHardwareManager"]
    assert names(steps)[:3] == ["generic_container_step", "container_clean_step", "my_step"]
    assert steps[2] == {
        "step": "my_step",
        "priority": priority,
        "interface": "deploy",
        "reboot_requested": True,
        "abortable": False,
    }
    assert steps[0]["argsinfo"]["container_url"]["required"] is True
    assert answer["hardware_manager_version"]["CareenHardwareManager"] == "1"


def test_wins_over_the_stock_manager(
    ipa: Ipa, conf: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    podman = tmp_path / "podman"
    podman.write_text("#!/bin/sh\necho podman version 5.0.0\n")
    podman.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    write_steps(conf, step_of("my_step"))
    steps = ipa.get_steps("clean", make_node())["clean_steps"]
    assert "ContainerHardwareManager" in {found["name"] for found in hardware.get_managers_detail()}
    assert "ContainerHardwareManager" not in steps
    assert "my_step" in names(steps["CareenHardwareManager"])
    assert "erase_devices" in names(steps["GenericHardwareManager"])


def test_reserved_names_are_sent(ipa: Ipa, agent: FakeAgent, conf: Any) -> None:
    write_steps(conf, step_of("erase_devices_metadata"))
    with pytest.raises(errors.HardwareManagerConfigurationError, match="erase_devices_metadata"):
        ipa.get_steps("clean", make_node())


def test_broken_steps_file_fails_the_listing(ipa: Ipa, conf: Any) -> None:
    write_steps(conf)
    Path(conf.container.container_steps_file).write_text("steps: [unclosed\n")
    with pytest.raises(errors.HardwareManagerConfigurationError, match="Could not read container steps"):
        ipa.get_steps("clean", make_node())


def test_agent_gone_means_no_steps(ipa: Ipa, agent: FakeAgent, caplog: pytest.LogCaptureFixture) -> None:
    hardware.get_managers()
    agent.stop()
    assert "CareenHardwareManager" not in ipa.get_steps("clean", make_node())["clean_steps"]
    assert "careen's container steps are not advertised for the clean phase" in caplog.text


# The conductor's configuration.


def test_what_the_conductor_sent_reaches_the_agent(ipa: Ipa, agent: FakeAgent, conf: Any) -> None:
    conf.set_override("run_options", "--rm --network=host", group="container")
    conf.set_override("allow_arbitrary_containers", True, group="container")
    ipa.get_steps("clean", make_node())
    assert agent.options["run_options"] == ["--rm --network=host"]
    assert agent.options["allow_arbitrary_containers"] is True
    # The agent reads IPA's files and defaults itself.
    assert "runner" not in agent.options
    conf.set_override("forward_config", "all", group="careen")
    ipa.get_steps("clean", make_node())
    assert agent.options["runner"] == "podman"


def test_dollars_are_data(ipa: Ipa, agent: FakeAgent, conf: Any) -> None:
    conf.set_override("run_options", ["-e", "A=$$x"], group="container")
    ipa.get_steps("clean", make_node())
    assert agent.options["run_options"] == ["-e", "A=$$x"]


# Running.


@pytest.mark.parametrize("phase", ["clean", "deploy", "service"])
def test_success(ipa: Ipa, agent: FakeAgent, phase: str) -> None:
    agent.default = Script(lines=["hello"], outcome={"result": {"firmware": "2.1"}, "leftovers": []})
    node = make_node(phase)
    command = ipa.execute(phase, node, "generic_container_step", container_url=ALLOWED)
    assert command["command_status"] == "SUCCEEDED"
    value = command["command_result"][f"{phase}_result"]
    assert value["digest"] == "sha256:" + "1" * 64
    assert value["duration"] == "1.5s"
    assert value["result"] == {"firmware": "2.1"}
    assert value["exit_code"] == 0
    assert command["command_result"][f"{phase}_step"]["step"] == "generic_container_step"
    [request] = agent.asked("POST", "/v1/runs")
    assert request is not None
    assert request["phase"] == phase
    assert request["args"] == {"container_url": ALLOWED}
    # Only the fields of the node that the audit record needs, and no secrets.
    assert request["node"] == {"uuid": node["uuid"]}


def test_variables_are_those_of_ipa(
    ipa: Ipa, agent: FakeAgent, conf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``-e NAME`` and proxies come from IPA's environment, as with podman, which is IPA's child."""
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("INVOCATION_ID", "first")
    monkeypatch.setenv("BROKEN", os.fsdecode(b"\xff"))
    first = ipa.execute("clean", make_node(), "generic_container_step", container_url=ALLOWED)
    # Another process of IPA, after a restart: the request is the same.
    monkeypatch.setenv("INVOCATION_ID", "second")
    again = ipa.execute("clean", make_node(), "generic_container_step", container_url=ALLOWED)
    assert first["command_result"] == again["command_result"]
    requests = agent.asked("POST", "/v1/runs")
    assert requests[0] == requests[1]
    assert requests[0] is not None
    assert requests[0]["env"]["https_proxy"] == "http://proxy.example:3128"
    assert not {"INVOCATION_ID", "BROKEN"} & requests[0]["env"].keys()


def test_output_is_in_the_log(ipa: Ipa, agent: FakeAgent, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    agent.default = Script(
        lines=["\x1b[2Jupdating"], pull=[{"status": "downloading", "done": 5, "total": 10}]
    )
    ipa.execute("clean", make_node(), "generic_container_step", container_url=ALLOWED)
    assert "stdout] updating" in caplog.text
    assert f"pulling {ALLOWED}: downloading, 50 %" in caplog.text
    assert f"Container step completed for image: {ALLOWED}" in caplog.text


def failure(command: Json) -> str:
    """Return the details of a failed command, which is all that the conductor shows."""
    assert command["command_status"] == "FAILED"
    return str(command["command_error"]["details"])


def test_failure_says_cause_and_remedy_first(ipa: Ipa, agent: FakeAgent) -> None:
    agent.default = Script(lines=[f"line {number}" for number in range(30)], exit_code=3)
    details = failure(
        ipa.execute("clean", make_node(), "generic_container_step", container_url=ALLOWED)
    ).split("\n")
    assert details[0] == f"container {ALLOWED} ended with exit code 3. See the last lines of its output."
    assert "exit code 3" in details[1]
    assert details[2] == "Last output:"
    assert details[3:] == [f"line {number}" for number in range(10, 30)]


def test_failure_keeps_ipas_error_type(ipa: Ipa) -> None:
    command = ipa.execute("clean", make_node(), "generic_container_step", container_url=OTHER)
    assert command["command_error"]["type"] == "ContainerNotPermittedError"
    assert failure(command) == (
        f"Container image {OTHER} is not in [container]allowed_containers and "
        "[container]allow_arbitrary_containers is not enabled. Add the image to the allowlist."
    )


def test_bad_argument(ipa: Ipa, agent: FakeAgent) -> None:
    command = ipa.execute("clean", make_node(), "generic_container_step", container_url=["x"])
    assert failure(command) == "container_url must be a non-empty string, got list."
    assert agent.asked("POST", "/v1/runs") == []


def test_unknown_argument(ipa: Ipa, agent: FakeAgent) -> None:
    command = ipa.execute("clean", make_node(), "generic_container_step", container_url=ALLOWED, trusted=True)
    assert "unexpected keyword argument 'trusted'" in failure(command)
    assert agent.asked("POST", "/v1/runs") == []


def test_step_of_the_file(ipa: Ipa, agent: FakeAgent, conf: Any) -> None:
    write_steps(conf, step_of("my_step"))
    ipa.get_steps("clean", make_node())
    command = ipa.execute("clean", make_node(), "my_step")
    assert command["command_result"]["clean_result"]["image"] == OTHER


def test_step_of_the_file_before_any_listing(ipa: Ipa, agent: FakeAgent, conf: Any) -> None:
    write_steps(conf, step_of("my_step"))
    assert ipa.execute("clean", make_node(), "my_step")["command_status"] == "SUCCEEDED"


def test_several_containers_are_one_step(ipa: Ipa, agent: FakeAgent) -> None:
    parts = [{"container_url": ALLOWED}, {"container_url": ALLOWED, "run_options": ["--rm"]}]
    command = ipa.execute("deploy", make_node("deploy"), "container_sequence_step", sequence=parts)
    assert command["command_status"] == "SUCCEEDED"
    [request] = agent.asked("POST", "/v1/runs")
    assert request is not None
    assert request["args"] == {"sequence": parts}


def test_unknown_step_is_left_to_other_managers(ipa: Ipa) -> None:
    assert "No HardwareManager found" in str(
        ipa.start("clean", make_node(), "no_such_step").join().command_error
    )


def test_limits(ipa: Ipa, agent: FakeAgent, conf: Any) -> None:
    conf.set_override("step_timeout", "2h", group="careen")
    conf.set_override("step_timeouts", {"container_clean_step": "90m"}, group="careen")
    conf.set_override("silence_timeout", "10m", group="careen")
    for index, step in enumerate(("generic_container_step", "container_clean_step")):
        ipa.execute("clean", make_node(index=index), step, container_url=ALLOWED)
    requests = agent.asked("POST", "/v1/runs")
    assert [(one["timeout"], one["silence_timeout"]) for one in requests if one] == [
        ("2h", "10m"),
        ("90m", "10m"),
    ]
    conf.set_override("step_timeouts", {"container_clean_step": "ages"}, group="careen")
    command = ipa.execute("clean", make_node(index=5), "container_clean_step", container_url=ALLOWED)
    assert '"ages" for container_clean_step is not a duration' in failure(command)


def test_reboot_request_is_passed_on(ipa: Ipa, agent: FakeAgent, caplog: pytest.LogCaptureFixture) -> None:
    agent.default = Script(outcome={"reboot_requested": True, "reboot_reason": "new BIOS"})
    command = ipa.execute("clean", make_node(), "generic_container_step", container_url=ALLOWED)
    value = command["command_result"]["clean_result"]
    assert (value["reboot_requested"], value["reboot_reason"]) == (True, "new BIOS")
    assert "asks for a reboot (new BIOS)" in caplog.text


def test_a_large_result_is_left_out(ipa: Ipa, agent: FakeAgent) -> None:
    agent.default = Script(outcome={"result": ["x" * 70000]})
    value = ipa.execute("clean", make_node(), "generic_container_step", container_url=ALLOWED)
    assert "70004 characters" in value["command_result"]["clean_result"]["result_omitted"]


# Repeated, interrupted and lost.


def test_a_repeated_command_is_one_run(ipa: Ipa, agent: FakeAgent) -> None:
    first = ipa.execute("clean", make_node(), "generic_container_step", container_url=ALLOWED)
    again = ipa.execute("clean", make_node(), "generic_container_step", container_url=ALLOWED)
    assert first["command_result"] == again["command_result"]
    assert len(agent.runs) == 1


def test_a_repeated_command_is_one_failure(ipa: Ipa, agent: FakeAgent) -> None:
    agent.default = Script(exit_code=1)
    first = ipa.execute("clean", make_node(), "generic_container_step", container_url=ALLOWED)
    agent.default = Script()
    again = ipa.execute("clean", make_node(), "generic_container_step", container_url=ALLOWED)
    assert failure(first) == failure(again)


def test_a_repeated_command_with_other_limits_is_one_run(ipa: Ipa, agent: FakeAgent, conf: Any) -> None:
    first = ipa.execute("clean", make_node(), "generic_container_step", container_url=ALLOWED)
    conf.set_override("step_timeout", "2h", group="careen")
    again = ipa.execute("clean", make_node(), "generic_container_step", container_url=ALLOWED)
    assert first["command_result"] == again["command_result"]


def test_the_same_step_twice_in_a_list_is_two_runs(ipa: Ipa, agent: FakeAgent) -> None:
    for index in range(2):
        ipa.execute("clean", make_node(index=index), "generic_container_step", container_url=ALLOWED)
    assert len(agent.runs) == 2


def test_a_lost_answer_does_not_run_it_twice(ipa: Ipa, agent: FakeAgent) -> None:
    agent.cut["POST", "/v1/runs"] = 1
    command = ipa.execute("clean", make_node(), "generic_container_step", container_url=ALLOWED)
    assert command["command_status"] == "SUCCEEDED"
    assert len(agent.asked("POST", "/v1/runs")) == 2
    assert len(agent.runs) == 1


def test_an_agent_that_is_restarted_is_waited_for(ipa: Ipa, agent: FakeAgent) -> None:
    gate, started = threading.Event(), threading.Event()
    agent.default = Script(gate=gate, started=started.set)
    command = ipa.start("clean", make_node(), "generic_container_step", container_url=ALLOWED)
    assert started.wait(60)
    agent.stop()
    gate.set()
    agent.start()
    command.join()
    assert command.command_status == "SUCCEEDED"


def test_an_agent_that_stays_away_fails_the_step(ipa: Ipa, agent: FakeAgent, conf: Any) -> None:
    conf.set_override("unreachable_timeout", 1, group="careen")
    started = threading.Event()
    agent.default = Script(gate=threading.Event(), started=started.set)
    command = ipa.start("clean", make_node(), "generic_container_step", container_url=ALLOWED)
    assert started.wait(60)
    agent.stop()
    command.join()
    assert command.command_error.details.startswith(
        "cannot run the container step generic_container_step: cannot"
    )


def lost(agent: FakeAgent, identifier: str, node: Json) -> None:
    agent.add_run(
        identifier,
        node=node["uuid"],
        step="flash",
        outcome={
            "code": "lost",
            "message": "cannot complete step flash: the node was rebooted while the container was at work",
            "remedy": "Look at the node",
            "attrs": {"reason": "interrupted_by_reboot"},
            "log_tail": ["writing block 17"],
        },
    )


def run_id_at(ipa: Ipa, agent: FakeAgent, node: Json) -> str:
    """Run a step at node's place, and return its id."""
    ipa.execute("clean", node, "generic_container_step", container_url=ALLOWED)
    [identifier] = agent.runs
    agent.runs.clear()
    return identifier


def test_a_step_lost_in_a_reboot_fails_the_next(ipa: Ipa, agent: FakeAgent) -> None:
    node = make_node(index=0)
    lost(agent, run_id_at(ipa, agent, node), node)
    for _ in range(2):  # also when the command is repeated
        command = ipa.execute("clean", make_node(index=1), "generic_container_step", container_url=ALLOWED)
        details = failure(command)
        assert details.startswith("earlier step flash: cannot complete step flash: the node was rebooted")
        assert details.endswith("writing block 17")
    # Cleaned again, from the beginning: that is another list.
    again = make_node(index=0)
    again["driver_internal_info"]["agent_cached_clean_steps_refreshed"] = "2026-11-02T00:00:00"
    command = ipa.execute("clean", again, "generic_container_step", container_url=ALLOWED)
    assert command["command_status"] == "SUCCEEDED"


def test_a_lost_run_of_no_list_is_reported_once(ipa: Ipa, agent: FakeAgent) -> None:
    bare = make_node(driver_internal_info={})
    lost(agent, "ipa-c-any-x-0123456789abcdef", bare)
    first = ipa.execute("clean", bare, "generic_container_step", container_url=ALLOWED)
    assert failure(first).startswith("earlier step flash")
    repeated = ipa.execute("clean", bare, "generic_container_step", container_url=ALLOWED)
    assert failure(repeated).startswith("earlier step flash")
    later = {**bare, "provision_updated_at": "2026-11-01T11:00:00+00:00"}
    assert (
        ipa.execute("clean", later, "generic_container_step", container_url=ALLOWED)["command_status"]
        == "SUCCEEDED"
    )
    assert "ipa-c-any-x-0123456789abcdef" not in agent.runs


def test_other_peoples_lost_runs_are_none_of_ours(ipa: Ipa, agent: FakeAgent) -> None:
    lost(agent, "brave_curie", make_node())
    lost(agent, "ipa-c-any-x-0123456789abcdef", {"uuid": "another node"})
    command = ipa.execute("clean", make_node(), "generic_container_step", container_url=ALLOWED)
    assert command["command_status"] == "SUCCEEDED"


def test_an_earlier_step_that_still_runs_is_waited_for(ipa: Ipa, agent: FakeAgent) -> None:
    gate, started = threading.Event(), threading.Event()
    agent.default = Script(gate=gate, started=started.set, exit_code=9)
    first = ipa.start("clean", make_node(index=0), "generic_container_step", container_url=ALLOWED)
    assert started.wait(60)
    # A restarted IPA does not have that command, and the conductor has continued.
    second = Ipa()
    later = second.start("clean", make_node(index=1), "generic_container_step", container_url=ALLOWED)
    gate.set()
    first.join()
    later.join()
    assert later.command_error.details.startswith("earlier step generic_container_step: container")
    assert len(agent.runs) == 1


# Log collection.


def collected(text: str) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(base64.b64decode(text))) as archive:
        files = {member.name: archive.extractfile(member) for member in archive if member.isfile()}
        return {name: file.read() for name, file in files.items() if file is not None}


@pytest.mark.parametrize("bundles", [True, False])
def test_logs_are_in_ipas_collection(
    ipa: Ipa, agent: FakeAgent, bundles: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent.bundles = bundles
    agent.default = Script(lines=["evidence"])
    ipa.execute("clean", make_node(), "generic_container_step", container_url=ALLOWED)
    # The generic manager's commands are not under test, and /var/log of this machine is not wanted.
    careen = [found for found in hardware._global_managers or [] if found["name"] == "CareenHardwareManager"]
    hardware._global_managers = careen
    monkeypatch.setattr(utils, "is_journalctl_present", lambda: True)
    monkeypatch.setattr(utils, "get_journalctl_output", lambda lines=None: io.BytesIO(b"journal"))
    [identifier] = agent.runs
    files = collected(utils.collect_system_logs())
    if bundles:
        assert files[f"careen/{identifier}.tar.gz"].endswith(identifier.encode())
    else:
        assert files[f"careen/{identifier}.log"] == b"evidence"
    assert json.loads(files["careen/runs.json"])[0]["id"] == identifier
    assert json.loads(files["careen/health.json"])["ready"] is True
    agent.stop()
    assert "journal" in collected(utils.collect_system_logs())
