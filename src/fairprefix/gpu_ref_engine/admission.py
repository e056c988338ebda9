"""Whether a request finds room: by estimate, with preemption when that was too bold, or by full reservation."""

from __future__ import annotations

from typing import Protocol

from fairprefix.gpu_ref_engine.job import Job
from fairprefix.gpu_ref_engine.kvcache import KVCache, Match

_BOLDEST, _FIRST, _MOST_CAREFUL = 0.1, 0.5, 1.0
_DECAY = 0.998
"""Per step: halves the estimate in some 350 steps without a preemption."""
_RETREAT = 1.5
"""A preemption makes the estimate so much more careful."""


class Room(Protocol):
    """Decides whether a request may start, and keeps count of those that run."""

    def admits(self, job: Job, match: Match) -> bool:
        """Return whether a waiting request with this cached prefix fits beside those that run."""
        ...

    def started(self, job: Job) -> None:
        """Note that a request runs; it holds its pages."""
        ...

    def grew(self, pages: int) -> None:
        """Note that running requests got more pages."""
        ...

    def sampled(self, count: int) -> None:
        """Note that output tokens of running requests were launched."""
        ...

    def stopped(self, job: Job) -> None:
        """Note that a request runs no more; it still holds its pages."""
        ...

    def retracted(self) -> None:
        """Note that a request had to be preempted."""
        ...


def new_pages(cache: KVCache, match: Match, tokens: int) -> int:
    """Return how many pages a request of `tokens` tokens would take from what is available."""
    return cache.pages_for(tokens) - len(match.nodes) + match.revived


class FullRoom:
    """A request starts when its prompt and its longest output fit: nothing is ever preempted."""

    def __init__(self, cache: KVCache) -> None:
        self._cache = cache
        self._promised = 0
        """Pages that running requests may still ask for."""

    def admits(self, job: Job, match: Match) -> bool:
        """Return whether everything that it may ever need can be had."""
        needed = new_pages(self._cache, match, self._most(job))
        return needed + self._promised <= self._cache.available

    def started(self, job: Job) -> None:
        """Promise it the pages of its output."""
        assert job.holding is not None
        self._promised += self._cache.pages_for(self._most(job)) - len(job.holding.pages)

    def grew(self, pages: int) -> None:
        """Take given pages from what is promised."""
        self._promised -= pages

    def sampled(self, count: int) -> None:
        """Do nothing: pages count, not tokens."""

    def stopped(self, job: Job) -> None:
        """Take back the promise."""
        assert job.holding is not None
        self._promised -= self._cache.pages_for(self._most(job)) - len(job.holding.pages)

    def retracted(self) -> None:
        """Do nothing; it does not happen."""

    @staticmethod
    def _most(job: Job) -> int:
        # The last output token is never fed back.
        return job.request.input_tokens + job.params.max_tokens - 1


class EstimatedRoom:
    """A request starts when its prompt fits beside a share of the output that all may still produce.

    The share falls while all goes well, and rises when a request had to be preempted.
    """

    def __init__(self, cache: KVCache) -> None:
        self.share: float = _FIRST
        self._cache = cache
        self._running = 0
        self._outputs = 0
        """Tokens that running requests may still sample."""

    def admits(self, job: Job, match: Match) -> bool:
        """Return whether it fits, by the estimate; alone, it needs room for itself only."""
        needed = new_pages(self._cache, match, len(job.tokens))
        if self._running:
            expected = int(self.share * (self._outputs + job.remaining))
            needed += self._cache.pages_for(expected) + self._running
        return needed <= self._cache.available

    def started(self, job: Job) -> None:
        """Count its output in."""
        self._running += 1
        self._outputs += job.remaining

    def grew(self, pages: int) -> None:
        """Do nothing: tokens count, not pages."""

    def sampled(self, count: int) -> None:
        """Count output that has come, and grow bolder."""
        self._outputs -= count
        self.share = max(self.share * _DECAY, _BOLDEST)

    def stopped(self, job: Job) -> None:
        """Count out what it did not produce."""
        self._running -= 1
        self._outputs -= job.remaining

    def retracted(self) -> None:
        """Grow more careful."""
        self.share = min(self.share * _RETREAT, _MOST_CAREFUL)
