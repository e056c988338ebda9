"""The KV memory of the virtual engine: exact token accounting, and a prefix cache with LRU eviction.

Memory is counted in tokens. A running request holds private tokens (the part of its prompt that is not shared, and
its output) and references to cached blocks; a cached block that nobody references stays until its room is needed.
Blocks are released from the end of a prompt to its beginning, so the ends of chains are evicted first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from attrs import define

from fairprefix.core.errors import at_least
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.core.request import BlockHash


@define(eq=False)
class Holding:
    """What one running request holds."""

    blocks: Sequence[BlockHash]
    """The chain of its prompt's full blocks."""
    shared: int
    """How many leading blocks of the chain it references."""
    private: int
    """Tokens that are its own."""


class KVCache:
    """KV memory of `capacity` tokens, reporting what becomes cached and what is evicted to a prefix index.

    Complexity: O(blocks concerned) for every operation.
    """

    def __init__(self, capacity: int, index: PrefixIndex) -> None:
        self.capacity: int = at_least("kv_tokens", capacity, 1)
        self.block_size: int = index.block_size
        self.index = index
        self.evicted_blocks: int = 0
        self._private = 0
        self._references: dict[BlockHash, int] = {}
        self._unreferenced: dict[BlockHash, tuple[Sequence[BlockHash], int]] = {}
        """Evictable blocks, least recently used first: their chain, and their place in it."""

    @property
    def room(self) -> int:
        """Tokens that can be had, by evicting every block that nobody references."""
        return self.capacity - self._private - len(self._references) * self.block_size

    def matched_blocks(self, blocks: Sequence[BlockHash]) -> int:
        """Return how many leading blocks of a chain are cached."""
        references, unreferenced = self._references, self._unreferenced
        for place, block in enumerate(blocks):
            if block not in references and block not in unreferenced:
                return place
        return len(blocks)

    def fits(self, blocks: Sequence[BlockHash], matched: int, private: int) -> bool:
        """Return whether a request that shares `matched` blocks finds room for `private` more tokens."""
        revived = sum(map(self._unreferenced.__contains__, blocks[:matched]))
        return private + revived * self.block_size <= self.room

    def hold(self, blocks: Sequence[BlockHash], matched: int, private: int) -> Holding:
        """Give a request its memory; it must fit."""
        references, unreferenced = self._references, self._unreferenced
        for block in blocks[:matched]:
            if block in references:
                references[block] += 1
            else:
                del unreferenced[block]
                references[block] = 1
        self._private += private
        self._evict()
        return Holding(blocks, matched, private)

    def grow(self, holding: Holding, tokens: int) -> None:
        """Give a request more private tokens; they must fit."""
        holding.private += tokens
        self._private += tokens
        self._evict()

    def cache(self, holding: Holding, computed_tokens: int) -> None:
        """Share the full blocks of a prompt of which `computed_tokens` are in memory now."""
        start = holding.shared
        holding.shared = max(start, min(computed_tokens // self.block_size, len(holding.blocks)))
        for block in holding.blocks[start : holding.shared]:
            # Where somebody else has computed the same block meanwhile, one copy is kept and counted.
            self._unreferenced.pop(block, None)
            self._references[block] = self._references.get(block, 0) + 1
            holding.private -= self.block_size
            self._private -= self.block_size
        if holding.shared > start:
            self.index.cached(holding.blocks, start=start, end=holding.shared)

    def cache_output(self, holding: Holding, blocks: Sequence[BlockHash], computed_tokens: int) -> None:
        """Share the full blocks that a finished request's output completes, after those of its prompt."""
        holding.blocks = (*holding.blocks, *blocks)
        self.cache(holding, computed_tokens)

    def release(self, holding: Holding) -> None:
        """Take a request's memory back; what it shared stays cached."""
        self._private -= holding.private
        references, blocks = self._references, holding.blocks
        for place in range(holding.shared - 1, -1, -1):
            block = blocks[place]
            if references[block] > 1:
                references[block] -= 1
            else:
                del references[block]
                self._unreferenced[block] = (blocks, place)
        holding.private = holding.shared = 0

    def clear(self) -> None:
        """Lose everything that is cached; nothing may be held."""
        assert not self._references, "something still runs"
        while self._unreferenced:
            _, (blocks, place) = self._unreferenced.popitem()
            self.index.evicted(blocks, start=place, end=place + 1)
            self.evicted_blocks += 1

    def check_integrity(self, holdings: Sequence[Holding]) -> None:
        """Check the counts against what the running requests hold."""
        assert self._private == sum(holding.private for holding in holdings)
        references: dict[BlockHash, int] = {}
        for holding in holdings:
            for block in holding.blocks[: holding.shared]:
                references[block] = references.get(block, 0) + 1
        assert references == self._references
        assert not self._unreferenced.keys() & self._references.keys()
        assert self.index.cached_blocks() == len(self._unreferenced) + len(self._references)
        assert self.room >= len(self._unreferenced) * self.block_size

    def _evict(self) -> None:
        """Drop the least recently used blocks until everything fits; neighbours of a chain go together."""
        over = len(self._unreferenced) * self.block_size - self.room
        if over <= 0:
            return
        # One walk for all of them: each start of a walk passes what was dropped from the front before.
        count = -(-over // self.block_size)
        dropped = list(islice(self._unreferenced.items(), count))
        self.evicted_blocks += count
        run, first, end = dropped[0][1][0], 0, 0
        for block, (blocks, place) in dropped:
            del self._unreferenced[block]
            if blocks is not run or place != first - 1:
                if end:
                    self.index.evicted(run, start=first, end=end)
                run, end = blocks, place + 1
            first = place
        self.index.evicted(run, start=first, end=end)
