"""The VTC paper's Arena trace: CSV with clients, without prefixes."""

from __future__ import annotations

from pathlib import Path

from fairprefix.sim.trace.foreign import Lengths
from fairprefix.sim.trace.record import DEFAULT_BLOCK_SIZE, NS_PER_SECOND, Trace, TraceRequest
from fairprefix.sim.trace.rows import Row, csv_rows

COLUMNS = ("req_id", "client", "arrival_s", "prompt_len", "output_len")


def load_vtc_arena(path: Path) -> Trace:
    """Return the trace in a CSV file with the columns req_id, client, arrival_s, prompt_len and output_len.

    Raises:
        TraceError: the file cannot be read.
    """
    lengths = Lengths()
    requests = [_request(row, lengths) for row in csv_rows(path, COLUMNS)]
    return Trace(path.name, requests, DEFAULT_BLOCK_SIZE, has_clients=True, notes=lengths.notes())


def _request(row: Row, lengths: Lengths) -> TraceRequest:
    client = row.get("client").strip()
    if not client:
        raise row.error("client", "a name")
    return TraceRequest(
        arrival_ns=row.duration_ns("arrival_s", NS_PER_SECOND),
        client=client,
        input_tokens=lengths.read(row, "prompt_len"),
        output_tokens=lengths.read(row, "output_len"),
    )
