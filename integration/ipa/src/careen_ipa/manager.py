"""The hardware manager: IPA's container steps, run by the careen agent."""

from __future__ import annotations

import functools
import json
import os
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from ironic_python_agent import config as ipa_config  # noqa: F401  registers what hardware reads at import
from ironic_python_agent import errors, hardware, tls_utils
from oslo_config import cfg
from oslo_log import log

from careen_ipa import certificate, collect, config, ids, resume, stop
from careen_ipa import errors as failures
from careen_ipa.client import API_MAJOR, Client, ClientError, Json, Unreachable
from careen_ipa.runs import FINAL, Runner, Settings, value_of

CONF = cfg.CONF
LOG = log.getLogger(__name__)

_SUPPORT = {
    "service_provider": hardware.HardwareSupport.SERVICE_PROVIDER,
    "mainline": hardware.HardwareSupport.MAINLINE,
    "none": hardware.HardwareSupport.NONE,
}


class CareenHardwareManager(hardware.HardwareManager):
    """Runs container steps through the careen agent's socket.

    Only the steps are public here. All managers treat the public names of this class as names that a step
    of the steps file must not have.
    """

    HARDWARE_MANAGER_NAME = "CareenHardwareManager"
    # The conductor compares name and version before every step and starts cleaning again when they have changed. So
    # this is the version of the steps' meaning, not of the package.
    HARDWARE_MANAGER_VERSION = "1"

    def __init__(self) -> None:
        """Read the configuration, without a request to the agent."""
        options = config.register(CONF)
        self._options = options
        self._client = Client(options.socket, timeout=options.request_timeout)
        self._names: frozenset[str] | None = None
        # Lost runs that were reported, and the command that reported them.
        self._told: dict[str, str] = {}
        self._resumed = False
        self._resuming = False

    # The methods that IPA calls on every manager.

    def evaluate_hardware_support(self) -> int:
        """Return the configured level if an agent exists, is ready and has this plugin's API version."""
        level = _SUPPORT[self._options.support_level]
        if level == hardware.HardwareSupport.NONE:
            LOG.info("careen's container steps are turned off by [careen]support_level")
            return level
        reason = self._wait_for_agent()
        if reason:
            LOG.error("Container steps are not available through careen: %s", reason)
            return hardware.HardwareSupport.NONE
        if self._options.abort_on_stop:
            stop.install()
        return level

    def wait_for_disks(self) -> None:
        """Continue an interrupted command, and leave the wait for disks to other managers.

        IPA dispatches this once it knows its node: after the lookup and before the first heartbeat. The conductor's
        command must be in IPA's list again by then.
        """
        node = hardware.get_cached_node()
        if node is not None and not self._resumed:
            self._resumed = True
            if self._options.resume:
                try:
                    self._resuming = True
                    self._resuming = resume.resume(self._client, node)
                except Exception:  # IPA would not start; the next step has its own check
                    LOG.exception("Cannot take up an interrupted step")
        raise errors.IncompatibleHardwareMethodError

    def generate_tls_certificate(self, ip_address: str) -> tls_utils.TlsCertificate:
        """Return this boot's certificate again, since Ironic refuses another; other managers make the first."""
        found = certificate.existing(ip_address)
        if found is None:
            raise errors.IncompatibleHardwareMethodError
        return found

    def collect_system_logs(self, io_dict: MutableMapping[str, Any], file_list: list[str]) -> None:  # noqa: ARG002
        """Add the logs of recent runs to IPA's log collection."""
        collect.collect(self._client, io_dict, self._options.collect_runs)
        self._forget()

    # The lists of steps.

    def get_clean_steps(self, node: Json, ports: list[Json]) -> list[Json]:  # noqa: ARG002
        """Return the steps for cleaning, with their priorities."""
        return self._steps("clean")

    def get_deploy_steps(self, node: Json, ports: list[Json]) -> list[Json]:  # noqa: ARG002
        """Return the steps for deployment, none of which runs automatically."""
        return self._steps("deploy")

    def get_service_steps(self, node: Json, ports: list[Json]) -> list[Json]:  # noqa: ARG002
        """Return the steps for servicing, none of which runs automatically."""
        return self._steps("service")

    # The built-in steps. Their signatures exclude an argument named "trusted".

    def generic_container_step(
        self,
        node: Json,
        ports: list[Json],  # noqa: ARG002
        container_url: object,
        pull_options: object = None,
        run_options: object = None,
    ) -> Json:
        """Run the image container_url."""
        return self._builtin("generic_container_step", node, container_url, pull_options, run_options)

    def container_clean_step(
        self,
        node: Json,
        ports: list[Json],  # noqa: ARG002
        container_url: object,
        pull_options: object = None,
        run_options: object = None,
    ) -> Json:
        """Deprecated name of generic_container_step."""
        LOG.warning("The 'container_clean_step' step is deprecated, use 'generic_container_step' instead.")
        return self._builtin("container_clean_step", node, container_url, pull_options, run_options)

    if not TYPE_CHECKING:  # else the type checker accepts any name as an attribute

        def __getattr__(self, name: str) -> Callable[..., Json]:
            """Resolve a name of the steps file to the callable that runs it.

            IPA looks up every name it dispatches in every manager. So this refuses names that cannot be steps at
            once, and sends at most one request to the agent between two listings of steps.
            """
            if not name.startswith("_") and name not in self._reserved():
                # Not self._names: without __init__ that would call this method again.
                known = self.__dict__.get("_names")
                if known is None and "_client" in self.__dict__:
                    known = self._learn()
                if known and name in known:
                    return functools.partial(self._named, name)
            raise AttributeError(f"{type(self).__name__} object has no attribute {name}")

    # Private methods.

    def _wait_for_agent(self) -> str:
        """Return "" once the agent is ready, or the reason why it is not after start_timeout seconds."""
        deadline = time.monotonic() + self._options.start_timeout
        while True:
            reason, final = self._unusable()
            if not reason or final or time.monotonic() >= deadline:
                return reason
            time.sleep(0.25)

    def _unusable(self) -> tuple[str, bool]:
        """Return the reason why no step can run now, or "", and whether the reason is permanent."""
        try:
            version = self._client.version()
            major = str(version.get("api_version") or "").removeprefix("v").partition(".")[0]
            if major != API_MAJOR:
                return (
                    f"the agent at {self._client.path} (careen {version.get('version')}) has API version "
                    f"{version.get('api_version')}, this plugin needs {API_MAJOR}; install both from one release"
                ), True
            health = self._client.health()
        except Unreachable as exc:
            return (
                f"{exc}; is the careen unit part of the ramdisk and started before ironic-python-agent?",
                False,
            )
        except ClientError as exc:
            return f"what answers at {self._client.path} is not a usable agent: {exc}", True
        return ("", False) if health.get("ready") else (f"the agent is not ready: {_findings(health)}", False)

    @staticmethod
    def _reserved() -> frozenset[str]:
        """Return the names that a step of the steps file must not have."""
        names = frozenset(dir(CareenHardwareManager)) | frozenset(dir(hardware.GenericHardwareManager))
        # Read from the cache: a call of IPA's function while it loads the managers would load them again.
        for found in hardware._global_managers or ():
            names |= frozenset(dir(found["manager"]))
        return names

    def _steps(self, phase: str) -> list[Json]:
        reason, _ = self._unusable()
        if reason:
            LOG.error("careen's container steps are not advertised for the %s phase: %s", phase, reason)
            return []
        try:
            self._forward_config()
            steps = self._client.steps(phase, sorted(self._reserved()))
        except ClientError as exc:
            raise failures.from_client(exc, f"list the {phase} steps") from exc
        for step in steps:
            missing = {"step", "priority", "interface"} - step.keys()
            if missing:
                raise errors.HardwareManagerConfigurationError(
                    f"The careen agent's step {step.get('step')} has no {', '.join(sorted(missing))}."
                )
        self._names = frozenset(str(step["step"]) for step in steps)
        return steps

    def _learn(self) -> frozenset[str]:
        """Fetch the steps' names for an IPA that must run a step before it has listed any."""
        if self._resuming and threading.current_thread() is threading.main_thread():
            # This thread applies the lookup, and requests no step afterwards.
            return frozenset()
        try:
            self._steps("clean")
        except errors.RESTError as exc:
            # An exception would break every other dispatch. A listing raises for the same reason.
            LOG.error("Cannot resolve the names of container steps: %s", exc)
            self._names = frozenset()
        return self._names or frozenset()

    def _forward_config(self) -> None:
        """Send the conductor's settings from the lookup to the agent, which must not decide by an old policy.

        Empty settings are sent too: the agent may have the settings of an earlier conductor.
        """
        if self._resuming:
            # IPA is about to apply the settings that the conductor has just sent.
            _await_lookup()
            self._resuming = False
        self._client.patch_config(config.container_options(CONF, self._options.forward_config == "all"))

    def _builtin(self, step: str, node: Json, url: object, pull: object, run: object) -> Json:
        # IPA's text; the agent uses the same for the steps that only it knows.
        if not isinstance(url, str) or not url:
            raise errors.InvalidCommandParamsError(
                f"container_url must be a non-empty string, got {type(url).__name__}."
            )
        args = {"container_url": url, "pull_options": pull, "run_options": run}
        return self._execute(step, node, {name: value for name, value in args.items() if value is not None})

    def _named(self, step: str, node: Json, ports: list[Json], **args: object) -> Json:  # noqa: ARG002
        return self._execute(step, node, args)

    def _execute(self, step: str, node: Json, args: Mapping[str, Any]) -> Json:
        url = args.get("container_url")
        image = url if isinstance(url, str) else ""
        try:
            return self._run(step, node, args)
        except ClientError as exc:
            error = failures.from_client(exc, f"run the container step {step}", image)
            LOG.error("Container step %s: %s", step, error)
            raise error from exc
        except ValueError as exc:
            raise errors.HardwareManagerConfigurationError(failures.sentence(str(exc))) from exc

    def _run(self, step: str, node: Json, args: Mapping[str, Any]) -> Json:
        phase = ids.phase_of(node, step)
        place = ids.place_of(node, phase)
        identifier, repeatable = ids.run_id(node, step, args, place)
        if not repeatable:
            LOG.warning(
                "The node says neither which step this is nor when: if the command is repeated, it runs again"
            )
        runner = Runner(self._client, self._settings())
        self._settle(runner, node, place, identifier)
        self._forward_config()
        request = {
            "id": identifier,
            "route": "ipa",
            "step": step,
            "phase": phase,
            "args": dict(args),
            # The rest of the node may hold secrets. The name is left out because the lookup, from which a command
            # can be resumed, has no name: with a name the request would differ.
            "node": {"uuid": node.get("uuid")},
            "env": _environment(),
            **self._settings().limits(step),
        }
        return self._finish(step, runner.execute(request))

    def _settings(self) -> Settings:
        options = self._options
        return Settings(
            unreachable_timeout=options.unreachable_timeout,
            step_timeout=options.step_timeout,
            step_timeouts=options.step_timeouts,
            silence_timeout=options.silence_timeout,
            log_output=options.log_output,
            log_rate=options.log_rate,
        )

    def _finish(self, step: str, run: Json) -> Json:
        """Return the value of a run that has ended, or raise its failure."""
        if run.get("state") != "succeeded":
            error = failures.from_run(run, self._options.error_lines)
            LOG.error("Container step %s failed: %s", step, error.details)
            raise error
        LOG.info("Container step completed for image: %s", run.get("image"))
        value = value_of(run, lambda result: len(json.dumps(result)))
        if value.get("reboot_requested") and not run.get("reboot_requested"):
            LOG.warning(
                "The container of step %s asks for a reboot (%s), which its definition does not: add a reboot step "
                "after it, or reboot_requested in the steps file",
                step,
                value.get("reboot_reason") or "no reason given",
            )
        return value

    def _settle(self, runner: Runner, node: Json, place: ids.Place, identifier: str) -> None:
        """Check that the conductor knows the end of every earlier step of the same list.

        This is the second check after :mod:`careen_ipa.resume`, for a conductor that has continued with the next step.
        A conductor that knows of a failure does not continue in the same list; so one that continues does not know.
        A run without a list counts only if it is lost and was not reported, and fails one step only.
        """
        self._forget(identifier)
        for run in runner.persist(self._client.runs):
            run_id = str(run.get("id"))
            parsed = ids.parse(run_id)
            if parsed is None or run_id == identifier or run.get("node") != node.get("uuid"):
                continue
            if parsed.session and parsed.session != place.session:
                continue
            if run.get("state") not in FINAL:
                LOG.warning("Waiting for the container run %s of an earlier step", run_id)
                run = runner.join(run)
            elif not parsed.session and run.get("state") != "lost":
                continue
            if run.get("state") == "succeeded":
                continue
            error = failures.from_run(run, self._options.error_lines, f"earlier step {run.get('step')}: ")
            if not parsed.session:
                self._told[run_id] = identifier
            LOG.error("An earlier container step did not end well: %s", error.details)
            raise error

    def _forget(self, current: str = "") -> None:
        """Delete the lost runs that a command other than current has reported.

        Not earlier: their logs are collected after the failure, and the command may be repeated.
        """
        for run_id, reported in list(self._told.items()):
            if reported == current:
                continue
            try:
                self._client.delete(run_id)
            except ClientError as exc:
                LOG.warning("The container run %s will be reported again after a restart: %s", run_id, exc)
            del self._told[run_id]


