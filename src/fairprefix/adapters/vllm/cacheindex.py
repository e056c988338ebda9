"""An index of vLLM's prefix cache, kept up with every block that is cached and every block that is evicted.

`BlockFeed` listens to two places of the block pool: `cache_full_blocks`, which tells which blocks of which request
are cached, and the removal from the pool's map of hashes. `IndexedPrefixes` is the view that policies get: it
follows the index, and looks at the cache itself before a request is offered. Both change nothing in the cache, its
order of eviction or its statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fairprefix.adapters.vllm.guard import Shield
from fairprefix.adapters.vllm.shapes import BlockPool, EngineRequest
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.core.request import BlockHash, Request

_GROUP_BYTES = 4
"""vLLM's keys are the block's hash and, in this many bytes, the number of its cache group."""


class BlockFeed:
    """Tells an index what a block pool caches and evicts.

    Args:
        pool: the block pool, with one cache group.
        index: gets to know everything that is cached from now on.
        shield: keeps errors away from the pool.
    """

    def __init__(self, pool: BlockPool, index: PrefixIndex, shield: Shield) -> None:
        self._pool = pool
        self._index = index
        self._shield = shield
        self._places: dict[BlockHash, tuple[Sequence[BlockHash], int]] = {}
        """For each cached block the chain that it was cached with, and its place in there."""
        self._removed: list[bytes] = []
        self._cache_full_blocks = pool.cache_full_blocks
        pool.cache_full_blocks = self._cached
        self._listen_to_removals()

    def restart(self, index: PrefixIndex) -> None:
        """Begin anew after the pool has forgotten everything that it had cached."""
        self._index = index
        self._places.clear()
        self._removed.clear()
        self._listen_to_removals()

    def flush(self) -> None:
        """Hand the evictions since the last time to the index, neighbours together."""
        if not self._removed:
            return
        removed = self._removed[:]
        self._removed.clear()
        still_there = self._pool.cached_block_hash_to_block.get_one_block
        chain: Sequence[BlockHash] = ()
        start = end = 0
        for key in removed:
            place = None if still_there(key) else self._places.pop(key[:-_GROUP_BYTES], None)
            if place is None:
                continue  # another copy of the block is left
            # Whole chains are evicted from their tails: almost always the next one is the one before.
            if place[0] is chain and place[1] == start - 1:
                start -= 1
                continue
            if end:
                self._index.evicted(chain, start=start, end=end)
            chain, start = place
            end = start + 1
        if end:
            self._index.evicted(chain, start=start, end=end)

    def _cached(
        self,
        request: EngineRequest,
        blocks: object,
        num_cached_blocks: int,
        num_full_blocks: int,
        *args: Any,  # noqa: ANN401 (passed on)
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        self._shield.run(self.flush)
        self._cache_full_blocks(request, blocks, num_cached_blocks, num_full_blocks, *args, **kwargs)
        if num_cached_blocks < num_full_blocks:
            self._shield.run(self._note, request, num_cached_blocks, num_full_blocks)

    def _note(self, request: EngineRequest, first: int, end: int) -> None:
        chain = request.block_hashes
        if getattr(request, "resumable", False):
            chain = tuple(chain[:end])  # a session's next turn takes back what was not computed
        places = self._places
        for i in range(first, end):
            places.setdefault(chain[i], (chain, i))
        self._index.cached(chain, start=first, end=end)

    def _listen_to_removals(self) -> None:
        # The pool makes a new map when it forgets everything.
        known = self._pool.cached_block_hash_to_block
        pop, removed = known.pop, self._removed

        def listening_pop(key: bytes, block_id: int) -> object:
            block: object = pop(key, block_id)
            if block is not None:
                removed.append(key)
            return block

        known.pop = listening_pop


class IndexedPrefixes:
    """The view for policies: what the index knows, checked against the cache before a request is offered.

    Args:
        pool: the block pool.
        block_size: tokens per block.
        shield: keeps errors away from the pool.
        dropped: blocks at the end of a match that are computed again all the same (speculation with EAGLE: 1).
    """

    def __init__(self, pool: BlockPool, block_size: int, shield: Shield, dropped: int = 0) -> None:
        self.corrections = 0
        """How often the cache was not as the index had it."""
        self.index = PrefixIndex(block_size)
        self._pool = pool
        self._block_size = block_size
        self._dropped = dropped * block_size
        self._followed: dict[str, Request] = {}
        self._all_changed = False
        self._feed = BlockFeed(pool, self.index, shield)

    def watch(self, request: Request) -> int:
        """Start to follow a waiting request; return its cached tokens."""
        self._feed.flush()
        self._followed[request.id] = request
        return self._usable(self.index.watch(request))

    def forget(self, id: str) -> None:
        """Stop following a request."""
        del self._followed[id]
        self.index.forget(id)

    def changes(self) -> Iterable[tuple[str, int]]:
        """Return (id, cached tokens) of the requests whose cached prefix has changed since the last call."""
        self._feed.flush()
        if self._all_changed:
            self._all_changed = False
            return [(id, self._usable(self.index.confirm(id))) for id in self._followed]
        changes = self.index.changes()
        return [(id, self._usable(tokens)) for id, tokens in changes] if self._dropped else changes

    def confirm(self, id: str) -> int:
        """Return the cached tokens of a request that is about to be offered, from a look at the cache."""
        known = self.index.confirm(id) // self._block_size
        blocks = self._followed[id].blocks
        if (known and not self._is_cached(blocks[known - 1])) or (
            known < len(blocks) and self._is_cached(blocks[known])
        ):
            self._correct(blocks, known)
        return self._usable(self.index.confirm(id))

    def reset(self) -> None:
        """The cache has forgotten everything. O(waiting requests)."""
        self.index = PrefixIndex(self._block_size)
        self._feed.restart(self.index)
        for request in self._followed.values():
            self.index.watch(request)
        self._all_changed = True

    def _usable(self, tokens: int) -> int:
        return max(tokens - self._dropped, 0)

    def _is_cached(self, block: BlockHash) -> bool:
        return self._pool.get_cached_block(block, [0]) is not None

    def _correct(self, blocks: Sequence[BlockHash], known: int) -> None:
        self.corrections += 1
        found = next((i for i, block in enumerate(blocks) if not self._is_cached(block)), len(blocks))
        if found < known:
            self.index.evicted(blocks, start=found, end=known)
        else:
            self.index.cached(blocks, start=known, end=found)


def can_be_indexed(scheduler: Any) -> bool:  # noqa: ANN401 (vLLM's own type)
    """Return whether a match is a run of blocks from the start of the prompt, in blocks of one size.

    With sliding windows, state-space layers or several cache groups it is not: there the cache is asked.
    """
    manager = scheduler.kv_cache_manager
    groups = scheduler.kv_cache_config.kv_cache_groups
    managers = manager.coordinator.single_type_managers
    return (
        len(groups) == len(managers) == 1
        and type(managers[0]).__name__ == "FullAttentionManager"
        and managers[0].block_size == getattr(scheduler, "hash_block_size", scheduler.block_size)
        and hasattr(manager.block_pool, "cache_full_blocks")
        and hasattr(manager.block_pool.cached_block_hash_to_block, "get_one_block")
    )


def asker(scheduler: Any, engine_request: Callable[[Request], EngineRequest]) -> Callable[[Request], int]:  # noqa: ANN401
    """Return a function that asks vLLM's cache for the cached tokens of a request.

    It asks as an admission does, but below the layer that counts queries and hits. O(cached blocks).
    """
    coordinator = scheduler.kv_cache_manager.coordinator

    def ask(request: Request) -> int:
        found = engine_request(request)
        if getattr(found, "skip_reading_prefix_cache", False):
            return 0
        longest = found.num_tokens - 1
        return min(int(coordinator.find_longest_cache_hit(found.block_hashes, longest)[1]), longest)

    return ask
