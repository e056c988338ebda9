"""Requests wait in one pool for all workers, and each worker is topped up from it.

D2LPM's theorem needs each of two clients to be queued, or without credit, at every refill of every worker. That a
client has many requests out does not ensure it: they may all lie at one worker. Here requests wait centrally and
every worker is kept at `depth` queued requests of each client for as long as that client's pool lasts: just what
the theorem asks for (`fairprefix.core.bounds.central_pool`).

The host reports `admitted` as soon as a worker has taken a request from its queue into its batch, and hands over
at once what it gets back: if a worker could refill its clients in between, the promise would be void.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

from attrs import define, field

from fairprefix.core.errors import HostError, at_least
from fairprefix.core.request import Client, Request
from fairprefix.core.routing import Choice, WorkerName
from fairprefix.core.run_index import ApproximateIndex
from fairprefix.core.worker_index import WorkerIndex
from fairprefix.core.workers import Worker, Workers, slots_of


@define(eq=False)
class Line:
    """One client's requests: those in the pool, and how many are queued at each worker."""

    pool: OrderedDict[str, Request] = field(factory=OrderedDict)
    queued: dict[int, int] = field(factory=dict)
    """By slot, where it is not 0."""


@define(eq=False)
class Bound:
    """A request that was handed to a worker."""

    request: Request
    slot: int
    queued: bool = True


