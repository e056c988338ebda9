"""Azure's LLM inference traces: CSV with times of day and lengths, without clients and prefixes."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path

from attrs import evolve

from fairprefix.sim.trace.foreign import Lengths
from fairprefix.sim.trace.record import ANONYMOUS, DEFAULT_BLOCK_SIZE, NS_PER_SECOND, Trace, TraceRequest
from fairprefix.sim.trace.rows import Row, csv_rows

COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|\+00:00)?", re.ASCII)
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  # only differences of times count


def load_azure(path: Path) -> Trace:
    """Return the trace in a CSV file with the columns TIMESTAMP, ContextTokens and GeneratedTokens.

    Raises:
        TraceError: the file cannot be read.
    """
    lengths = Lengths()
    requests = [_request(row, lengths) for row in csv_rows(path, COLUMNS)]
    began = min((request.arrival_ns for request in requests), default=0)
    shifted = [evolve(request, arrival_ns=request.arrival_ns - began) for request in requests]
    return Trace(path.name, shifted, DEFAULT_BLOCK_SIZE, has_clients=False, notes=lengths.notes())


def _request(row: Row, lengths: Lengths) -> TraceRequest:
    return TraceRequest(
        arrival_ns=_nanoseconds(row, "TIMESTAMP"),
        client=ANONYMOUS,
        input_tokens=lengths.read(row, "ContextTokens"),
        output_tokens=lengths.read(row, "GeneratedTokens"),
    )


def _nanoseconds(row: Row, name: str) -> int:
    """Return a time as nanoseconds since 1970; the files have seven digits and datetime keeps six."""
    match = TIMESTAMP.fullmatch(row.get(name).strip())
    seconds = _seconds(match[1]) if match else -1
    if match is None or seconds < 0:
        raise row.error(name, "a time such as 2023-11-16 18:15:46.6805900")
    return seconds * NS_PER_SECOND + int((match[2] or "").ljust(9, "0"))


def _seconds(text: str) -> int:
    """Return the seconds since 1970 until a time of day, something negative for a date that does not exist."""
    try:
        return (datetime.fromisoformat(text) - EPOCH) // timedelta(seconds=1)
    except ValueError:
        return -1
