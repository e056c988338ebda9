"""Mooncake's traces (FAST'25): JSON lines with cumulative hashes of 512-token blocks, without clients."""

from __future__ import annotations

from pathlib import Path

from fairprefix.sim.trace.blocks import full_blocks
from fairprefix.sim.trace.foreign import Lengths
from fairprefix.sim.trace.record import ANONYMOUS, NS_PER_MS, Trace, TraceRequest
from fairprefix.sim.trace.rows import Row, json_rows

BLOCK_SIZE = 512


def load_mooncake(path: Path) -> Trace:
    """Return the trace in a file of {"timestamp" in ms, "input_length", "output_length", "hash_ids"} lines.

    Raises:
        TraceError: the file cannot be read.
    """
    lengths = Lengths()
    requests = [_request(row, lengths) for row in json_rows(path)]
    return Trace(path.name, requests, BLOCK_SIZE, has_clients=False, notes=lengths.notes())


def _request(row: Row, lengths: Lengths) -> TraceRequest:
    input_tokens = lengths.read(row, "input_length")
    return TraceRequest(
        arrival_ns=row.duration_ns("timestamp", NS_PER_MS),
        client=ANONYMOUS,
        input_tokens=input_tokens,
        output_tokens=lengths.read(row, "output_length"),
        blocks=full_blocks(row, "hash_ids", input_tokens, BLOCK_SIZE),
    )
