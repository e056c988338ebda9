"""Text for people: tables, and numbers in them."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

NOTHING = "-"
"""Stands where there is no figure."""
NAME_WIDTH = 24
"""Longer names of clients are cut in tables."""

SMALL = 100
"""Figures below this are shown with decimals."""


def emit(text: str, stream: TextIO | None = None) -> None:
    """Print text, with an escape for what the stream cannot encode; standard output unless told otherwise."""
    stream = sys.stdout if stream is None else stream
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)


def printable(text: str) -> str:
    """Return text whose control characters are escaped, but line ends: names in a trace are not to be trusted."""
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


def client_name(name: str) -> str:
    """Return a client's name as tables show it."""
    shown = printable(name).replace("\n", "\\n")
    return shown if len(shown) <= NAME_WIDTH else f"{shown[: NAME_WIDTH - 3]}..."


def text_table(rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """Return rows (the first one is the header) with aligned columns; the first `left` to the left.

    A row without fields becomes an empty line; one with a single field is a heading.
    """
    lines = list(rows)
    columns = max(len(line) for line in lines)
    cells = [line for line in lines if len(line) > 1]
    widths = [max(len(line[column]) for line in cells if column < len(line)) for column in range(columns)]
    return "\n".join(_line(line, widths, left) for line in lines)


def _line(fields: Sequence[str], widths: Sequence[int], left: int) -> str:
    if len(fields) <= 1:
        return "".join(fields)
    padded = [
        field.ljust(width) if column < left else field.rjust(width)
        for column, (field, width) in enumerate(zip(fields, widths, strict=False))
    ]
    return "  ".join(padded).rstrip()


def numbers(values: Sequence[float | None], digits: int | None) -> list[str]:
    """Return the figures of one row, which all get the same decimals.

    Args:
        values: the figures; None where there is none.
        digits: how many decimals; None: one if a figure is small, else none.
    """
    if digits is None:
        digits = 1 if any(value is not None and abs(value) < SMALL for value in values) else 0
    return [NOTHING if value is None else f"{value:,.{digits}f}" for value in values]


def ratio(value: float) -> str:
    """Return a ratio with about two significant digits, for a sentence."""
    if value < 1:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"  # noqa: PLR2004  # one digit before the point
