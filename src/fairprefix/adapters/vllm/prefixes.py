"""Which view of the cache a policy gets in this engine."""

from __future__ import annotations

from collections.abc import Callable

from fairprefix.adapters.vllm.cacheindex import IndexedPrefixes, asker, can_be_indexed
from fairprefix.adapters.vllm.guard import Shield
from fairprefix.adapters.vllm.shapes import EngineRequest, Theirs
from fairprefix.core.prefixes import AskedPrefixes, NoPrefixes
from fairprefix.core.request import Request

View = IndexedPrefixes | AskedPrefixes | NoPrefixes


def make_view(
    scheduler: Theirs,
    engine_request: Callable[[Request], EngineRequest],
    shield: Shield,
    *,
    looks: bool,
) -> View:
    """Return the view for a scheduler's cache.

    Args:
        scheduler: vLLM's.
        engine_request: finds vLLM's object for a request.
        shield: keeps errors away from the cache.
        looks: whether the policy looks at the cache at all.
    """
    manager = scheduler.kv_cache_manager
    if not (looks and manager.enable_caching):
        return NoPrefixes()
    if not can_be_indexed(scheduler):
        return AskedPrefixes(asker(scheduler, engine_request))
    drops = getattr(scheduler, "use_eagle_block_drop", getattr(scheduler, "use_eagle", False))
    return IndexedPrefixes(manager.block_pool, scheduler.block_size, shield, dropped=int(drops))
