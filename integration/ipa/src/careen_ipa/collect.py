"""The logs of recent runs in IPA's log collection, which the conductor fetches after a failure."""

from __future__ import annotations

import io
import json
from collections.abc import MutableMapping
from typing import Any

from oslo_log import log

from careen_ipa.client import Client, ClientError, Json, Problem
from careen_ipa.logs import nanoseconds

LOG = log.getLogger(__name__)

#: Bytes of one run's bundle and of all: the archive is built in memory, twice, and sent as base64.
MAX_BUNDLE = 4 << 20
MAX_TOTAL = 16 << 20


def collect(client: Client, io_dict: MutableMapping[str, Any], count: int) -> None:
    """Add files below careen/ to io_dict: the agent's state and the bundles of the count newest runs.

    What cannot be fetched is omitted with a line in the log: logs are collected after failures.
    """
    for name, get in (("health", client.health), ("config", client.config), ("version", client.version)):
        try:
            io_dict[f"careen/{name}.json"] = _document(get())
        except ClientError as exc:
            LOG.warning("Cannot collect careen's %s: %s", name, exc)
    try:
        runs = sorted(client.runs(), key=lambda run: nanoseconds(run.get("created_at")), reverse=True)
    except ClientError as exc:
        LOG.warning("Cannot collect careen's runs: %s", exc)
        return
    io_dict["careen/runs.json"] = _document(runs)
    left = MAX_TOTAL
    for run in runs[:count]:
        if left <= 0:
            LOG.warning(
                "Not all of careen's runs are collected: their logs are larger than %d bytes", MAX_TOTAL
            )
            return
        try:
            left -= _add(client, io_dict, run, min(left, MAX_BUNDLE))
        except ClientError as exc:
            LOG.warning("Cannot collect the logs of the container run %s: %s", run.get("id"), exc)


def _add(client: Client, io_dict: MutableMapping[str, Any], run: Json, limit: int) -> int:
    """Add one run's bundle, or its record and log if there is no bundle; return the bytes added."""
    run_id = str(run.get("id"))
    try:
        media, data = client.bundle(run_id, limit)
    except Problem as exc:
        if exc.status not in (404, 405, 501):
            raise
    except ClientError as exc:
        LOG.info("The bundle of the container run %s is not collected, only its log: %s", run_id, exc)
    else:
        io_dict[f"careen/{run_id}.{_suffix(media, data)}"] = io.BytesIO(data)
        return len(data)
    text = client.log_text(run_id, limit)
    io_dict[f"careen/{run_id}.log"] = io.BytesIO(text)
    return len(text)


def _suffix(media: str, data: bytes) -> str:
    if data.startswith(b"\x1f\x8b"):
        return "tar.gz"
    if data.startswith(b"PK"):
        return "zip"
    if "json" in media:
        return "json"
    return "tar"


def _document(value: object) -> io.BytesIO:
    return io.BytesIO(json.dumps(value, indent=2, sort_keys=True).encode())
