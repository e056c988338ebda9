"""A heap whose entries may go stale: they are dropped when they reach the top."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

T = TypeVar("T", bound=tuple[object, ...])

_FIRST_SWEEP = 64
_AT_ONCE = 256
"""Entries that are few enough to be swept together: one operation then takes some dozens of microseconds."""
_MOVED_PER_PUSH = 4
_IN_FRONT = 32
_MOST_IN_FRONT = 64


class LazyHeap(Generic[T]):
    """A priority queue that never searches: a changed key is pushed again, the old entry just turns stale.

    Once stale, an entry stays so: what comes back is pushed as an entry of its own (with a number, for instance).

    When half of the entries may be stale, a short heap is swept. Of a long one the valid entries are moved to a
    second heap, a few with each push, so that no operation ever walks it whole; they are taken from the end of the
    first heap's list, which leaves a heap.

    The next few entries of a long heap stand in front of it, in order. Taken out one by one, between other work,
    each would have to be searched for in memory that the processor's caches have forgotten.

    Complexity: `push` and `top` are O(log n), `top` amortised over the entries that turn stale; n stays below
    four times the largest number of entries that were valid at once (plus a constant), however many are pushed.
    """

    __slots__ = ("_front", "_items", "_old", "_sweep_at", "_valid")

    def __init__(self, valid: Callable[[T], bool]) -> None:
        self._front: list[T] = []
        """In order; none of them is greater than any other entry."""
        self._items: list[T] = []
        self._old: list[T] = []
        """What is still to be moved."""
        self._sweep_at = _FIRST_SWEEP
        self._valid = valid

    def push(self, item: T) -> None:
        """Add an entry; smallest first."""
        if self._front and item < self._front[-1]:
            insort(self._front, item)
            if len(self._front) <= _MOST_IN_FRONT:
                return
            item = self._front.pop()
        heappush(self._items, item)
        if self._old:
            self._move_some()
        elif len(self._items) >= self._sweep_at:
            self._sweep()

    def top(self) -> T | None:
        """Return the smallest valid entry, or None; entries found stale on the way are gone for good."""
        if self._front and (first := self._first_in_front()):
            return first
        items, valid = self._items, self._valid
        while items and not valid(items[0]):
            if len(items) > _AT_ONCE and not self._old:
                self._take_to_front()
                return self._first_in_front()
            heappop(items)
        if self._old:
            return self._top_of_both()
        return items[0] if items else None

    def __len__(self) -> int:
        return len(self._front) + len(self._items) + len(self._old)

    def _first_in_front(self) -> T | None:
        front, valid = self._front, self._valid
        while front and not valid(front[0]):
            del front[0]
        return front[0] if front else None

    def _take_to_front(self) -> None:
        """Take the first few entries out of a long heap, after those that are stale."""
        front, items, valid = self._front, self._items, self._valid
        while items and not valid(items[0]):
            heappop(items)
        for _ in range(min(_IN_FRONT, len(items))):
            item = heappop(items)
            if valid(item):
                front.append(item)

    def _sweep(self) -> None:
        if len(self._items) > _AT_ONCE:
            self._items, self._old = self._old, self._items
            return
        self._items = [item for item in self._items if self._valid(item)]
        heapify(self._items)
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._items))

    def _top_of_both(self) -> T | None:
        items, old = self._items, self._old
        while old and not self._valid(old[0]):
            heappop(old)
        if not old:
            self._all_moved()
        tops = [heap[0] for heap in (items, old) if heap]
        return min(tops, default=None)

    def _move_some(self) -> None:
        old = self._old
        for _ in range(min(_MOVED_PER_PUSH, len(old))):
            item = old.pop()
            if self._valid(item):
                heappush(self._items, item)
        if not old:
            self._all_moved()

    def _all_moved(self) -> None:
        self._sweep_at = max(_FIRST_SWEEP, 2 * len(self._items))
