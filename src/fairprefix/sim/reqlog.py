"""Logs of real engines, request by request: what was asked, and when its tokens came."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from attrs import frozen

from fairprefix.core.errors import FairprefixError, at_least
from fairprefix.sim.metrics import NS_PER_S
from fairprefix.sim.textfile import read_text
from fairprefix.sim.trace import Trace, TraceRequest

_INPUT = ("input_tokens", "input_toks", "prompt_len", "prompt_tokens")
_OUTPUT = ("output_tokens", "output_toks", "output_len", "completion_tokens")
_START = ("queued_ts", "arrival_s", "arrival_time", "req_time", "sent_s")
_FIRST = ("first_token_ts", "first_token_s")
_LAST = ("last_token_ts", "finished_s", "last_token_s")


class LogError(FairprefixError, ValueError):
    """A log cannot be read; the message names file, line, field and what is expected."""


@frozen
class Measured:
    """One request as a real engine served it; times in seconds from the first request on."""

    start_s: float
    input_tokens: int
    output_tokens: int
    first_token_s: float
    last_token_s: float

    @property
    def ttft_s(self) -> float:
        """Time to first token."""
        return self.first_token_s - self.start_s

    @property
    def tpot_s(self) -> float:
        """Time per output token after the first; 0 where there is none."""
        return (self.last_token_s - self.first_token_s) / max(self.output_tokens - 1, 1)

    @property
    def latency_s(self) -> float:
        """From its start to its last token."""
        return self.last_token_s - self.start_s


def read_log(path: str | Path) -> list[Measured]:
    """Return the requests of a log, in order of their start.

    A log is JSON, one object per line: the lengths of prompt and output in tokens, and in seconds on one clock
    when the engine got the request (`queued_ts`, `arrival_s`...), and when the first and the last token came
    (`first_token_ts`, `last_token_ts`...); or the two as durations from the start (`ttft_s`, `latency_s`).

    Raises:
        LogError: a line cannot be read.
    """
    rows = []
    for line, text in enumerate(read_text(Path(path), LogError).splitlines(), 1):
        if text.strip():
            rows.append(_row(text, f"{path}:{line}"))
    if len(rows) < 2:  # noqa: PLR2004  # nothing to fit
        raise LogError(f"{path}: {len(rows)} requests, expected at least two")
    rows.sort(key=lambda row: row.start_s)
    first = rows[0].start_s
    return [
        Measured(
            r.start_s - first, r.input_tokens, r.output_tokens, r.first_token_s - first, r.last_token_s - first
        )
        for r in rows
    ]


def _row(text: str, where: str) -> Measured:
    try:
        fields = json.loads(text)
    except json.JSONDecodeError as problem:
        raise LogError(f"{where}: is not valid JSON: {problem.msg}") from problem
    if not isinstance(fields, dict):
        raise LogError(f"{where}: expected a JSON object")
    start = _number(fields, _START, where)
    first = start + _number(fields, ("ttft_s",), where) if "ttft_s" in fields else _number(fields, _FIRST, where)
    last = (
        start + _number(fields, ("latency_s",), where) if "latency_s" in fields else _number(fields, _LAST, where)
    )
    if not start <= first <= last:
        raise LogError(f"{where}: start {start}, first token {first}, last token {last}: expected in this order")
    return Measured(start, _whole(fields, _INPUT, where), _whole(fields, _OUTPUT, where), first, last)


def _field(fields: dict[str, Any], names: tuple[str, ...], where: str) -> tuple[str, Any]:
    for name in names:
        if name in fields:
            return name, fields[name]
    raise LogError(f"{where}: none of {', '.join(names)} is there")


def _number(fields: dict[str, Any], names: tuple[str, ...], where: str) -> float:
    name, value = _field(fields, names, where)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise LogError(f"{where}: {name} = {value!r} is not valid: expected seconds")
    return float(value)


def _whole(fields: dict[str, Any], names: tuple[str, ...], where: str) -> int:
    name, value = _field(fields, names, where)
    try:
        return at_least(name, value, 1)
    except FairprefixError as problem:
        raise LogError(f"{where}: {problem}") from problem


def as_trace(requests: list[Measured], name: str) -> Trace:
    """Return the log as a trace of one client, without prefixes."""
    rows = [TraceRequest(round(r.start_s * NS_PER_S), "client", r.input_tokens, r.output_tokens) for r in requests]
    return Trace(name, rows, 16, has_clients=False)
