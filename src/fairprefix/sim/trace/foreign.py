"""Lengths in traces that were recorded elsewhere: a zero is corrected and counted, not refused."""

from __future__ import annotations

from attrs import define

from fairprefix.sim.trace.rows import Row


@define
class Lengths:
    """Reads lengths of one trace and remembers how many of them it had to raise to 1."""

    raised: int = 0

    def read(self, row: Row, name: str) -> int:
        """Return a length in tokens, at least 1.

        Raises:
            TraceError: it is no integer, or negative.
        """
        length = row.whole(name, 0)
        self.raised += not length
        return max(length, 1)

    def notes(self) -> tuple[str, ...]:
        """Return what belongs into the trace's notes."""
        return (f"{self.raised} lengths of 0 tokens counted as 1",) if self.raised else ()
