"""Load a trace, whatever its format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from fairprefix.core.errors import nearest
from fairprefix.sim.textfile import read_text
from fairprefix.sim.trace.azure import COLUMNS as AZURE_COLUMNS
from fairprefix.sim.trace.azure import load_azure
from fairprefix.sim.trace.generic import FIELDS as GENERIC_FIELDS
from fairprefix.sim.trace.generic import load_generic
from fairprefix.sim.trace.mooncake import load_mooncake
from fairprefix.sim.trace.record import Trace, TraceError
from fairprefix.sim.trace.record import limit as first
from fairprefix.sim.trace.vtc_arena import COLUMNS as VTC_ARENA_COLUMNS
from fairprefix.sim.trace.vtc_arena import load_vtc_arena

FORMATS: dict[str, Callable[[Path], Trace]] = {
    "generic": load_generic,
    "mooncake": load_mooncake,
    "vtc-arena": load_vtc_arena,
    "azure": load_azure,
}

JSON_SIGNATURES = {
    "generic": {*GENERIC_FIELDS},
    "mooncake": {"timestamp", "input_length", "output_length"},
}
CSV_SIGNATURES = {"vtc-arena": {*VTC_ARENA_COLUMNS}, "azure": {*AZURE_COLUMNS}}
"""Fields by which a format is recognised."""


def load_trace(path: str | Path, *, format: str | None = None, limit: int | None = None) -> Trace:
    """Load a trace, plain or gzip-compressed.

    Args:
        path: the file.
        format: one of `FORMATS`; None recognises it by the fields of the first line.
        limit: keep only so many requests, the first to arrive; None keeps all.

    Raises:
        TraceError: the file cannot be read: the message names file, line, field, value and what is expected.
        ConfigError: `limit` is not an integer of at least 1.
    """
    file = Path(path)
    kind = _recognise(file) if format is None else format
    if kind not in FORMATS:
        known = ", ".join(FORMATS)
        raise TraceError(
            f"{file}: format = {kind!r} is not valid: expected one of {known}{nearest(kind, FORMATS)}"
        )
    trace = FORMATS[kind](file)
    if not trace.requests:
        raise TraceError(f"{file}: has no requests, only a header")
    return trace if limit is None else first(trace, limit)


def _recognise(path: Path) -> str:
    """Return the format that the first line of a file points to."""
    line = next(line for line in read_text(path, TraceError).splitlines() if line.strip())
    is_json = line.lstrip().startswith("{")
    fields = _json_fields(line) if is_json else {name.strip() for name in line.split(",")}
    candidates = JSON_SIGNATURES if is_json else CSV_SIGNATURES
    # The nearest one rather than only a full match: its loader says best what is missing.
    kind = max(candidates, key=lambda kind: len(candidates[kind] & fields))
    if not candidates[kind] & fields:
        known = ", ".join(FORMATS)
        generic = ", ".join(GENERIC_FIELDS)
        raise TraceError(
            f"{path}:1: the format is unknown: expected one of {known}, where generic is JSON "
            f"lines with {generic} (see docs/trace-format.md)"
        )
    return kind


def _json_fields(line: str) -> set[str]:
    try:
        return set(json.loads(line))
    except (ValueError, RecursionError):
        return JSON_SIGNATURES["generic"]  # its loader reports the broken line
