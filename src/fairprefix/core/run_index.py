"""What was sent to a worker is cached there: an index of runs of blocks, least recently used first out.

A run is a piece of a chain that the same workers hold. It is found by its first block alone, since hashes are
cumulative: equal hashes mean equal beginnings. Runs are divided where prompts part and where a cache is full.
The order of use is exact, block by block: within a prompt the end is older than the beginning.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any

from attrs import define, field

from fairprefix.core.request import BlockHash
from fairprefix.core.worker_index import Key, WorkerIndex, keys_of
from fairprefix.core.workers import slots_of

_SPARE = 64

Age = tuple[int, int, Key]
"""(number of the dispatch that used it last, -place in its chain, first block): the least one goes first."""


@define(eq=False)
class Run:
    """A piece of a chain."""

    keys: tuple[Key, ...]
    place: int
    """How many blocks of the chain come before it."""
    used: dict[int, int]
    """By slot: the dispatch that used it last."""
    holders: int


@define(eq=False)
class Held:
    """What one worker holds."""

    capacity: int
    blocks: int = 0
    runs: int = 0
    ages: list[Age] = field(factory=list)
    """A heap, with entries that are out of date."""


class ApproximateIndex(WorkerIndex):
    """See above.

    Complexity, with r runs on the path of a prompt (a handful): O(r log runs) and one comparison of each hash;
    dividing a run costs O(workers that hold it). Memory: about 50 bytes per block (benchmarks/routing.py).
    """

    kind = "approximate"

    def __init__(self) -> None:
        self._runs: dict[Key, Run] = {}
        """By first block."""
        self._held: dict[int, Held] = {}
        self._dispatch = 0

    def open(self, slot: int, capacity: int) -> None:
        """Begin with a worker."""
        self._held[slot] = Held(capacity)

    def close(self, slot: int) -> None:
        """Forget a worker."""
        self.clear(slot)
        del self._held[slot]

    def clear(self, slot: int) -> None:
        """Note that a worker has nothing cached any more."""
        held = self._held[slot]
        for age in [age for age in held.ages if self._counts(slot, age)]:
            self._leave(slot, held, self._runs[age[2]])
        held.ages.clear()

    def match(self, blocks: Sequence[BlockHash], namespace: str, among: int) -> tuple[int, int]:
        """Return the longest match and who holds it. O(runs on the path)."""
        keys = keys_of(blocks, namespace)
        depth, found = 0, among
        while depth < len(keys) and (run := self._run_at(keys, depth)):
            still = found & run.holders
            if not still:
                break
            found = still
            common = _common(run.keys, keys, depth)
            depth += common
            if common < len(run.keys):
                break
        return depth, found

    def sent(self, slot: int, blocks: Sequence[BlockHash], namespace: str = "") -> None:
        """Note that a prompt goes to a worker; of one longer than the cache the beginning stays."""
        held = self._held[slot]
        keys = keys_of(blocks, namespace)[: held.capacity]
        self._dispatch += 1
        depth = 0
        while depth < len(keys):
            run = self._run_at(keys, depth)
            if run is None:
                if keys[depth] in self._runs:
                    break  # not a chain: this block is the beginning of something else
                run = self._runs[keys[depth]] = Run(keys[depth:], depth, {}, 0)
            else:
                common = _common(run.keys, keys, depth)
                if common < len(run.keys):
                    self._divide(run, common)
            self._use(slot, held, run)
            depth += len(run.keys)
        self._evict(slot, held)

    def blocks_of(self, slot: int) -> int:
        """Return how many blocks a worker holds."""
        return self._held[slot].blocks

    def capacity_of(self, slot: int) -> int:
        """Return how many blocks a worker can hold."""
        return self._held[slot].capacity

    def next_evicted(self, slot: int) -> Iterator[Key]:
        """Yield the blocks of a worker in the order in which they would be evicted."""
        ages = list(self._held[slot].ages)
        while ages:
            age = heapq.heappop(ages)
            if self._counts(slot, age):
                yield from reversed(self._runs[age[2]].keys)

    def __len__(self) -> int:
        """Return the number of different blocks that somebody holds."""
        return sum(len(run.keys) for run in self._runs.values())

    # Inside.

    def _run_at(self, keys: tuple[Key, ...], depth: int) -> Run | None:
        run = self._runs.get(keys[depth])
        return run if run is not None and run.place == depth else None

    def _counts(self, slot: int, age: Age) -> bool:
        """Return whether an entry of a worker's heap is up to date."""
        run = self._runs.get(age[2])
        return run is not None and run.used.get(slot) == age[0] and run.place == -age[1]

    def _use(self, slot: int, held: Held, run: Run) -> None:
        if not run.holders >> slot & 1:
            run.holders |= 1 << slot
            held.blocks += len(run.keys)
            held.runs += 1
        run.used[slot] = self._dispatch
        self._push(slot, held, run)

    def _push(self, slot: int, held: Held, run: Run) -> None:
        heapq.heappush(held.ages, (run.used[slot], -run.place, run.keys[0]))
        if len(held.ages) > 2 * held.runs + _SPARE:
            held.ages = sorted({age for age in held.ages if self._counts(slot, age)})

    def _divide(self, run: Run, at: int) -> Run:
        """Make two runs of one; return the second one."""
        rest = Run(run.keys[at:], run.place + at, dict(run.used), run.holders)
        run.keys = run.keys[:at]
        self._runs[rest.keys[0]] = rest
        for slot in slots_of(run.holders):
            held = self._held[slot]
            held.runs += 1
            self._push(slot, held, rest)
        return rest

    def _evict(self, slot: int, held: Held) -> None:
        while held.blocks > held.capacity:
            age = held.ages[0]
            if not self._counts(slot, age):
                heapq.heappop(held.ages)
                continue
            run = self._runs[age[2]]
            stays = len(run.keys) - (held.blocks - held.capacity)
            self._leave(slot, held, self._divide(run, stays) if stays > 0 else run)

    def _leave(self, slot: int, held: Held, run: Run) -> None:
        """Note that a worker does not hold a run any more."""
        run.holders &= ~(1 << slot)
        del run.used[slot]
        held.blocks -= len(run.keys)
        held.runs -= 1
        if not run.holders:
            del self._runs[run.keys[0]]

    # State.

    def dump(self) -> dict[str, Any]:
        """Return the content."""
        return {
            "workers": [(slot, held.capacity) for slot, held in self._held.items()],
            "runs": [(run.keys, run.place, dict(run.used)) for run in self._runs.values()],
            "dispatch": self._dispatch,
        }

    def load(self, data: dict[str, Any]) -> None:
        """Read back into an empty index what `dump` returned."""
        self._dispatch = data["dispatch"]
        for slot, capacity in data["workers"]:
            self.open(slot, capacity)
        for keys, place, used in data["runs"]:
            run = self._runs[keys[0]] = Run(tuple(keys), place, dict(used), sum(1 << slot for slot in used))
            for slot in used:
                held = self._held[slot]
                held.blocks += len(keys)
                held.runs += 1
                self._push(slot, held, run)

    def canonical(self) -> tuple[object, ...]:
        """Return a hashable form: how blocks are grouped makes no difference."""
        return tuple(
            (slot, held.capacity, tuple(self.next_evicted(slot))) for slot, held in sorted(self._held.items())
        )

    def validate(self) -> None:
        """Check counts, holders, ages, and that nothing is held whose beginning is not."""
        for slot, held in self._held.items():
            valid = [age for age in held.ages if self._counts(slot, age)]
            assert len(valid) == len(set(valid)) == held.runs, slot
            own = [run for run in self._runs.values() if run.holders >> slot & 1]
            assert held.blocks == sum(len(run.keys) for run in own) <= held.capacity, slot
            assert held.runs == len(own), slot
        for key, run in self._runs.items():
            assert run.keys[0] == key, key
            assert slots_of(run.holders) == tuple(sorted(run.used)), key
            assert run.holders, key


def _common(run: tuple[Key, ...], keys: tuple[Key, ...], depth: int) -> int:
    """Return how many blocks a run shares with a chain from a place on."""
    part = keys[depth : depth + len(run)]
    if part == run:
        return len(run)
    # Hashes are cumulative: from the first difference on everything differs.
    low, high = 1, len(part)
    while low < high:
        middle = (low + high + 1) // 2
        if part[middle - 1] == run[middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low
