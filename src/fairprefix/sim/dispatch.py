"""How requests come to the workers of a cluster: bound on arrival, topped up from a pool, or bound late."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from fairprefix.core.central_pool import CentralPool
from fairprefix.core.router_base import BaseRouter
from fairprefix.core.routing import Choice, WorkerName
from fairprefix.core.shared_ledger import SharedLedger
from fairprefix.sim.job import Job

Hand = Callable[[Job, WorkerName], None]
"""Puts a request into a worker's queue."""


class Dispatcher(Protocol):
    """Decides when which worker gets a request. Times are nanoseconds of virtual time."""

    central_queue: bool
    """Whether those backlogged are those whose requests wait here, and not those queued at workers."""
    shared_queue: bool
    """Whether workers have no queues of their own."""

    def join(self, worker: WorkerName, blocks: int) -> None:
        """Take a worker into service, for the first time or again."""
        ...

    def arrive(self, job: Job, now: int) -> None:
        """Take a new request, or one that was lost with its worker before it had produced anything."""
        ...

    def admitted(self, job: Job) -> None:
        """React to an admission at a worker."""
        ...

    def preempted(self, job: Job) -> None:
        """React to a preemption."""
        ...

    def finished(self, job: Job) -> None:
        """React to a request that is done."""
        ...

    def fail(self, worker: WorkerName, partly: Sequence[Job]) -> None:
        """Forget a worker and what was there; some of it is `partly` done, and will not be sent again."""
        ...

    def stepped(self, worker: WorkerName, now: int) -> None:
        """React to the end of a step."""
        ...

    def waiting(self) -> int:
        """Return how many requests wait for a worker."""
        ...


class Routed:
    """Each request is bound to a worker when it arrives; it waits here only while there is no worker."""

    central_queue = False
    shared_queue = False

    def __init__(self, router: BaseRouter, hand: Hand) -> None:
        self.router = router
        self._hand = hand
        self._stranded: list[Job] = []
        self._now = 0

    def join(self, worker: WorkerName, blocks: int) -> None:
        """Take a worker into service, and send it what found none."""
        self.router.worker_joined(worker, blocks=blocks)
        stranded, self._stranded = self._stranded, []
        for job in stranded:
            self.arrive(job, self._now)

    def arrive(self, job: Job, now: int) -> None:
        """Ask the router."""
        self._now = now
        choice = self.router.pick(job.request, now=now)
        if choice is None:
            self._stranded.append(job)
        else:
            self._hand(job, choice.worker)

    def admitted(self, job: Job) -> None:
        """Do nothing."""

    def preempted(self, job: Job) -> None:
        """Do nothing."""

    def finished(self, job: Job) -> None:
        """Settle."""
        extend = job.request.input_tokens - job.cached_tokens
        self.router.settle(job.request.id, output=job.produced, extend=extend)

    def fail(self, worker: WorkerName, partly: Sequence[Job]) -> None:
        """Settle what has delivered something, and refund the rest."""
        for job in partly:
            self.finished(job)
        self.router.worker_left(worker)

    def stepped(self, worker: WorkerName, now: int) -> None:
        """Do nothing."""

    def waiting(self) -> int:
        """Return how many found no worker."""
        return len(self._stranded)


class Pooled:
    """Requests wait in a central pool, from which the workers are topped up."""

    central_queue = True
    shared_queue = False

    def __init__(self, pool: CentralPool, hand: Hand, waits: Callable[[str, int], None]) -> None:
        self.pool = pool
        self._hand = hand
        self._waits = waits
        self._jobs: dict[str, Job] = {}

    def join(self, worker: WorkerName, blocks: int) -> None:
        """Take a worker into service, and fill its queue."""
        self._carry_out(self.pool.worker_joined(worker, blocks=blocks))

    def arrive(self, job: Job, now: int) -> None:  # noqa: ARG002 (the protocol's signature)
        """Put the request into the pool."""
        self._jobs[job.request.id] = job
        self._waits(job.request.client, +1)
        self._carry_out(self.pool.arrive(job.request))

    def admitted(self, job: Job) -> None:
        """Top up at once, before the worker can refill anybody."""
        self._carry_out(self.pool.admitted(job.request.id))

    def preempted(self, job: Job) -> None:
        """Count it as queued again."""
        self.pool.preempted(job.request.id)

    def finished(self, job: Job) -> None:
        """Forget the request."""
        self._carry_out(self.pool.finish(job.request.id))

    def fail(self, worker: WorkerName, partly: Sequence[Job]) -> None:  # noqa: ARG002 (the protocol's signature)
        """Forget the worker."""
        self.pool.worker_left(worker)

    def stepped(self, worker: WorkerName, now: int) -> None:
        """Do nothing."""

    def waiting(self) -> int:
        """Return how many requests are in the pool."""
        return len(self._jobs)

    def _carry_out(self, choices: Sequence[Choice]) -> None:
        for choice in choices:
            job = self._jobs.pop(choice.request)
            self._waits(job.request.client, -1)
            self._hand(job, choice.worker)


class LateBound:
    """Requests wait in one queue that all workers admit from, with a ledger that they share.

    Args:
        ledger: the ledger.
        everybody: puts a request into the queue and lets all workers know.
        waits: is told of more or fewer waiting requests of a client.
        staleness_ns: how long a worker may keep its charges to itself.
    """

    central_queue = True
    shared_queue = True

    def __init__(
        self,
        ledger: SharedLedger,
        everybody: Callable[[Job], None],
        waits: Callable[[str, int], None],
        staleness_ns: int,
    ) -> None:
        self.ledger = ledger
        self._everybody = everybody
        self._waits = waits
        self._staleness_ns = staleness_ns
        self._reported: dict[WorkerName, int] = {}

    def join(self, worker: WorkerName, blocks: int) -> None:
        """Do nothing: a worker takes what it has room for."""

    def arrive(self, job: Job, now: int) -> None:  # noqa: ARG002 (the protocol's signature)
        """Let every worker know."""
        self._waits(job.request.client, +1)
        self._everybody(job)

    def admitted(self, job: Job) -> None:
        """Count it out."""
        self._waits(job.request.client, -1)

    def preempted(self, job: Job) -> None:
        """Count it in again."""
        self._waits(job.request.client, +1)

    def finished(self, job: Job) -> None:
        """Do nothing."""

    def fail(self, worker: WorkerName, partly: Sequence[Job]) -> None:  # noqa: ARG002 (the protocol's signature)
        """Settle what the worker had charged: the ledger outlives it."""
        self.ledger.report(worker)

    def stepped(self, worker: WorkerName, now: int) -> None:
        """Report, if it is time."""
        if now - self._reported.get(worker, 0) >= self._staleness_ns:
            self.ledger.report(worker)
            self._reported[worker] = now

    def waiting(self) -> int:
        """Return 0: what waits, waits with the engines."""
        return 0
