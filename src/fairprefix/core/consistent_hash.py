"""Routers that send equal beginnings of prompts to the same place, by hash alone.

* `consistent_hash`: consistent hashing of the prompt's beginning with bounded loads (V. Mirrokni, M. Thorup and
  M. Zadimoghaddam, 2018): from its point on the ring a request goes to the first worker whose load is below
  `load_percent` of the average.
* `dualmap`: two candidates by two hashes, after DualMap (arXiv 2602.06502): the one with the longer match, unless
  its load is out of balance with the other's. (The paper switches when a latency target is in danger; a router
  that is told of no latencies goes by load.)
"""

from __future__ import annotations

from typing import ClassVar

from fairprefix.core.hashing import Ring, drawn, hash64, prefix_key
from fairprefix.core.request import Request
from fairprefix.core.router_base import BaseRouter
from fairprefix.core.router_config import RouterConfig
from fairprefix.core.worker_index import WorkerIndex
from fairprefix.core.workers import Worker, slots_of


class ConsistentHash(BaseRouter):
    """The next worker on the ring with room. O(points on the ring) at worst, O(1) in the mean."""

    name: ClassVar[str] = "consistent_hash"

    def __init__(self, config: RouterConfig, index: WorkerIndex | None = None) -> None:
        super().__init__(config, index)
        self._ring = Ring(config.hash_points, config.seed)

    def _choose(self, request: Request, among: int, now: int) -> tuple[Worker, int | None]:  # noqa: ARG002
        slots = slots_of(among)
        # Below the given percentage of the average, this request included: somebody always is.
        total = 1 + sum(self.workers[slot].load for slot in slots)
        limit = total * self.config.load_percent
        place = hash64(prefix_key(request, self.config.hash_blocks))
        slot = next(
            slot
            for slot in self._ring.from_point(place)
            if among >> slot & 1 and self.workers[slot].load * 100 * len(slots) < limit
        )
        return self.workers[slot], None

    def _joined(self, worker: Worker) -> None:
        self._ring.add(worker.name, worker.slot)

    def _left(self, worker: Worker) -> None:
        self._ring.remove(worker.slot)

    def _load_state(self, state: object) -> None:  # noqa: ARG002 (the ring follows from the workers)
        for worker in self.workers:
            self._ring.add(worker.name, worker.slot)


class DualMap(BaseRouter):
    """One of two candidates. O(blocks of the prompt)."""

    name: ClassVar[str] = "dualmap"

    def _choose(self, request: Request, among: int, now: int) -> tuple[Worker, int | None]:  # noqa: ARG002
        slots = slots_of(among)
        key = prefix_key(request, self.config.hash_blocks)
        both = 0
        for slot in drawn(f"{self.config.seed}/{key}", len(slots)):
            both |= 1 << slots[slot]
        depth, holders = self.index.match(request.blocks, request.namespace, both)
        local = self.workers.least_loaded(holders)
        other = self.workers.least_loaded(both)
        if self.unbalanced(local.load, other.load):
            return other, None
        return local, depth
