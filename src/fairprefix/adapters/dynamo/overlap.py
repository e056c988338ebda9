"""The index of a dispatcher that is told, before each decision, what every worker has cached of that prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fairprefix.core.request import BlockHash
from fairprefix.core.worker_index import Key, WorkerIndex


class ToldOverlap(WorkerIndex):
    """Knows one prompt at a time: how many of its leading blocks each worker holds."""

    kind = "told"

    def __init__(self) -> None:
        self._capacity: dict[int, int] = {}
        self._now: Mapping[int, int] = {}

    def tell(self, overlap: Mapping[int, int]) -> None:
        """Take in the leading blocks of the next prompt, by slot."""
        self._now = overlap

    def open(self, slot: int, capacity: int) -> None:
        """Begin with a worker."""
        self._capacity[slot] = capacity

    def close(self, slot: int) -> None:
        """Forget a worker."""
        del self._capacity[slot]

    def clear(self, slot: int) -> None:
        """Do nothing: the next prompt's overlap will say it."""

    def match(self, blocks: Sequence[BlockHash], namespace: str, among: int) -> tuple[int, int]:  # noqa: ARG002
        """Return the longest match in blocks, and the set of those workers of `among` that hold it."""
        held = {slot: depth for slot, depth in self._now.items() if among >> slot & 1 and depth > 0}
        deepest = max(held.values(), default=0)
        if not deepest:
            return 0, among
        return deepest, sum(1 << slot for slot, depth in held.items() if depth == deepest)

    def sent(self, slot: int, blocks: Sequence[BlockHash], namespace: str = "") -> None:
        """Do nothing: the workers tell."""

    def blocks_of(self, slot: int) -> int:  # noqa: ARG002 (the interface)
        """Return 0: it is not known here."""
        return 0

    def capacity_of(self, slot: int) -> int:
        """Return how many blocks a worker can hold."""
        return self._capacity[slot]

    def next_evicted(self, slot: int) -> Iterable[Key]:  # noqa: ARG002 (the interface)
        """Return nothing: it is not known here."""
        return ()

    def __len__(self) -> int:
        """Return 0: it is not known here."""
        return 0

    def dump(self) -> dict[str, Any]:
        """Return the workers."""
        return {"workers": sorted(self._capacity.items())}

    def load(self, data: dict[str, Any]) -> None:
        """Read back what `dump` returned."""
        self._capacity = dict(data["workers"])

    def canonical(self) -> tuple[object, ...]:
        """Return a hashable form."""
        return tuple(sorted(self._capacity.items()))

    def validate(self) -> None:
        """Check nothing: there is no state that could be wrong."""
