"""First come, first served, from nothing but what a host has reported: what is left when a policy fails.

Nothing in here can raise: whatever the host reports is taken as the truth.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from attrs import define

from fairprefix.core.lane import Stage
from fairprefix.core.request import Request


@define(eq=False)
class Live:
    """A request that is not finished, as its host has reported it."""

    request: Request
    seq: int
    """Its place in the order of arrival."""
    arrived_ns: int
    stage: Stage = Stage.QUEUED
    admissions: int = 0
    output: int = 0
    """Output tokens as last reported for it alone."""
    reserve: int = 0
    """Output tokens that it may still produce, as of then."""


class ArrivalOrder:
    """Offers what waits in the order of arrival; deferred requests are offered again in the next pass.

    Complexity: O(log n) for every operation.
    """

    def __init__(self, live: Iterable[Live]) -> None:
        self._seqs: list[int] = []
        self._entries: dict[int, Live] = {}
        """By place in the order of arrival; an entry stays until its place reaches the top of the heap."""
        self._set_aside: list[Live] = []
        for entry in live:
            if entry.stage in (Stage.QUEUED, Stage.DEFERRED):
                entry.stage = Stage.QUEUED
                self.queued(entry)

    def begin_pass(self) -> None:
        """Offer again what was deferred."""
        set_aside, self._set_aside = self._set_aside, []
        for entry in set_aside:
            if entry.stage is Stage.DEFERRED:
                entry.stage = Stage.QUEUED
                self.queued(entry)

    def queued(self, entry: Live) -> None:
        """Queue an entry in its old place."""
        heapq.heappush(self._seqs, entry.seq)
        self._entries[entry.seq] = entry

    def deferred(self, entry: Live) -> None:
        """Set an entry aside until the next pass."""
        self._set_aside.append(entry)

    def first(self) -> Live | None:
        """Return who has waited the longest."""
        while self._seqs:
            entry = self._entries.get(self._seqs[0])
            if entry is not None and entry.stage is Stage.QUEUED:
                return entry
            self._entries.pop(heapq.heappop(self._seqs), None)
        return None

    def first_few(self, limit: int) -> list[Request]:
        """Return the `limit` who have waited the longest."""
        found: dict[int, Live] = {}
        while len(found) < limit and (entry := self.first()):
            found[heapq.heappop(self._seqs)] = entry
        for entry in found.values():
            self.queued(entry)
        return [entry.request for entry in found.values()]
