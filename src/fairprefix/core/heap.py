"""A heap whose entries may go stale: they are dropped when they reach the top."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T", bound=tuple[object, ...])

_FIRST_SWEEP = 64


class LazyHeap(Generic[T]):
    """A priority queue that never searches: a changed key is pushed again, the old entry just turns stale.

    Complexity: `push` and `top` are O(log n) amortised; n stays below twice the largest number of entries
    that were valid at a sweep (plus a constant), however many entries have been pushed.
    """

    __slots__ = ("_items", "_sweep_at", "_valid")

    def __init__(self, valid: Callable[[T], bool]) -> None:
        self._items: list[T] = []
        self._sweep_at = _FIRST_SWEEP
        self._valid = valid

    def push(self, item: T) -> None:
        """Add an entry; smallest first."""
        heapq.heappush(self._items, item)
        if len(self._items) >= self._sweep_at:
            self._sweep()

    def top(self) -> T | None:
        """Return the smallest valid entry, or None; entries found stale on the way are gone for good."""
        items, valid = self._items, self._valid
        while items and not valid(items[0]):
            heapq.heappop(items)
        return items[0] if items else None

    def __len__(self) -> int:
        return len(self._items)

    def _sweep(self) -> None:
        # An entry that turned stale and then valid again stands in here twice: once is enough.
        self._items = list(dict.fromkeys(item for item in self._items if self._valid(item)))
        heapq.heapify(self._items)
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._items))