class CentralPool:
    """A pool, and who is topped up with what: the oldest requests, where most of their prompt is cached.

    Args:
        block_size: tokens per block of the requests' hashes.
        depth: requests of a client to keep queued at each worker.
        look: how many of a client's oldest requests are considered for a worker.
        worker_blocks: blocks that a worker's cache holds, where the host does not say.
        index: what is cached where; without one, what was sent there.

    Complexity: O(`look` * blocks of a prompt + workers) for each request that is handed over.
    """

    block_size: int
    depth: int
    workers: Workers

    def __init__(
        self,
        *,
        block_size: int = 16,
        depth: int = 1,
        look: int = 8,
        worker_blocks: int = 32_768,
        index: WorkerIndex | None = None,
    ) -> None:
        self.block_size = at_least("block_size", block_size, 1)
        self.depth = at_least("depth", depth, 1)
        self.index: WorkerIndex = ApproximateIndex() if index is None else index
        self.workers = Workers()
        self._look = at_least("look", look, 1)
        self._worker_blocks = at_least("worker_blocks", worker_blocks, 1)
        self._lines: dict[Client, Line] = {}
        self._pooled: dict[str, Client] = {}
        self._bound: dict[str, Bound] = {}

    def waiting(self, client: Client) -> int:
        """Return how many requests of a client are in the pool."""
        line = self._lines.get(client)
        return len(line.pool) if line else 0

    # Requests: a method that returns choices tells what is to be handed to which worker now.

    def arrive(self, request: Request) -> list[Choice]:
        """Take a request into the pool."""
        if request.id in self._bound or request.id in self._pooled:
            raise HostError(f"request {request.id!r} has arrived already and is not finished")
        line = self._lines.setdefault(request.client, Line())
        line.pool[request.id] = request
        self._pooled[request.id] = request.client
        return list(self._top_up(line))

    def admitted(self, id: str) -> list[Choice]:
        """Note that a worker has taken a request from its queue into its batch."""
        bound = self._get(id)
        line = self._lines[bound.request.client]
        self._leave_queue(line, bound)
        return list(self._top_up(line))

    def preempted(self, id: str) -> None:
        """Note that a worker has put a request back into its queue."""
        bound = self._get(id)
        if bound.queued:
            raise HostError(f"request {id!r} is queued at its worker already")
        bound.queued = True
        self._count(self._lines[bound.request.client], bound.slot, +1)

    def finish(self, id: str) -> list[Choice]:
        """Forget a request: it is done, aborted or failed, wherever it was."""
        client = self._pooled.pop(id, None)
        if client is not None:
            del self._lines[client].pool[id]
            return []
        bound = self._get(id)
        line = self._lines[bound.request.client]
        if bound.queued:
            self._leave_queue(line, bound)
        del self._bound[id]
        self.workers.done(self.workers[bound.slot])
        return list(self._top_up(line))

    # Workers.

    def worker_joined(self, worker: WorkerName, *, blocks: int | None = None) -> list[Choice]:
        """Take a worker into service, and fill its queue."""
        joined = self.workers.join(worker, 1, self._worker_blocks if blocks is None else blocks)
        self.index.open(joined.slot, joined.blocks)
        return self._top_up_all()

    def worker_left(self, worker: WorkerName) -> tuple[str, ...]:
        """Forget a worker; return the requests that were there, all of them forgotten as well."""
        left = self.workers.named(worker)
        there = [id for id, bound in self._bound.items() if bound.slot == left.slot]
        for id in there:
            del self._bound[id]
        for line in self._lines.values():
            line.queued.pop(left.slot, None)
        self.index.close(left.slot)
        self.workers.leave(left)
        return tuple(there)

    def worker_suspended(self, worker: WorkerName) -> None:
        """Hand nothing to a worker until it is resumed."""
        self.workers.suspend(self.workers.named(worker))

    def worker_resumed(self, worker: WorkerName) -> list[Choice]:
        """Use a suspended worker again."""
        self.workers.resume(self.workers.named(worker))
        return self._top_up_all()

    def validate(self) -> None:
        """Check the counts, and that no worker lacks a request that the pool has."""
        self.workers.validate()
        for client, line in self._lines.items():
            bound = [one for one in self._bound.values() if one.request.client == client and one.queued]
            counts = {slot: sum(one.slot == slot for one in bound) for slot in {one.slot for one in bound}}
            assert counts == line.queued, client
            assert not line.pool or not self._lacking(line), f"{client!r} waits, and a worker has too little of it"
        for worker in self.workers:
            assert worker.load == sum(one.slot == worker.slot for one in self._bound.values()), worker.name

    # Inside.

    def _get(self, id: str) -> Bound:
        bound = self._bound.get(id)
        if bound is None:
            raise HostError(f"request {id!r} is at no worker")
        return bound

    def _leave_queue(self, line: Line, bound: Bound) -> None:
        if not bound.queued:
            raise HostError(f"request {bound.request.id!r} is not queued at its worker")
        bound.queued = False
        self._count(line, bound.slot, -1)

    @staticmethod
    def _count(line: Line, slot: int, change: int) -> None:
        count = line.queued.get(slot, 0) + change
        if count:
            line.queued[slot] = count
        else:
            del line.queued[slot]

    def _lacking(self, line: Line) -> int:
        """Return the set of workers that have too few queued requests of a client."""
        lacking = self.workers.usable
        for slot, count in line.queued.items():
            if count >= self.depth:
                lacking &= ~(1 << slot)
        return lacking

    def _top_up_all(self) -> list[Choice]:
        return [choice for line in self._lines.values() for choice in self._top_up(line)]

    def _top_up(self, line: Line) -> Iterator[Choice]:
        while line.pool and (lacking := self._lacking(line)):
            request, worker = self._best(line, lacking)
            del line.pool[request.id], self._pooled[request.id]
            matched = self.index.matched_blocks(worker.slot, request.blocks, request.namespace)
            cached = min(matched * self.block_size, request.input_tokens - 1)
            self._bound[request.id] = Bound(request, worker.slot)
            self._count(line, worker.slot, +1)
            self.workers.dispatched(worker)
            self.index.sent(worker.slot, request.blocks, request.namespace)
            yield Choice(request.id, worker.name, cached, again=False)

    def _best(self, line: Line, lacking: int) -> tuple[Request, Worker]:
        """Return the best request for a single worker; or the oldest request and its best worker."""
        slots = slots_of(lacking)
        oldest = next(iter(line.pool.values()))
        if len(slots) > 1:
            holders = self.index.match(oldest.blocks, oldest.namespace, lacking)[1]
            return oldest, self.workers.least_loaded(holders)
        worker = self.workers[slots[0]]
        considered = islice(line.pool.values(), self._look)
        best = max(considered, key=lambda r: self.index.matched_blocks(worker.slot, r.blocks, r.namespace))
        return best, worker
