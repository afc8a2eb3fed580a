"""Converts problems and outcomes into IPA's errors.

The conductor shows an error's ``details`` and nothing else, in ``last_error`` after "Clean step deploy.NAME failed
on node UUID.". So ``details`` begins with one line that has the cause and the remedy; facts about the run and
the last lines of output follow. Texts that operators know from IPA's container manager are unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ironic_python_agent import errors

from careen_ipa.client import ClientError, Problem, Unreachable
from careen_ipa.logs import clean

#: The longest line and the most text of a failure that goes to the conductor's database.
MAX_LINE = 500
MAX_OUTPUT = 6000


class ContainerStepFailed(errors.CommandExecutionError):
    """The container ran and failed, or could not be run."""

    message = "Container step failed"


class AgentUnavailable(errors.CommandExecutionError):
    """The careen agent does not answer, or its answer is invalid."""

    message = "The careen agent is not available"


def sentence(text: str, remedy: str = "") -> str:
    """Join a cause and a remedy into one line that ends with a full stop."""
    line = " ".join(clean(text, limit=4 * MAX_LINE).split())
    line = line if line.endswith((".", "!", "?")) else line + "."
    remedy = " ".join(clean(remedy, limit=4 * MAX_LINE).split())
    if remedy:
        line = f"{line} {remedy}" if remedy.endswith((".", "!", "?")) else f"{line} {remedy}."
    return line


def from_client(exc: ClientError, doing: str, image: str = "") -> errors.RESTError:
    """Return the error to raise for exc, which occurred while doing something, as in "start step X"."""
    if isinstance(exc, Problem):
        return _from_problem(exc, image)
    if isinstance(exc, Unreachable):
        remedy = (
            "Look at the careen unit's log in the ramdisk and see that it starts before ironic-python-agent"
        )
        return AgentUnavailable(sentence(f"cannot {doing}: {exc}", remedy))
    return AgentUnavailable(
        sentence(f"cannot {doing}: {exc}", "Install an agent and a plugin of the same release")
    )


def _from_problem(problem: Problem, image: str) -> errors.RESTError:
    line = sentence(problem.detail, problem.remedy)
    if problem.code == "policy":
        return not_permitted(problem, image)
    if problem.code in ("bad_steps", "bad_config", "node"):
        return errors.HardwareManagerConfigurationError(line)
    if problem.code in ("bad_request", "bad_option", "bad_reference", "unsupported"):
        return errors.InvalidCommandParamsError(line)
    if problem.code == "busy" and problem.holder:
        line = sentence(f"{problem.detail} (run {problem.holder})", problem.remedy)
    return ContainerStepFailed(line)


def not_permitted(problem: Problem, image: str) -> errors.RESTError:
    """Return IPA's refusal of an image, followed by careen's remedy."""
    # IPA 12 has no such class; runbooks and people search for the text.
    kind = getattr(errors, "ContainerNotPermittedError", None)
    if kind is None or not image:
        return ContainerStepFailed(sentence(problem.detail, problem.remedy))
    error: errors.RESTError = kind(image)
    if "[container]allowed_containers" in problem.detail:
        error.details = sentence(str(error.details), problem.remedy)
    else:
        # A rule that only careen has: IPA's text would name the wrong one.
        error.details = sentence(problem.detail, problem.remedy)
    return error


def from_run(run: Mapping[str, Any], lines: int, where: str = "") -> errors.RESTError:
    """Return the error for a run that did not succeed, with at most lines of its output.

    ``where`` precedes the cause, as in "part 2 of 3 (IMAGE): ".
    """
    outcome: Mapping[str, Any] = run.get("outcome") or {}
    cause = str(outcome.get("message") or f"the container run ended as {run.get('state')}")
    first = sentence(where + cause, str(outcome.get("remedy") or ""))
    text = [first, _facts(run, outcome)]
    tail = [clean(str(line), limit=MAX_LINE) for line in outcome.get("log_tail") or []]
    shown = tail[-lines:] if lines else []
    while shown and sum(map(len, shown)) > MAX_OUTPUT:
        shown.pop(0)
    if shown:
        text.append("Last output:")
        text.extend(shown)
    return ContainerStepFailed("\n".join(text))


def _facts(run: Mapping[str, Any], outcome: Mapping[str, Any]) -> str:
    facts = [f"run {run.get('id')}", f"image {run.get('image')}"]
    if run.get("digest"):
        facts.append(str(run["digest"]))
    if outcome.get("code"):
        facts.append(f"code {outcome['code']}")
    if outcome.get("exit_code") is not None:
        facts.append(f"exit code {outcome['exit_code']}")
    if outcome.get("duration"):
        facts.append(f"after {outcome['duration']}")
    leftovers = outcome.get("leftovers") or []
    if leftovers:
        facts.append(f"left behind: {'; '.join(str(item) for item in leftovers[:5])}")
    return clean(f"({', '.join(facts)})", limit=4 * MAX_LINE)
