"""Routers that look at nothing but how many requests each worker has.

* `least_loaded`: the fewest requests, of several the one chosen longest ago ("join the shortest queue").
* `power_of_two`: the less loaded of two workers that a hash draws (M. Mitzenmacher, "The Power of Two Choices in
  Randomized Load Balancing", 2001). The draw is a hash of a counter: the same calls give the same choices.
"""

from __future__ import annotations

from typing import ClassVar

from fairprefix.core.hashing import drawn
from fairprefix.core.request import Request
from fairprefix.core.router_base import BaseRouter
from fairprefix.core.workers import Worker, slots_of


class LeastLoaded(BaseRouter):
    """The worker with the fewest requests. O(workers)."""

    name: ClassVar[str] = "least_loaded"

    def _choose(self, request: Request, among: int, now: int) -> tuple[Worker, int | None]:  # noqa: ARG002
        return self.workers.least_loaded(among), None


class PowerOfTwo(BaseRouter):
    """The less loaded of two. O(1) beside the index."""

    name: ClassVar[str] = "power_of_two"

    def _choose(self, request: Request, among: int, now: int) -> tuple[Worker, int | None]:  # noqa: ARG002
        slots = slots_of(among)
        first, second = drawn(f"{self.config.seed}/{self.workers.turn}", len(slots))
        return self.workers.least_loaded(1 << slots[first] | 1 << slots[second]), None
