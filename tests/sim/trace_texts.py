"""A trace in each format, and small ones."""

from __future__ import annotations

from pathlib import Path

from fairprefix.sim.trace import (
    Trace,
    TraceRequest,
)

MOONCAKE = '{"timestamp": 1500, "input_length": 1100, "output_length": 7, "hash_ids": [3, 4, 9]}'
ARENA = "req_id,client,arrival_s,prompt_len,output_len\n0,13,0.5,20,30"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44"
GENERIC = (
    '{"arrival_s": 0.25, "client": "a", "input_tokens": 40, "output_tokens": 5, "max_output_tokens": 9, '
    '"block_size": 16, "hash_ids": [1, 2, 3]}'
)

NAMELESS = GENERIC.replace('"client": "a", ', "")


def write(folder: Path, text: str, name: str = "trace") -> Path:
    """Write a file, byte for byte."""
    path = folder / name
    path.write_bytes(text.encode())
    return path


def plain_trace(arrivals: list[int], *, has_clients: bool = False) -> Trace:
    """Return a trace without blocks, with these arrivals."""
    requests = [TraceRequest(arrival, "a", 1, 1) for arrival in arrivals]
    return Trace("plain", requests, 16, has_clients=has_clients)
