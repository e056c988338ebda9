"""Which worker has which piece of a prompt cached: an index over block hashes for any number of workers.

Every cached block maps to the set of workers that hold it, as a bit mask (`fairprefix.core.workers`); blocks that
were sent to the same workers share one mask. Two ways to keep it up:

* `ApproximateIndex`: what was sent to a worker is cached there, until its capacity is exceeded; then what was
  used longest ago is gone, and of a prompt its end before its beginning.
* `ExactIndex`: the worker's own events say what it has stored and removed.

Complexity: O(blocks of the prompt) for every operation on a prompt; memory about 200 bytes per block and worker
that holds it (benchmarks/routing.py measures both).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import ClassVar

from fairprefix.core.request import BlockHash

Key = BlockHash | tuple[str, BlockHash]
"""A block; within a namespace other than "", the namespace and the block."""


def keys_of(blocks: Sequence[BlockHash], namespace: str) -> Sequence[Key]:
    """Return the keys of a chain of blocks."""
    return [(namespace, block) for block in blocks] if namespace else blocks


class WorkerIndex(ABC):
    """What both kinds of index share."""

    kind: ClassVar[str]

    def __init__(self) -> None:
        self._holders: dict[Key, int] = {}
        self._held: dict[int, OrderedDict[Key, None]] = {}
        """By slot: the blocks of a worker, least recently used first."""
        self._capacity: dict[int, int] = {}

    def open(self, slot: int, capacity: int) -> None:
        """Begin with a worker whose cache is empty and holds `capacity` blocks."""
        self._held[slot] = OrderedDict()
        self._capacity[slot] = capacity

    def close(self, slot: int) -> None:
        """Forget a worker. O(its blocks)."""
        self.clear(slot)
        del self._held[slot], self._capacity[slot]

    def clear(self, slot: int) -> None:
        """Note that a worker has nothing cached any more. O(its blocks)."""
        self._drop(slot, self._held[slot])
        self._held[slot] = OrderedDict()

    def match(self, blocks: Sequence[BlockHash], namespace: str, among: int) -> tuple[int, int]:
        """Return the longest match in blocks, and the set of those workers of `among` that hold it.

        The set is `among` itself when nothing matches.
        """
        get = self._holders.get
        depth, found = 0, among
        known: int | None = among
        for key in keys_of(blocks, namespace):
            holders = get(key)
            # Neighbours mostly share one mask: what is identical need not be intersected again.
            if holders is not known:
                known = holders
                still = found & holders if holders else 0
                if not still:
                    break
                found = still
            depth += 1
        return depth, found

    def matched_blocks(self, slot: int, blocks: Sequence[BlockHash], namespace: str = "") -> int:
        """Return how many leading blocks of a chain one worker holds."""
        return self.match(blocks, namespace, 1 << slot)[0]

    def blocks_of(self, slot: int) -> int:
        """Return how many blocks a worker holds."""
        return len(self._held[slot])

    def capacity_of(self, slot: int) -> int:
        """Return how many blocks a worker can hold."""
        return self._capacity[slot]

    def next_evicted(self, slot: int) -> Iterable[Key]:
        """Return the blocks of a worker in the order in which they would be evicted."""
        return self._held[slot]

    @abstractmethod
    def sent(self, slot: int, blocks: Sequence[BlockHash], namespace: str = "") -> None:
        """Note that a prompt goes to a worker."""

    def __len__(self) -> int:
        """Return the number of different blocks that somebody holds."""
        return len(self._holders)

    def dump(self) -> list[tuple[int, int, list[Key]]]:
        """Return (slot, capacity, blocks from the least recently used one on) of each worker."""
        return [(slot, self._capacity[slot], list(held)) for slot, held in self._held.items()]

    def load(self, data: Iterable[tuple[int, int, Sequence[Key]]]) -> None:
        """Read back into an empty index what `dump` returned."""
        for slot, capacity, keys in data:
            self.open(slot, capacity)
            self._add(slot, keys)

    def canonical(self) -> tuple[object, ...]:
        """Return a hashable form."""
        return tuple((slot, capacity, tuple(held)) for slot, capacity, held in sorted(self.dump()))

    def validate(self) -> None:
        """Check the masks against the blocks of each worker, and capacities."""
        holders: dict[Key, int] = {}
        for slot, held in self._held.items():
            for key in held:
                holders[key] = holders.get(key, 0) | 1 << slot
        assert holders == self._holders
        for slot, held in self._held.items():
            assert self.kind == ExactIndex.kind or len(held) <= self._capacity[slot], slot

    def _add(self, slot: int, keys: Iterable[Key]) -> None:
        """Note that a worker holds blocks; the last one counts as the most recently used."""
        held, holders, bit = self._held[slot], self._holders, 1 << slot
        get = holders.get
        before: int | None = -1
        after = 0
        for key in keys:
            if key in held:
                held.move_to_end(key)
                continue
            held[key] = None
            known = get(key)
            if known is not before:
                before, after = known, (known or 0) | bit
            holders[key] = after

    def _drop(self, slot: int, keys: Iterable[Key]) -> None:
        """Note that a worker holds blocks no more."""
        holders, bit = self._holders, 1 << slot
        before, after = -1, 0
        for key in keys:
            known = holders[key]
            if known is not before:
                before, after = known, known & ~bit
            if after:
                holders[key] = after
            else:
                del holders[key]


class ApproximateIndex(WorkerIndex):
    """What was sent to a worker is cached there, least recently used first out."""

    kind = "approximate"

    def sent(self, slot: int, blocks: Sequence[BlockHash], namespace: str = "") -> None:
        """Note that a prompt goes to a worker. O(its blocks)."""
        keys, held = keys_of(blocks, namespace), self._held[slot]
        # Of a prompt longer than the cache its beginning stays.
        self._add(slot, reversed(keys[: self._capacity[slot]]))
        excess = len(held) - self._capacity[slot]
        if excess > 0:
            self._drop(slot, [held.popitem(last=False)[0] for _ in range(excess)])


class ExactIndex(WorkerIndex):
    """Only what workers report is cached."""

    kind = "exact"

    def sent(self, slot: int, blocks: Sequence[BlockHash], namespace: str = "") -> None:
        """Do nothing: the worker will tell."""

    def stored(self, slot: int, blocks: Sequence[BlockHash], namespace: str = "") -> None:
        """Note that a worker has stored blocks, in the order of their chain. O(blocks)."""
        self._add(slot, reversed(keys_of(blocks, namespace)))

    def removed(self, slot: int, blocks: Sequence[BlockHash], namespace: str = "") -> None:
        """Note that a worker has removed blocks; those that it never reported are skipped. O(blocks)."""
        held = self._held[slot]
        gone = [key for key in keys_of(blocks, namespace) if key in held]
        for key in gone:
            del held[key]
        self._drop(slot, gone)


INDEXES: dict[str, type[ApproximateIndex | ExactIndex]] = {
    index.kind: index for index in (ApproximateIndex, ExactIndex)
}
