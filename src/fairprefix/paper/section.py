"""What a figure becomes: tables, verdicts and pictures, whatever they are shown in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from attrs import Factory, frozen

from fairprefix.paper.rules import Scale

Result = dict[str, Any]
"""What a task returns: JSON-serialisable figures."""


class Task(Protocol):
    """A piece of work whose result is kept."""

    @property
    def key(self) -> str:
        """Return the name of its result: the same for the same work."""
        ...

    @property
    def title(self) -> str:
        """Return what progress calls it."""
        ...

    def carry_out(self) -> Result:
        """Do it."""
        ...


@frozen
class Table:
    """Rows of text; the first column is a heading."""

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@frozen
class Verdict:
    """One line about one claim of the paper."""

    claim: str
    holds: bool | None
    """None: neither, or not comparable."""
    why: str

    @property
    def word(self) -> str:
        """Return how tables put it."""
        return {True: "shape holds", False: "does not hold", None: "open"}[self.holds]


@frozen
class Section:
    """A figure of the paper, ours beside it."""

    name: str
    title: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    pictures: Mapping[str, bytes] = Factory(dict)
    """PNG files by name."""


@frozen
class Figure:
    """A figure: what has to be run for it, and what is made of the results."""

    name: str
    title: str
    tasks: Callable[[Scale], Sequence[Task]]
    build: Callable[[Scale, Mapping[str, Result]], Section]
    """From results by key."""


def number(value: float | None, digits: int = 0) -> str:
    """Return a figure as tables show it."""
    return "–" if value is None else f"{value:,.{digits}f}"


def ratio(value: float | None, other: float | None) -> float | None:
    """Return value / other, None where there is nothing to divide."""
    return value / other if value is not None and other else None


def times(value: float | None) -> str:
    """Return a ratio as tables show it."""
    return "–" if value is None else f"{value:.2f}×"
