"""An index of vLLM's prefix cache, kept up with every block that is cached and every block that is evicted.

`BlockFeed` listens to two places of the block pool: `cache_full_blocks`, which tells which blocks of which request
are cached, and the removal from the pool's map of hashes. `IndexedPrefixes` is the view that policies get: it
follows the index, and looks at the cache itself before a request is offered. Both change nothing in the cache, its
order of eviction or its statistics.

Evictions reach the index when something is cached, and before each step: until then it may show too much. So a
candidate may be found to have less cached than it was ranked by; it takes its new place then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from attrs import define

from fairprefix.adapters.vllm.guard import Shield
from fairprefix.adapters.vllm.shapes import BlockPool, EngineRequest, Theirs
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.core.request import BlockHash, Request

_GROUP_BYTES = 4
"""vLLM's keys are the block's hash and, in this many bytes, the number of its cache group."""
_ONLY_GROUP = bytes(_GROUP_BYTES)
_GONE = -1


@define(eq=False)
class _Run:
    """Blocks of a chain that were cached together, less those that have been evicted."""

    chain: Sequence[BlockHash]
    start: int
    ids: list[int]
    """Of the blocks from `start` on; _GONE where one was evicted before those behind it."""

    def take(self, id: int) -> int:
        """Take out a block; return its place in the chain. Whole chains are evicted from their tails."""
        ids = self.ids
        if ids[-1] == id:
            ids.pop()
            place = self.start + len(ids)
            while ids and ids[-1] == _GONE:
                ids.pop()
            return place
        place = ids.index(id)
        ids[place] = _GONE
        return self.start + place


class BlockFeed:
    """Tells an index what a block pool caches and evicts, in the order in which it happens.

    Nothing in here looks up a hash but what vLLM has just looked up itself: blocks are known by their numbers.

    Args:
        pool: the block pool, with one cache group.
        index: gets to know everything that is cached from now on.
        shield: keeps errors away from the pool.
    """

    def __init__(self, pool: BlockPool, index: PrefixIndex, shield: Shield) -> None:
        self._pool = pool
        self._index = index
        self._shield = shield
        self._runs: list[_Run | None] = [None] * pool.num_gpu_blocks
        """For each block the run that it was cached with."""
        self._removed: list[int] = []
        """Blocks evicted since the last flush; ~block where another copy of the same contents is left."""
        self._cache_full_blocks = pool.cache_full_blocks
        pool.cache_full_blocks = self._cached
        self._listen_to_removals()

    def restart(self, index: PrefixIndex) -> None:
        """Begin anew after the pool has forgotten everything that it had cached."""
        self._index = index
        self._runs = [None] * len(self._runs)
        self._removed.clear()
        self._listen_to_removals()

    def flush(self) -> None:
        """Hand the evictions since the last time to the index, neighbours together."""
        if not self._removed:
            return
        runs = self._runs
        chain: Sequence[BlockHash] = ()
        start = end = 0
        for number in self._removed:
            id = number if number >= 0 else ~number
            run, runs[id] = runs[id], None
            if run is None:
                continue
            place = run.take(id)
            if number < 0:
                continue
            if place == start - 1 and run.chain is chain:
                start = place
                continue
            if end:
                self._index.evicted(chain, start=start, end=end)
            chain, start, end = run.chain, place, place + 1
        if end:
            self._index.evicted(chain, start=start, end=end)
        self._removed.clear()

    def _cached(
        self,
        request: EngineRequest,
        blocks: Sequence[Theirs],
        num_cached_blocks: int,
        num_full_blocks: int,
        *args: Theirs,
        **kwargs: Theirs,
    ) -> None:
        self._cache_full_blocks(request, blocks, num_cached_blocks, num_full_blocks, *args, **kwargs)
        if num_cached_blocks < num_full_blocks:
            self._shield.run(self._note, request, blocks, num_cached_blocks, num_full_blocks)

    def _note(self, request: EngineRequest, blocks: Sequence[Theirs], first: int, end: int) -> None:
        self.flush()
        chain = request.block_hashes
        if getattr(request, "resumable", False):
            chain = tuple(chain[:end])  # a session's next turn takes back what was not computed
        ids = [block.block_id for block in blocks[first:end]]
        run, runs = _Run(chain, first, ids), self._runs
        for id in ids:
            runs[id] = run
        self._index.cached(chain, start=first, end=end)

    def _listen_to_removals(self) -> None:
        # The pool makes a new map when it forgets everything.
        known = self._pool.cached_block_hash_to_block
        pop, another, note = known.pop, known.get_one_block, self._removed.append

        def listening_pop(key: bytes, block_id: int) -> object:
            block: object = pop(key, block_id)
            if block is not None:
                note(block_id if another(key) is None else ~block_id)
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
        """How often more was cached than the index had: never, unless vLLM caches in ways not known here."""
        self.index = PrefixIndex(block_size)
        self._pool = pool
        self._block_size = block_size
        self._dropped = dropped * block_size
        self._followed: dict[str, Request] = {}
        self._all_changed = False
        self._feed = BlockFeed(pool, self.index, shield)

    def refresh(self) -> None:
        """Note the evictions since the last time: once a step."""
        self._feed.flush()

    def watch(self, request: Request) -> int:
        """Start to follow a waiting request; return its cached tokens."""
        self._followed[request.id] = request
        return self._usable(self.index.watch(request))

    def forget(self, id: str) -> None:
        """Stop following a request."""
        del self._followed[id]
        self.index.forget(id)

    def changes(self) -> Iterable[tuple[str, int]]:
        """Return (id, cached tokens) of the requests whose cached prefix has changed since the last call."""
        if self._all_changed:
            self._all_changed = False
            return [(id, self._usable(self.index.confirm(id))) for id in self._followed]
        changes = self.index.changes()
        return [(id, self._usable(tokens)) for id, tokens in changes] if self._dropped else changes

    def confirm(self, id: str) -> int:
        """Return the cached tokens of a request that is about to be offered, from a look at the cache."""
        known = self.index.confirm(id) // self._block_size
        blocks = self._followed[id].blocks
        is_cached = self._pool.cached_block_hash_to_block.get_one_block
        if (known and is_cached(_key(blocks[known - 1])) is None) or (
            known < len(blocks) and is_cached(_key(blocks[known])) is not None
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

    def _correct(self, blocks: Sequence[BlockHash], known: int) -> None:
        is_cached = self._pool.cached_block_hash_to_block.get_one_block
        found = next((i for i, block in enumerate(blocks) if is_cached(_key(block)) is None), len(blocks))
        if found < known:
            self.index.evicted(blocks, start=found, end=known)
        else:
            self.corrections += 1
            self.index.cached(blocks, start=known, end=found)


def _key(block: BlockHash) -> bytes:
    """Return the key under which the pool knows a block of its only cache group."""
    assert isinstance(block, bytes)
    return block + _ONLY_GROUP


def can_be_indexed(scheduler: Theirs) -> bool:
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


def asker(scheduler: Theirs, engine_request: Callable[[Request], EngineRequest]) -> Callable[[Request], int]:
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
