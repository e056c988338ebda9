"""SGLang's cache-aware router, after the description of its parameters (sgl-project/sglang, sgl-router).

While the loads are out of balance (the largest exceeds the smallest by more than `balance_abs`, and by more than
`balance_rel_percent`), the least loaded worker is taken. Otherwise, if more than `match_percent` of the prompt is
cached somewhere, the worker with the longest match; if not, the one with the least in its cache.
"""

from __future__ import annotations

from typing import ClassVar

from fairprefix.core.request import Request
from fairprefix.core.router_base import BaseRouter
from fairprefix.core.workers import Worker, slots_of


class CacheAware(BaseRouter):
    """Locality while the loads are in balance. O(blocks of the prompt + workers)."""

    name: ClassVar[str] = "cache_aware"

    def _choose(self, request: Request, among: int, now: int) -> tuple[Worker, int | None]:  # noqa: ARG002
        slots = slots_of(among)
        loads = [self.workers[slot].load for slot in slots]
        if self.unbalanced(max(loads), min(loads)):
            return self.workers.least_loaded(among), None
        depth, holders = self.index.match(request.blocks, request.namespace, among)
        cached = depth * self.config.block_size
        if cached * 100 > request.input_tokens * self.config.match_percent:
            return self.workers.least_loaded(holders), depth
        return self.workers[min(slots, key=self.index.blocks_of)], None
