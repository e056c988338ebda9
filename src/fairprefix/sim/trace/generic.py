"""Our own format: one JSON object a line, with everything that a trace can say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from attrs import define

from fairprefix.core.errors import nearest
from fairprefix.sim.trace.blocks import full_blocks
from fairprefix.sim.trace.record import (
    ANONYMOUS,
    DEFAULT_BLOCK_SIZE,
    NS_PER_SECOND,
    Trace,
    TraceError,
    TraceRequest,
)
from fairprefix.sim.trace.rows import Row, json_rows

FIELDS = (
    "arrival_s",
    "arrival_time_ns",
    "client",
    "input_tokens",
    "output_tokens",
    "max_output_tokens",
    "hash_ids",
    "block_size",
)


def load_generic(path: Path) -> Trace:
    """Return the trace in a file of our JSON lines (docs/trace-format.md).

    Raises:
        TraceError: the file cannot be read.
    """
    reader = _Reader()
    requests = [reader.request(row) for row in json_rows(path)]
    return Trace(
        path.name, requests, reader.block_size or DEFAULT_BLOCK_SIZE, has_clients=bool(reader.has_clients)
    )


def dump_generic(trace: Trace) -> Iterator[str]:
    """Yield a trace as lines of our format, without line ends; reading them back gives the same requests."""
    for request in trace.requests:
        yield dump_request(request, trace.block_size, with_client=trace.has_clients)


def dump_request(request: TraceRequest, block_size: int, *, with_client: bool) -> str:
    """Return one line of our format, without line end."""
    fields: dict[str, object] = {"client": request.client} if with_client else {}
    fields |= {"input_tokens": request.input_tokens, "output_tokens": request.output_tokens}
    if request.max_output_tokens != request.output_tokens:
        fields["max_output_tokens"] = request.max_output_tokens
    if request.blocks:
        fields |= {"block_size": block_size, "hash_ids": request.blocks}
    rest = json.dumps(fields, separators=(",", ":"))
    # Written by hand, since a float would lose nanoseconds.
    return f'{{"arrival_s":{_decimal_seconds(request.arrival_ns)},{rest[1:]}'


def _decimal_seconds(nanoseconds: int) -> str:
    whole, fraction = divmod(nanoseconds, NS_PER_SECOND)
    return f"{whole}.{fraction:09d}".rstrip("0").removesuffix(".")


@define
class _Reader:
    """Reads row after row, and sees to what all rows must agree on."""

    block_size: int | None = None
    has_clients: bool | None = None

    def request(self, row: Row) -> TraceRequest:
        _refuse_unknown(row)
        input_tokens = row.whole("input_tokens", 1)
        output_tokens = row.whole("output_tokens", 1)
        return TraceRequest(
            arrival_ns=_arrival_ns(row),
            client=self._client(row),
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            max_output_tokens=_max_output(row, output_tokens),
            blocks=self._blocks(row, input_tokens),
        )

    def _client(self, row: Row) -> str:
        if self.has_clients is None:
            self.has_clients = "client" in row.fields
        if not self.has_clients:
            if "client" in row.fields:
                raise row.error("client", "no such field, as in the rows before")
            return ANONYMOUS
        client = row.get("client")
        if not isinstance(client, str) or not client:
            raise row.error("client", "a name, as a non-empty string")
        return client

    def _blocks(self, row: Row, input_tokens: int) -> tuple[int, ...]:
        if row.fields.get("hash_ids") in (None, []):
            return ()
        size = row.whole("block_size", 1)
        if size != (self.block_size or size):
            raise row.error("block_size", f"{self.block_size} as in the rows before")
        self.block_size = size
        return full_blocks(row, "hash_ids", input_tokens, size)


def _refuse_unknown(row: Row) -> None:
    """Refuse a field that we do not know: more likely a slip of the pen than something to ignore."""
    for name in row.fields:
        if name not in FIELDS:
            raise TraceError(
                f"{row.place}: field {name!r} is unknown{nearest(name, FIELDS)}, expected {', '.join(FIELDS)}"
            )


def _arrival_ns(row: Row) -> int:
    if "arrival_time_ns" not in row.fields:
        return row.duration_ns("arrival_s", NS_PER_SECOND)
    if "arrival_s" in row.fields:
        raise row.error("arrival_time_ns", "either this or arrival_s, not both")
    return row.duration_ns("arrival_time_ns", 1)


def _max_output(row: Row, output_tokens: int) -> int:
    if "max_output_tokens" not in row.fields:
        return output_tokens
    most = row.whole("max_output_tokens", 1)
    if most < output_tokens:
        raise row.error("max_output_tokens", f"an integer >= output_tokens ({output_tokens})")
    return most
