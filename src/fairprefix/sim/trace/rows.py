"""Rows of a trace file: where each stands, and its fields checked one by one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from attrs import frozen

from fairprefix.sim.textfile import read_text
from fairprefix.sim.trace.record import NS_PER_SECOND, TraceError

LONGEST_SECONDS = 10**10
"""Arrivals beyond three centuries are a wrong unit, and not a trace."""


@frozen
class Row:
    """One row of a trace file."""

    place: str
    """File and line, as in "trace.csv:12"."""
    fields: Mapping[str, Any]

    def error(self, name: str, expected: str) -> TraceError:
        """Return the error for a bad field."""
        return TraceError(f"{self.place}: {name} = {_shown(self.fields[name])} is not valid: expected {expected}")

    def get(self, name: str) -> Any:  # noqa: ANN401  # a field as the file has it, to be checked by the caller
        """Return a field that has to be there."""
        if name not in self.fields:
            raise TraceError(
                f"{self.place}: field {name!r} is missing; the row has {', '.join(self.fields) or 'none'}"
            )
        return self.fields[name]

    def whole(self, name: str, least: int) -> int:
        """Return a field that is an integer of at least `least`; in a CSV file it is text."""
        value = self.get(name)
        if isinstance(value, str) and _is_integer(value.strip()):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.error(name, f"an integer >= {least}")
        return value

    def duration_ns(self, name: str, unit_ns: int) -> int:
        """Return a duration in units of `unit_ns` as nanoseconds, exactly up to the last of them."""
        value = self.get(name)
        expected = f"a finite number >= 0 and at most {LONGEST_SECONDS} seconds"
        try:
            number = Decimal(value) if isinstance(value, (int, str, Decimal)) else Decimal("NaN")
        except InvalidOperation as problem:
            raise self.error(name, expected) from problem
        longest = LONGEST_SECONDS * NS_PER_SECOND // unit_ns
        if isinstance(value, bool) or not number.is_finite() or not 0 <= number <= longest:
            raise self.error(name, expected)
        return round(number * unit_ns)


def json_rows(path: Path) -> Iterator[Row]:
    """Yield the rows of a file with one JSON object a line; numbers with a fraction come as Decimal."""
    for number, line in enumerate(io.StringIO(read_text(path, TraceError)), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            fields = json.loads(line, parse_float=Decimal)
        except (ValueError, RecursionError) as problem:
            raise TraceError(f"{place}: is not valid JSON: {problem}") from problem
        if not isinstance(fields, dict):
            raise TraceError(f"{place}: {_shown(fields)} is not valid: expected a JSON object")
        yield Row(place, fields)


def csv_rows(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Yield the rows of a CSV file whose header has all `columns`."""
    reader = csv.reader(io.StringIO(read_text(path, TraceError), newline=""))
    header = [name.strip() for name in _next_line(reader, path) or ()]
    for column in columns:
        if column not in header:
            raise TraceError(f"{path}:1: column {column!r} is missing; the header has {', '.join(header)}")
    while (values := _next_line(reader, path)) is not None:
        place = f"{path}:{reader.line_num}"
        if values and len(values) != len(header):
            raise TraceError(f"{place}: the row has {len(values)} fields, expected {len(header)} as in the header")
        if values:
            yield Row(place, dict(zip(header, values, strict=True)))


def _next_line(reader: Any, path: Path) -> list[str] | None:  # noqa: ANN401  # the type of csv.reader has no public name
    try:
        return next(reader, None)
    except csv.Error as problem:
        raise TraceError(f"{path}:{reader.line_num}: is not valid CSV: {problem}") from problem


def _is_integer(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit() and len(text) < 20  # noqa: PLR2004  # fits 64 bits


def _shown(value: object) -> str:
    """Return a value as an error message shows it: as in the file, and not pages of it."""
    text = str(value) if isinstance(value, Decimal) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004  # fits a line