#: Variables that a service manager sets for one process of IPA. They mean nothing to a container and change with a
#: restart, so that a repeated command would be a different request.
_PROCESS = frozenset(
    {"INVOCATION_ID", "JOURNAL_STREAM", "MAINPID", "MANAGERPID", "NOTIFY_SOCKET", "SYSTEMD_EXEC_PID"}
    | {"LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_PID", "WATCHDOG_USEC"}
)


def _environment() -> dict[str, str]:
    """Return the variables for ``-e NAME``, ``--env-host`` and proxies, as if careen were IPA's child."""
    return {
        name: value for name, value in os.environ.items() if name not in _PROCESS and _is_text(name + value)
    }


def _is_text(value: str) -> bool:
    """Return whether value can be sent: a variable may have any bytes."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _await_lookup() -> None:
    """Wait until IPA has applied the whole answer of the lookup, just after it knows its node."""
    deadline = time.monotonic() + 60
    while hardware.API_CLIENT is None and time.monotonic() < deadline:
        time.sleep(0.05)


def _findings(health: Mapping[str, Any]) -> str:
    checks = [check for check in health.get("checks") or [] if check.get("status") == "error"]
    texts = [
        f"{check.get('name')}: {check.get('detail')}. {check.get('remedy') or ''}".strip() for check in checks
    ]
    return "; ".join(texts) or "it does not say why"
