"""The form of snapshots: plain data that JSON can hold, with a schema version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import SnapshotError
from fairprefix.core.lane import Entry, Stage
from fairprefix.core.request import BlockHash, Request

SCHEMA = 1
"""Version of snapshots, event logs and results; readers refuse any other."""

_FORMAT = "fairprefix.snapshot"
_PLAIN = (
    *("seq", "owner", "done", "paid", "priced", "weight", "advanced"),
    *("serial", "extend", "reserve", "charged"),
)


def seal_snapshot(policy: str, config: PolicyConfig, body: dict[str, Any]) -> dict[str, Any]:
    """Return a snapshot of `policy` with its state in `body`."""
    return {"format": _FORMAT, "schema": SCHEMA, "policy": policy, "config": config.to_mapping(), **body}


def open_snapshot(snapshot: Any, policy: str) -> tuple[PolicyConfig, Mapping[str, Any]]:  # noqa: ANN401 (read from a file)
    """Return configuration and state of a snapshot.

    Raises:
        SnapshotError: it is none, or of another schema version or policy.
    """
    for key, expected in (("format", _FORMAT), ("schema", SCHEMA), ("policy", policy)):
        found = snapshot.get(key) if isinstance(snapshot, Mapping) else None
        if found != expected:
            raise SnapshotError(f"snapshot: {key} = {found!r}, expected {expected!r}")
    return PolicyConfig.from_mapping(snapshot["config"]), snapshot


def dump_entry(entry: Entry) -> dict[str, Any]:
    """Return an entry as plain data."""
    plain = {name: getattr(entry, name) for name in _PLAIN}
    return {"request": dump_request(entry.request), "stage": entry.stage.value, **plain}


def load_entry(data: Mapping[str, Any]) -> Entry:
    """Return the entry that `dump_entry` wrote."""
    entry = Entry(load_request(data["request"]), data["seq"], data["owner"])
    entry.stage = Stage(data["stage"])
    for name in _PLAIN:
        setattr(entry, name, data[name])
    return entry


def dump_request(request: Request) -> dict[str, Any]:
    """Return a request as plain data; a hash given as bytes is written as a hexadecimal string."""
    return {
        "id": request.id,
        "client": request.client,
        "input_tokens": request.input_tokens,
        "max_output": request.max_output,
        "blocks": dump_blocks(request.blocks),
        "namespace": request.namespace,
    }


def load_request(data: Mapping[str, Any]) -> Request:
    """Return the request that `dump_request` wrote."""
    return Request(**{**data, "blocks": load_blocks(data["blocks"])})


def dump_blocks(blocks: Any) -> list[int | str]:  # noqa: ANN401 (any sequence type of a host's own)
    """Return block hashes as plain data."""
    return [block.hex() if isinstance(block, bytes) else int(block) for block in blocks]


def load_blocks(data: list[int | str]) -> tuple[BlockHash, ...]:
    """Return the block hashes that `dump_blocks` wrote."""
    return tuple(bytes.fromhex(block) if isinstance(block, str) else block for block in data)
