"""The workers that a router chooses from, each in a numbered slot.

Sets of workers are integers, with the bit of each slot: of a thousand workers such a set is 160 bytes, and the
intersection of two a few dozen nanoseconds. Slots are used again when their worker has left.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any

from attrs import define

from fairprefix.core.errors import HostError, at_least, reject
from fairprefix.core.routing import WorkerName

_TURN_BITS = 64


@lru_cache(maxsize=4096)
def slots_of(mask: int) -> tuple[int, ...]:
    """Return the slots in a set, in ascending order. O(slots), and O(1) for a set that was seen lately."""
    bits = bin(mask)[:1:-1]
    slots = []
    place = bits.find("1")
    while place >= 0:
        slots.append(place)
        place = bits.find("1", place + 1)
    return tuple(slots)


@define(eq=False)
class Worker:
    """One worker."""

    name: WorkerName
    slot: int
    weight: int
    blocks: int
    """How many blocks its prefix cache holds."""
    load: int = 0
    """Requests dispatched to it and not finished."""
    turn: int = 0
    """Number of the dispatch that it was last chosen for, or of its joining: no two workers have the same."""
    suspended: bool = False


class Workers:
    """All workers that are present, and which of them may be used."""

    usable: int
    turn: int

    def __init__(self) -> None:
        self.usable = 0
        """The set of workers that are not suspended."""
        self.turn = 0
        """Number of the last dispatch, or joining."""
        self._slots: list[Worker | None] = []
        self._named: dict[WorkerName, Worker] = {}
        self._order: list[int] = []
        """By slot: load and turn in one number, so that the least one is that of the worker to prefer."""

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._named.values())

    def __len__(self) -> int:
        return len(self._named)

    def __contains__(self, name: object) -> bool:
        return name in self._named

    def __getitem__(self, slot: int) -> Worker:
        worker = self._slots[slot]
        assert worker is not None
        return worker

    def occupied(self, slot: int) -> bool:
        """Return whether there is a worker in a slot."""
        return self._slots[slot] is not None

    def named(self, name: WorkerName) -> Worker:
        """Return a worker by name.

        Raises:
            HostError: there is none.
        """
        worker = self._named.get(name)
        if worker is None:
            raise HostError(f"worker {name!r} is unknown: it never joined, or has left")
        return worker

    def join(self, name: WorkerName, weight: int, blocks: int) -> Worker:
        """Add a worker. O(workers)."""
        if not name:
            raise reject("worker", name, "a non-empty name (text)")
        if name in self._named:
            raise HostError(f"worker {name!r} has joined already and has not left")
        at_least(f"worker {name!r}: weight", weight, 1)
        at_least(f"worker {name!r}: blocks", blocks, 1)
        slot = next((i for i, worker in enumerate(self._slots) if worker is None), len(self._slots))
        if slot == len(self._slots):
            self._slots.append(None)
            self._order.append(0)
        self.turn += 1
        worker = self._slots[slot] = self._named[name] = Worker(name, slot, weight, blocks, turn=self.turn)
        self._reorder(worker)
        self.usable |= 1 << slot
        return worker

    def leave(self, worker: Worker) -> None:
        """Remove a worker."""
        del self._named[worker.name]
        self._slots[worker.slot] = None
        self.usable &= ~(1 << worker.slot)

    def suspend(self, worker: Worker) -> None:
        """Take a worker out of use."""
        if worker.suspended:
            raise HostError(f"worker {worker.name!r} is suspended already")
        worker.suspended = True
        self.usable &= ~(1 << worker.slot)

    def resume(self, worker: Worker) -> None:
        """Put a suspended worker into use again."""
        if not worker.suspended:
            raise HostError(f"worker {worker.name!r} is not suspended")
        worker.suspended = False
        self.usable |= 1 << worker.slot

    def without(self, names: Collection[WorkerName]) -> int:
        """Return the set of usable workers but for those named (unknown ones are nobody)."""
        mask = self.usable
        for name in names:
            worker = self._named.get(name)
            if worker is not None:
                mask &= ~(1 << worker.slot)
        return mask

    def dispatched(self, worker: Worker) -> None:
        """Count a request that was sent to a worker."""
        self.turn += 1
        worker.turn = self.turn
        worker.load += 1
        self._reorder(worker)

    def done(self, worker: Worker) -> None:
        """Count a request that is not at a worker any more."""
        worker.load -= 1
        self._reorder(worker)

    def least_loaded(self, among: int) -> Worker:
        """Return the worker with the fewest requests; of several, the one that was chosen longest ago."""
        slots = slots_of(among)
        return self[slots[0] if len(slots) == 1 else min(slots, key=self._order.__getitem__)]

    def dump(self) -> list[dict[str, Any]]:
        """Return the workers as plain data."""
        names = ("name", "slot", "weight", "blocks", "load", "turn", "suspended")
        return [{name: getattr(worker, name) for name in names} for worker in self]

    def load(self, data: list[dict[str, Any]], turn: int) -> None:
        """Read back what `dump` returned."""
        self.turn = turn
        for saved in data:
            worker = Worker(**saved)
            missing = worker.slot + 1 - len(self._slots)
            self._slots += [None] * missing
            self._order += [0] * missing
            self._slots[worker.slot] = self._named[worker.name] = worker
            self.usable |= (not worker.suspended) << worker.slot
            self._reorder(worker)

    def canonical(self) -> tuple[object, ...]:
        """Return a hashable form: turns matter by their order alone."""
        turns = sorted({worker.turn for worker in self})
        return tuple(
            (w.name, w.slot, w.weight, w.blocks, w.load, turns.index(w.turn), w.suspended)
            for w in sorted(self, key=lambda worker: worker.name)
        )

    def validate(self) -> None:
        """Check that the set of usable workers, the slots and the order agree."""
        for worker in self:
            assert self._slots[worker.slot] is worker, worker.name
            assert bool(self.usable >> worker.slot & 1) is not worker.suspended, worker.name
            assert worker.load >= 0, worker.name
            assert self._order[worker.slot] == worker.load << _TURN_BITS | worker.turn, worker.name
        assert self.usable.bit_count() == sum(not worker.suspended for worker in self)

    def _reorder(self, worker: Worker) -> None:
        self._order[worker.slot] = worker.load << _TURN_BITS | worker.turn
