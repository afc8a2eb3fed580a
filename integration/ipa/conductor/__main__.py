"""Runs a phase on the agent that comes to this conductor, and prints how it ended as JSON."""

from __future__ import annotations

import argparse
import base64
import dataclasses
import json
import logging
import subprocess
import sys
from pathlib import Path

from conductor.flow import Flow
from conductor.node import Node
from conductor.server import DEFAULT_API_VERSION, Server


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m conductor", description=__doc__)
    parser.add_argument("--listen", default="127.0.0.1:6385", metavar="HOST:PORT", help="the API's address")
    parser.add_argument("--phase", choices=["clean", "deploy", "service"], default="clean")
    parser.add_argument(
        "--steps",
        required=True,
        metavar="JSON",
        help='list of steps, as in [{"step": "generic_container_step", "args": {"container_url": "..."}}]; @FILE '
        "reads it from a file; [] lists the steps only",
    )
    parser.add_argument("--containers", default="{}", metavar="JSON", help="the [agent_containers] section")
    parser.add_argument("--agent-url", default="", help="where the agent is, if not where it says itself")
    parser.add_argument("--api-version", default=DEFAULT_API_VERSION, help="1.68 makes the agent use TLS")
    parser.add_argument("--uuid", default="", help="the node's")
    parser.add_argument("--token", default="", help="a token that the ramdisk has already (ipa-agent-token)")
    parser.add_argument("--logs", metavar="FILE", help="collect logs after a failure into FILE (tar.gz)")
    parser.add_argument(
        "--heartbeat-timeout",
        type=int,
        default=60,
        metavar="SECONDS",
        help="told to the agent at lookup, which heartbeats two or three times as often (%(default)s)",
    )
    parser.add_argument(
        "--reboot-command",
        metavar="COMMAND",
        help="for the shell: reboots the node, after a step with reboot_requested",
    )
    parser.add_argument("--timeout", type=float, default=600, help="seconds (%(default)s)")
    return parser.parse_args(argv)


def document(text: str) -> object:
    """Return the JSON that an argument is or names."""
    return json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)


def main(argv: list[str]) -> int:
    """Return 0 if all steps succeeded, 1 if not, 2 after the time limit."""
    options = parse(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    containers = document(options.containers)
    steps = document(options.steps)
    if not isinstance(containers, dict) or not isinstance(steps, list):
        sys.stderr.write("--containers wants an object, --steps a list\n")
        return 2
    node = Node(options.phase, containers=containers)
    if options.uuid:
        node.uuid = options.uuid
    if options.token:
        node.token, node.token_pregenerated = options.token, True
    node.heartbeat_timeout = options.heartbeat_timeout

    def reboot() -> None:
        subprocess.run(options.reboot_command, shell=True, check=True)  # noqa: S602  what it is for

    flow = Flow(
        node,
        [{"interface": "deploy", "priority": 0, **step} for step in steps],
        agent_url=options.agent_url,
        reboot=reboot if options.reboot_command else None,
        collect_logs=bool(options.logs),
    )
    host, _, port = options.listen.rpartition(":")
    server = Server(flow, host, int(port), options.api_version)
    server.start()
    ended = flow.done.wait(options.timeout)
    server.shutdown()
    if options.logs and flow.logs:
        Path(options.logs).write_bytes(base64.b64decode(flow.logs))
    sys.stdout.write(json.dumps(dataclasses.asdict(flow.outcome), indent=2) + "\n")
    if not ended:
        return 2
    return 1 if flow.outcome.error else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
