"""An index of vLLM's prefix cache, kept up with every block that is cached and every block that is evicted.

`BlockFeed` listens to two places of the block pool: `cache_full_blocks`, which tells which blocks of which request
are cached, and the removal from the pool's map of hashes. `IndexedPrefixes` is the view that policies get: it
follows the index, and looks at the cache itself before a request is offered. Both change nothing in the cache, its
order of eviction or its statistics.

The index is told when it is about to be looked at: see `BlockFeed`. Within a pass that is when something has been
cached that others wait for; else the order stays that of the first look. Whoever is offered is looked up anyway.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence

from attrs import define

from fairprefix.adapters.vllm.guard import Shield
from fairprefix.adapters.vllm.shapes import BlockPool, EngineRequest, Theirs
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.core.request import BlockHash, Request

_GROUP_BYTES = 4
"""vLLM's keys are the block's hash and, in this many bytes, the number of its cache group."""
_ONLY_GROUP = bytes(_GROUP_BYTES)
"""What follows a block's hash in the key under which a pool with one cache group knows it."""
_MOST_PENDING = 512
"""Runs of evictions that wait to be handed to the index, at most: what a look has to catch up with stays small."""
_PER_ADMISSION = 4
"""Waiting requests with a longer cached prefix that are moved up between two admissions of a pass."""


@define(eq=False)
class _Run:
    """Blocks of a chain that have been cached, or evicted, one after the other."""

    chain: Sequence[BlockHash]
    start: int
    end: int


_NOWHERE = _Run((), 0, 0)


