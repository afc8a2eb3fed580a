"""The options of the ``[careen]`` section in IPA's configuration.

IPA reads its files before it loads hardware managers, and oslo.config looks options up when they are registered. So it
is early enough to register them here, at import. The options that a network boot may need are also kernel parameters,
like IPA's own options.
"""

from __future__ import annotations

import os
from typing import Any

from ironic_python_agent import config as ipa_config
from oslo_config import cfg

GROUP = "careen"

#: Go's notation of a duration, without signs.
_DURATION = r"^$|^(\d+(\.\d+)?(ms|s|m|h))+$"

_params = ipa_config.APARAMS

OPTS: list[Any] = [
    cfg.StrOpt(
        "socket",
        default=_params.get("ipa-careen-socket")
        or os.environ.get("CAREEN_SOCKET")
        or "/run/careen/careen.sock",
        help="The careen agent's unix socket. Can be supplied as the kernel parameter ipa-careen-socket or the "
        "environment variable CAREEN_SOCKET.",
    ),
    cfg.StrOpt(
        "support_level",
        default=_params.get("ipa-careen-support-level", "service_provider"),
        choices=["service_provider", "mainline", "none"],
        help="The hardware support that the manager claims. service_provider wins over IPA's own container "
        "manager where both are installed, mainline leaves the choice to their names, none turns this manager "
        "off. Can be supplied as the kernel parameter ipa-careen-support-level.",
    ),
    cfg.IntOpt(
        "start_timeout",
        default=15,
        min=0,
        help="Seconds to wait, when IPA starts, for the agent to listen and to be ready.",
    ),
    cfg.IntOpt("request_timeout", default=30, min=1, help="Seconds to wait for an answer of the agent."),
    cfg.IntOpt(
        "unreachable_timeout",
        default=120,
        min=0,
        help="Seconds for which a step goes on when the agent does not answer, such as while it is restarted: the "
        "container keeps running meanwhile.",
    ),
    cfg.StrOpt(
        "step_timeout",
        default="",
        regex=_DURATION,
        help='The time limit of a container, pull included, as in "90m" or "2h30m". Empty: the agent\'s own limit.',
    ),
    cfg.DictOpt(
        "step_timeouts",
        default={},
        help="Time limits of single steps, which win over step_timeout, as in flash_bios:45m,burnin:12h.",
    ),
    cfg.StrOpt(
        "silence_timeout",
        default="",
        regex=_DURATION,
        help="End a container that writes no output for so long. Empty: the agent's own limit.",
    ),
    cfg.BoolOpt(
        "abort_on_stop",
        default=True,
        help="Abort the running step when IPA gets SIGTERM or SIGINT. Otherwise the container runs on and the next "
        "IPA finds it.",
    ),
    cfg.BoolOpt(
        "resume",
        default=True,
        help="When IPA has been restarted, or the node, in the middle of a step, take up the conductor's command "
        "again so that the conductor learns how the step ends.",
    ),
    cfg.StrOpt(
        "forward_config",
        default="overrides",
        choices=["overrides", "all"],
        help="Which [container] options the agent is told. overrides: those that the conductor sent at lookup; the "
        "agent reads the files itself. all: also IPA's own values, for an IPA whose files the agent cannot read, "
        "such as one in a container.",
    ),
    cfg.BoolOpt("log_output", default=True, help="Write the container's output to IPA's log while it runs."),
    cfg.IntOpt(
        "log_rate",
        default=100,
        min=1,
        help="Lines of container output that IPA's log takes per second on average. More are counted and left out; "
        "the agent keeps them all.",
    ),
    cfg.IntOpt(
        "error_lines",
        default=20,
        min=0,
        max=200,
        help="Lines of output that follow the cause in the error of a failed step.",
    ),
    cfg.IntOpt(
        "collect_runs",
        default=10,
        min=0,
        help="Runs, newest first, whose logs go into IPA's log collection.",
    ),
]


def list_opts() -> list[tuple[str, list[Any]]]:
    """Return the options for oslo.config's sample generator."""
    return [(GROUP, OPTS)]


def register(conf: Any) -> Any:
    """Register the options with conf, which may have them already, and return the section."""
    conf.register_opts(OPTS, group=GROUP)
    return conf[GROUP]


def container_options(conf: Any, everything: bool) -> dict[str, Any]:
    """Return the [container] options to send to the agent.

    IPA applies the conductor's options from the lookup with set_override, after it has dropped unknown and invalid
    ones. That location distinguishes an override from a value in a file. A steps file that a file names is a path
    that the agent may not have, so "everything" omits it unless the conductor set it.
    """
    options: dict[str, Any] = {}
    for name in conf.container:
        location = conf.get_location(name, "container")
        overridden = location is not None and location.location is cfg.Locations.set_override
        if overridden or (everything and name != "container_steps_file"):
            options[name] = _value(conf, name)
    return options


def _value(conf: Any, name: str) -> Any:
    """Return an option's value in the form that a conductor sends.

    oslo.config replaces $name when it reads a value, and so does the agent: the remaining dollars are data. A value
    that cannot be read is sent as null; the agent then refuses the steps that need it, as IPA would.
    """
    try:
        value = conf.container[name]
    except (cfg.TemplateSubstitutionError, ValueError, TypeError):
        return None
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, list):
        return [item.replace("$", "$$") if isinstance(item, str) else item for item in value]
    return value
