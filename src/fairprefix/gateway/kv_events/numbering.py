"""Which batch comes next in a stream that may lose, repeat and begin anew."""

from __future__ import annotations

from enum import Enum

from attrs import define


class Verdict(Enum):
    """What to do with a batch that has just come in."""

    NEXT = "next"
    """It is the one that was expected."""
    KNOWN = "known"
    """A replay has brought it already."""
    GAP = "gap"
    """Others before it are missing."""
    RESTART = "restart"
    """The publisher has begun anew: what it had told before is void."""


@define
class Numbering:
    """Follows the numbers of a publisher, which count up from 0 for as long as it lives."""

    expected: int = 0
    """The number of the next batch."""
    last_live: int = -1
    """The largest number that came by itself, and not in a replay; -1 since the last connection."""

    def judge(self, number: int) -> Verdict:
        """Judge a batch that came by itself."""
        if number <= self.last_live:
            return Verdict.RESTART
        self.last_live = number
        if number < self.expected:
            return Verdict.KNOWN
        return Verdict.NEXT if number == self.expected else Verdict.GAP

    def begin(self, number: int = 0) -> None:
        """Begin anew, with `number` as the next one."""
        self.expected, self.last_live = number, -1