class BlockFeed:
    """Tells an index what a block pool has cached and evicted, once somebody is about to look at the index.

    Until then it is written down: most steps of a busy engine admit nobody, and what a request has cached over
    many of them is one run; so is what has been evicted of it, from its end. Evictions are told first, so that
    what has been cached again stays; what was cached since the last time and is evicted already is told at once.
    A block that has a copy left is not told as evicted. That is looked up when it happens: the pool has just held
    the block's key in its hands, and finds it in no time.

    Args:
        pool: the block pool, with one cache group.
        index: gets to know everything that is cached from now on.
        shield: keeps errors away from the pool.
    """

    def __init__(self, pool: BlockPool, index: PrefixIndex, shield: Shield) -> None:
        self._pool = pool
        self._index = index
        self._shield = shield
        self._chains: list[Sequence[Theirs] | None] = [None] * pool.num_gpu_blocks
        """For each block the chain that it holds a block of."""
        self._depths = array("q", bytes(8 * pool.num_gpu_blocks))
        """For each block its place in there; beside the chains, not with them: no object per block."""
        self._cached: dict[int, _Run] = {}
        """Runs that the index has not been told of, by the identity of their chains."""
        self._removed: list[_Run] = []
        """What was evicted since the last flush."""
        self._removing = _NOWHERE
        """The last of these runs, which may go on."""
        self.awaited: bool = False
        """Whether others wait for something that was cached since the last flush."""
        self._cache_full_blocks = pool.cache_full_blocks
        pool.cache_full_blocks = self._caching
        self._listen_to_removals()

    def restart(self, index: PrefixIndex) -> None:
        """Begin anew after the pool has forgotten everything that it had cached."""
        self._index = index
        self._chains = [None] * len(self._chains)
        self._cached.clear()
        self._forget_removals()
        self._listen_to_removals()

    def flush(self) -> bool:
        """Hand over what was cached and evicted since the last time; return whether there was anything."""
        if not (self._cached or self._removed):
            return False
        self.awaited = False
        self._shield.run(self._hand_over)
        return True

    def _hand_over(self) -> None:
        index = self._index
        for run in self._removed:
            index.evicted(run.chain, start=run.start, end=run.end)
        self._forget_removals()
        for run in self._cached.values():
            index.cached(run.chain, start=run.start, end=run.end)
        self._cached.clear()

    def _forget_removals(self) -> None:
        self._removed.clear()
        self._removing = _NOWHERE

    def _caching(
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
        chain = request.block_hashes
        if getattr(request, "resumable", False):
            chain = tuple(chain[:end])  # a session's next turn takes back what was not computed
        chains, depths = self._chains, self._depths
        for place, block in enumerate(blocks[first:end], first):
            id_of_block = block.block_id
            chains[id_of_block] = chain
            depths[id_of_block] = place
        run = self._cached.get(id(chain))
        if run is not None and run.end == first:
            run.end = end
            return
        if run is not None:
            self._hand_over()
        self._cached[id(chain)] = _Run(chain, first, end)
        if self._index.lacking(chain[first]) > 1:  # the request itself may be among them
            self.awaited = True
        if self._removing.chain is chain:
            self._removing = _NOWHERE  # what goes on below may have been cached anew

    def _listen_to_removals(self) -> None:
        # The pool makes a new map when it forgets everything.
        known = self._pool.cached_block_hash_to_block
        pop, has_copy = known.pop, _membership(known)
        chains, depths = self._chains, self._depths

        # Called for every block that is evicted.
        def listening_pop(key: bytes, block_id: int) -> object:
            block: object = pop(key, block_id)
            if block is not None and (chain := chains[block_id]) is not None:
                chains[block_id] = None
                place, run = depths[block_id], self._removing
                if has_copy(key):
                    self._tell_first(chain, place)
                elif chain is run.chain and place == run.start - 1:
                    run.start = place
                else:
                    self._tell_first(chain, place)
                    self._begin_removal(chain, place)
            return block

        known.pop = listening_pop

    def _tell_first(self, chain: Sequence[BlockHash], place: int) -> None:
        """Tell the index of a block that is evicted, should it not know that it was cached."""
        pending = self._cached.get(id(chain))
        if pending is not None and place >= pending.start:
            self.flush()

    def _begin_removal(self, chain: Sequence[BlockHash], place: int) -> None:
        if len(self._removed) >= _MOST_PENDING:
            self.flush()
        self._removing = _Run(chain, place, place + 1)
        self._removed.append(self._removing)


def _membership(known: Theirs) -> Callable[[bytes], bool]:
    """Return what tells whether a key stands in the pool's map of hashes."""
    blocks = getattr(known, "_cache", None)
    if isinstance(blocks, dict):
        return blocks.__contains__  # a third of the time of the map's own method
    return lambda key: known.get_one_block(key) is not None


class IndexedPrefixes:
    """The view for policies: what the index knows, checked against the cache before a request is offered.

    Args:
        pool: the block pool.
        block_size: tokens per block.
        shield: keeps errors away from the pool.
        dropped: blocks at the end of a match that are computed again all the same (speculation with EAGLE: 1).
    """

    def __init__(self, pool: BlockPool, block_size: int, shield: Shield, dropped: int = 0) -> None:
        self.corrections: int = 0
        """How often more was cached than the index had: never, unless vLLM caches in ways not known here."""
        self.index: PrefixIndex = PrefixIndex(block_size)
        self._pool = pool
        self._block_size = block_size
        self._dropped = dropped * block_size
        self._followed: dict[str, Request] = {}
        self._all_changed = False
        self._new_pass = True
        self._feed = BlockFeed(pool, self.index, shield)

    def refresh(self) -> None:
        """A pass begins."""
        self._new_pass = True

    def catch_up(self) -> bool:
        """Tell the index what has been cached and evicted; return whether there was anything."""
        return self._feed.flush()

    def watch(self, request: Request) -> int:
        """Start to follow a waiting request; return its cached tokens as of the last look."""
        self._followed[request.id] = request
        return self._usable(self.index.watch(request))

    def forget(self, id: str) -> None:
        """Stop following a request."""
        del self._followed[id]
        self.index.forget(id)

    def changes(self) -> Iterable[tuple[str, int]]:
        """Return (id, cached tokens) of requests whose cached prefix has changed.

        Some of them, if they are many: at the first look of a pass as many as the index likes; when others wait
        for what has just been cached, a few of these, so that those are admitted together who share it.
        """
        if not (self._new_pass or self._feed.awaited):
            return ()
        self._feed.flush()
        if self._all_changed:
            self._all_changed = False
            return [(id, self._usable(self.index.confirm(id))) for id in self._followed]
        changes = self.index.changes() if self._new_pass else self.index.gains(_PER_ADMISSION)
        self._new_pass = False
        return [(id, self._usable(tokens)) for id, tokens in changes] if self._dropped else changes

    def confirm(self, id: str) -> int:
        """Return the cached tokens of a request that is about to be offered, from a look at the cache."""
        tokens = self.index.confirm(id)
        blocks: Sequence[Theirs] = self._followed[id].blocks
        if not self._is_exact(blocks, tokens // self._block_size):
            if self.catch_up():
                tokens = self.index.confirm(id)
            if not self._is_exact(blocks, tokens // self._block_size):
                self._correct(blocks, tokens // self._block_size)
                tokens = self.index.confirm(id)
        return self._usable(tokens) if self._dropped else tokens

    def _is_exact(self, blocks: Sequence[Theirs], known: int) -> bool:
        """Return whether the match of a chain in the cache itself ends after `known` blocks."""
        is_cached = self._pool.cached_block_hash_to_block.get_one_block
        return (not known or is_cached(blocks[known - 1] + _ONLY_GROUP) is not None) and (
            known == len(blocks) or is_cached(blocks[known] + _ONLY_GROUP) is None
        )

    def reset(self) -> None:
        """The cache has forgotten everything. O(waiting requests)."""
        self.index = PrefixIndex(self._block_size)
        self._feed.restart(self.index)
        for request in self._followed.values():
            self.index.watch(request)
        self._all_changed = self._new_pass = True

    def _usable(self, tokens: int) -> int:
        return max(tokens - self._dropped, 0)

    def _correct(self, blocks: Sequence[Theirs], known: int) -> None:
        is_cached = self._pool.cached_block_hash_to_block.get_one_block
        found = next((i for i, block in enumerate(blocks) if is_cached(block + _ONLY_GROUP) is None), len(blocks))
        if found < known:
            self.index.evicted(blocks, start=found, end=known)
        else:
            self.corrections += 1
            self.index.cached(blocks, start=known, end=found)


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
