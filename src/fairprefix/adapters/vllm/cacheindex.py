"""The view of vLLM's prefix cache that policies get: it hears of every block that is cached and every one evicted.

It listens to two places of the block pool: `cache_full_blocks`, which tells which blocks of which request are
cached, and the removal from the pool's map of hashes. Whom that concerns is told by `matches`. Neither the cache
is changed nor its order of eviction or its statistics.

Waiting requests get their new places at the first look of a scheduling pass, and within it when something has been
cached that several of them wait for; else the order stays that of the first look. Whoever is offered is looked up
in the cache anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import cast

from fairprefix.adapters.vllm.guard import Shield
from fairprefix.adapters.vllm.matches import Matches
from fairprefix.adapters.vllm.shapes import BlockPool, EngineRequest, Theirs
from fairprefix.core.request import Request

_ONLY_GROUP = bytes(4)
"""What makes one of vLLM's keys of a block's hash: the number of the cache group, which is the only one."""
_PER_PASS = 16
"""Waiting requests that get a new place at the first look of a pass."""
_PER_ADMISSION = 4
"""Those with a longer cached prefix that are moved up between two admissions of a pass."""


class IndexedPrefixes:
    """The view for policies; see above.

    Args:
        pool: the block pool, with one cache group.
        block_size: tokens per block.
        shield: keeps errors away from the pool.
        dropped: blocks at the end of a match that are computed again all the same (speculation with EAGLE: 1).
    """

    def __init__(self, pool: BlockPool, block_size: int, shield: Shield, dropped: int = 0) -> None:
        self._pool = pool
        self.matches: Matches = Matches(_membership(pool.cached_block_hash_to_block), _ONLY_GROUP)
        self._block_size = block_size
        self._dropped = dropped
        self._shield = shield
        self._all_changed: list[tuple[str, int]] = []
        self._new_pass = True
        self._awaited = False
        """Whether several wait for something that was cached since the last look."""
        self._cache_full_blocks = pool.cache_full_blocks
        pool.cache_full_blocks = self._caching
        self._listen_to(pool.cached_block_hash_to_block)

    @property
    def corrections(self) -> int:
        """How often more was cached than had been heard of: never, unless vLLM caches in ways not known here."""
        return self.matches.corrections

    def refresh(self) -> None:
        """A pass begins."""
        self._new_pass = True

    def watch(self, request: Request) -> int:
        """Start to follow a waiting request; return its cached tokens."""
        return self._tokens(self.matches.follow(request.id, cast("Sequence[bytes]", request.blocks)))

    def forget(self, id: str) -> None:
        """Stop following a request."""
        self.matches.forget(id)

    def changes(self) -> Iterable[tuple[str, int]]:
        """Return (id, cached tokens) of requests whose cached prefix has changed.

        Some of them, if they are many: at the first look of a pass; when several wait for what has just been
        cached, a few of these, so that those are admitted together who share it.
        """
        if not (self._new_pass or self._awaited):
            return ()
        if self._all_changed:
            changes, self._all_changed = self._all_changed, []
        elif self._new_pass:
            changes = self.matches.changes(_PER_PASS)
        else:
            changes = self.matches.changes(_PER_ADMISSION, gains_only=True)
        self._new_pass = self._awaited = False
        return [(id, self._tokens(blocks)) for id, blocks in changes]

    def confirm(self, id: str) -> int:
        """Return the cached tokens of a request that is about to be offered, from a look at the cache."""
        blocks = self.matches.confirm(id)
        return self._tokens(blocks) if self._dropped else blocks * self._block_size

    def reset(self) -> None:
        """The cache has forgotten everything. O(waiting requests)."""
        known = self._pool.cached_block_hash_to_block  # a new one
        self._listen_to(known)
        self._all_changed = self.matches.restart(_membership(known))
        self._new_pass = True

    def _tokens(self, blocks: int) -> int:
        return (blocks - self._dropped) * self._block_size if blocks > self._dropped else 0

    # What the pool does.

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
            self._shield.run(self._note, request, num_cached_blocks, num_full_blocks)

    def _note(self, request: EngineRequest, first: int, end: int) -> None:
        fresh = request.block_hashes[first:end]
        # Mostly it is the first one that was lacking, and the request itself lacked it; but that one may have been
        # cached already, in another block.
        lacking = self.matches.lacking.groups.keys() & fresh
        for block in lacking if len(lacking) < 2 else filter(lacking.__contains__, fresh):  # noqa: PLR2004
            if self.matches.cached(block, request.request_id):
                self._awaited = True

    def _listen_to(self, known: Theirs) -> None:
        pop, run, matches, ending = known.pop, self._shield.run, self.matches, self.matches.ending.groups

        # Called for every block that is evicted. Should another one hold the same, somebody is looked up in vain.
        def listening_pop(key: bytes, block_id: int) -> object:
            if key in ending:
                run(matches.evicted, key)
            return pop(key, block_id)

        known.pop = listening_pop


def _membership(known: Theirs) -> Callable[[bytes], bool]:
    """Return what tells whether a key stands in the pool's map of hashes."""
    blocks = getattr(known, "_cache", None)
    if isinstance(blocks, dict):
        return blocks.__contains__  # a third of the time of the map's own method
    return lambda key: known.get_one_block(key) is not None


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
