"""Which worker has which piece of a prompt cached: an index over block hashes for any number of workers.

Sets of workers are bit masks (`fairprefix.core.workers`). Two ways to keep the index up:

* `ApproximateIndex`: what was sent to a worker is cached there, until its capacity is exceeded; then what was
  used longest ago is gone, and of a prompt its end before its beginning. Kept in runs of blocks
  (`fairprefix.core.run_index`): the cost is by runs, not by blocks.
* `ExactIndex`: the worker's own events, block by block, say what it has stored and removed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from fairprefix.core.request import BlockHash

Key = BlockHash | tuple[str, BlockHash]
"""A block; within a namespace other than "", the namespace and the block."""


def keys_of(blocks: Sequence[BlockHash], namespace: str) -> tuple[Key, ...]:
    """Return the keys of a chain of blocks."""
    return tuple((namespace, block) for block in blocks) if namespace else tuple(blocks)


class WorkerIndex(ABC):
    """What both kinds of index can be asked."""

    kind: ClassVar[str]

    @abstractmethod
    def open(self, slot: int, capacity: int) -> None:
        """Begin with a worker whose cache is empty and holds `capacity` blocks."""

    @abstractmethod
    def close(self, slot: int) -> None:
        """Forget a worker. O(what it holds)."""

    @abstractmethod
    def clear(self, slot: int) -> None:
        """Note that a worker has nothing cached any more. O(what it holds)."""

    @abstractmethod
    def match(self, blocks: Sequence[BlockHash], namespace: str, among: int) -> tuple[int, int]:
        """Return the longest match in blocks, and the set of those workers of `among` that hold it.

        The set is `among` itself when nothing matches.
        """

    @abstractmethod
    def sent(self, slot: int, blocks: Sequence[BlockHash], namespace: str = "") -> None:
        """Note that a prompt goes to a worker."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of different blocks that somebody holds."""

    @abstractmethod
    def blocks_of(self, slot: int) -> int:
        """Return how many blocks a worker holds."""

    @abstractmethod
    def capacity_of(self, slot: int) -> int:
        """Return how many blocks a worker can hold."""

    @abstractmethod
    def next_evicted(self, slot: int) -> Iterable[Key]:
        """Return the blocks of a worker in the order in which they would be evicted, as far as that is known."""

    @abstractmethod
    def dump(self) -> dict[str, Any]:
        """Return the content."""

    @abstractmethod
    def load(self, data: dict[str, Any]) -> None:
        """Read back into an empty index what `dump` returned."""

    @abstractmethod
    def canonical(self) -> tuple[object, ...]:
        """Return a hashable form."""

    @abstractmethod
    def validate(self) -> None:
        """Check every invariant; raises AssertionError with the reason."""

    def matched_blocks(self, slot: int, blocks: Sequence[BlockHash], namespace: str = "") -> int:
        """Return how many leading blocks of a chain one worker holds."""
        return self.match(blocks, namespace, 1 << slot)[0]


class ExactIndex(WorkerIndex):
    """Only what workers report is cached. O(blocks concerned) for every operation."""

    kind = "exact"

    def __init__(self) -> None:
        self._holders: dict[Key, int] = {}
        self._held: dict[int, dict[Key, None]] = {}
        """By slot: the blocks of a worker."""
        self._capacity: dict[int, int] = {}

    def open(self, slot: int, capacity: int) -> None:
        """Begin with a worker; it may hold more than was announced."""
        self._held[slot] = {}
        self._capacity[slot] = capacity

    def close(self, slot: int) -> None:
        """Forget a worker."""
        self.clear(slot)
        del self._held[slot], self._capacity[slot]

    def clear(self, slot: int) -> None:
        """Note that a worker has nothing cached any more."""
        self._drop(slot, self._held[slot])
        self._held[slot] = {}

    def stored(self, slot: int, blocks: Sequence[BlockHash], namespace: str = "") -> None:
        """Note that a worker has stored blocks."""
        held, holders, bit = self._held[slot], self._holders, 1 << slot
        before: int | None = -1
        after = 0
        for key in keys_of(blocks, namespace):
            if key in held:
                continue
            held[key] = None
            known = holders.get(key)
            # Neighbours mostly have the same holders: they share one mask.
            if known is not before:
                before, after = known, (known or 0) | bit
            holders[key] = after

    def removed(self, slot: int, blocks: Sequence[BlockHash], namespace: str = "") -> None:
        """Note that a worker has removed blocks; those that it never reported are skipped."""
        held = self._held[slot]
        gone = [key for key in keys_of(blocks, namespace) if key in held]
        for key in gone:
            del held[key]
        self._drop(slot, gone)

    def match(self, blocks: Sequence[BlockHash], namespace: str, among: int) -> tuple[int, int]:
        """Return the longest match and who holds it; what comes after a hole does not count."""
        get = self._holders.get
        depth, found = 0, among
        known: int | None = among
        for key in keys_of(blocks, namespace):
            holders = get(key)
            # What is identical need not be intersected again.
            if holders is not known:
                known = holders
                still = found & holders if holders else 0
                if not still:
                    break
                found = still
            depth += 1
        return depth, found

    def sent(self, slot: int, blocks: Sequence[BlockHash], namespace: str = "") -> None:
        """Do nothing: the worker will tell."""

    def blocks_of(self, slot: int) -> int:
        """Return how many blocks a worker holds."""
        return len(self._held[slot])

    def capacity_of(self, slot: int) -> int:
        """Return how many blocks a worker can hold."""
        return self._capacity[slot]

    def next_evicted(self, slot: int) -> Iterable[Key]:
        """Return the blocks of a worker, those reported first before others: it does not tell what it uses."""
        return self._held[slot]

    def __len__(self) -> int:
        """Return the number of different blocks that somebody holds."""
        return len(self._holders)

    def dump(self) -> dict[str, Any]:
        """Return the content."""
        return {"workers": [(slot, self._capacity[slot], list(held)) for slot, held in self._held.items()]}

    def load(self, data: dict[str, Any]) -> None:
        """Read back into an empty index what `dump` returned."""
        for slot, capacity, keys in data["workers"]:
            self.open(slot, capacity)
            self.stored(slot, keys)

    def canonical(self) -> tuple[object, ...]:
        """Return a hashable form."""
        return tuple((slot, capacity, tuple(held)) for slot, capacity, held in sorted(self.dump()["workers"]))

    def validate(self) -> None:
        """Check the masks against the blocks of each worker."""
        holders: dict[Key, int] = {}
        for slot, held in self._held.items():
            for key in held:
                holders[key] = holders.get(key, 0) | 1 << slot
        assert holders == self._holders

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
