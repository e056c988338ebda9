"""Several virtual engines on one clock, and the requests that are dispatched to them.

The clock goes from event to event: a step ends, a worker fails or is back, a request arrives, in that order where
they coincide. Whatever has nothing to do then looks for its next step. A run of decode steps is cut short by a
request that is sent to its worker, so that one engine alone does here exactly what it does by itself.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from attrs import define, field, frozen

from fairprefix.core.errors import FairprefixError
from fairprefix.core.refill_watch import RefillWatch
from fairprefix.core.request import Client
from fairprefix.core.routing import WorkerName
from fairprefix.sim.dispatch import Dispatcher
from fairprefix.sim.engine import PS_PER_NS, VirtualEngine
from fairprefix.sim.job import Job
from fairprefix.sim.record import RunRecord
from fairprefix.sim.trace import TraceRequest

Follow = Callable[[Job], Iterable[TraceRequest]]
"""Returns what arrives because a request is done."""


class _Coming:
    """Requests that have not arrived yet, the next one first; ties by number."""

    def __init__(self, arrivals: Iterable[tuple[int, TraceRequest]]) -> None:
        self._heap = [(request.arrival_ns, number, request) for number, request in arrivals]
        heapq.heapify(self._heap)
        self._next_number = max((number for _, number, _ in self._heap), default=-1) + 1

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def next_ns(self) -> int:
        """When the next one arrives."""
        return self._heap[0][0]

    def pop(self) -> tuple[int, TraceRequest]:
        """Return the next one and its number."""
        _, number, request = heapq.heappop(self._heap)
        return number, request

    def add(self, request: TraceRequest) -> None:
        """Let one more come, numbered after all others."""
        heapq.heappush(self._heap, (request.arrival_ns, self._next_number, request))
        self._next_number += 1


class NoWorkerError(FairprefixError):
    """Requests are left, and every worker has failed for good."""


@frozen
class Fault:
    """A worker fails, or is back."""

    at_ns: int
    worker: int
    recovers: bool = False


@define(eq=False)
class SimWorker:
    """One engine of the cluster."""

    name: WorkerName
    engine: VirtualEngine
    blocks: int
    """Blocks that its cache holds."""
    inbox: deque[Job] = field(factory=deque)
    """What was sent to it since it last looked up."""
    alive: bool = True
    failures: int = 0

    def look_up(self, at_ps: int) -> None:
        """Let an engine between two steps take what was sent to it, and begin its next step, if any."""
        if self.inbox or self.engine.has_work():
            self.engine.wait_until(at_ps)
            while self.inbox:
                self.engine.add(self.inbox.popleft())
            self.engine.begin()


class WorkerObserver:
    """Tells the record of the cluster, that of the worker, and the dispatcher what happens at a worker."""

    def __init__(self, cluster: Cluster, place: int, own: RunRecord) -> None:
        self.own = own
        self._cluster = cluster
        self._place = place

    def queued(self, client: Client, at: int, change: int) -> None:
        """Count it, at the worker and, unless requests wait centrally, in the cluster."""
        if not self._cluster.dispatcher.shared_queue:
            self.own.queued(client, at, change)
        if not self._cluster.dispatcher.central_queue:
            self._cluster.waits(client, change)

    def admitted(self, job: Job, at: int, *, extend: int, charged: int, again: bool) -> None:
        """Count it."""
        for record in (self.own, self._cluster.record):
            record.admitted(job, at, extend=extend, charged=charged, again=again)
        self._cluster.charged(self._place, job.request.client, charged)
        self._cluster.dispatcher.admitted(job)

    def preempted(self, job: Job) -> None:
        """Let the dispatcher know."""
        self._cluster.dispatcher.preempted(job)

    def produced(self, tokens: dict[Client, int], at: int) -> None:
        """Count it."""
        for record in (self.own, self._cluster.record):
            record.produced(tokens, at)
        for client, count in tokens.items():
            self._cluster.charged(self._place, client, self.own.ledger.cost.service(0, count))

    def finished(self, job: Job) -> None:
        """Keep the request and settle it."""
        for record in (self.own, self._cluster.record):
            record.finished(job)
        self._cluster.dispatcher.finished(job)

    def rejected(self, request: TraceRequest) -> None:
        """Keep a request that can never fit."""
        self._cluster.record.rejected(request)


class Cluster:
    """The workers, and the loop over events.

    Args:
        record: of the whole cluster.
        watch: counts refills that clients miss; None where that has no meaning.
    """

    def __init__(self, record: RunRecord, watch: RefillWatch | None = None) -> None:
        self.record = record
        self.workers: list[SimWorker] = []
        self.watch = watch
        self.dispatcher: Dispatcher
        self.now_ns: int = 0
        self.rerouted: int = 0
        """Requests that were sent again, after their worker had failed."""
        self._named: dict[WorkerName, SimWorker] = {}

    def add(self, worker: SimWorker) -> None:
        """Add a worker; the dispatcher is told by the caller."""
        self.workers.append(worker)
        self._named[worker.name] = worker

    # What dispatchers and observers call.

    def hand(self, job: Job, name: WorkerName) -> None:
        """Send a request to a worker, which takes it when it looks up next."""
        worker = self._named[name]
        worker.inbox.append(job)
        worker.engine.interrupt(self.now_ns)

    def hand_at_once(self, job: Job, name: WorkerName) -> None:
        """Put a request into a worker's queue without waiting for the end of its step."""
        worker = self._named[name]
        worker.engine.add(job)
        worker.engine.interrupt(self.now_ns)

    def hand_to_all(self, job: Job) -> None:
        """Put a request into the queue that all workers share."""
        self.workers[0].engine.share(job)
        for worker in self.workers:
            worker.engine.interrupt(self.now_ns)

    def waits(self, client: Client, change: int) -> None:
        """Count who is backlogged in the cluster."""
        self.record.queued(client, self.now_ns, change)
        if self.watch:
            self.watch.queued(client, change)

    def charged(self, place: int, client: Client, units: int) -> None:
        """Count what a worker's policy has charged."""
        if self.watch:
            self.watch.charged(place, client, units)

    # The loop.

    def run(
        self,
        arrivals: Iterable[tuple[int, TraceRequest]],
        faults: Sequence[Fault] = (),
        on_finish: Callable[[int], None] = lambda _count: None,
        *,
        follow: Follow | None = None,
        until: Callable[[], bool] = lambda: False,
    ) -> None:
        """Serve the requests (in order of arrival) to the end.

        Args:
            arrivals: the requests, each with its number.
            faults: workers that fail.
            on_finish: hears how many requests are done.
            follow: returns what arrives because a request is done, no earlier than that (closed loop).
            until: whether to stop although requests are left; asked after each event.

        Raises:
            NoWorkerError: all workers have failed for good, and requests are left.
            StalledError: a worker's policy offers nobody in an empty engine.
        """
        coming = _Coming(arrivals)
        failing = deque(sorted(faults, key=lambda fault: fault.at_ns))
        followed = 0
        while (coming or self._has_work()) and not until():
            at_ps = self._next_event(coming, failing)
            self.now_ns = at_ps // PS_PER_NS
            for worker in self.workers:
                if worker.engine.ends_ps == at_ps:
                    worker.engine.complete()
                    self.dispatcher.stepped(worker.name, self.now_ns)
                    on_finish(self._done())
            followed = self._release(coming, follow, followed)
            while failing and failing[0].at_ns <= self.now_ns:
                self._happen(failing.popleft())
            while coming and coming.next_ns <= self.now_ns:
                self.dispatcher.arrive(Job.of(*coming.pop()), self.now_ns)
            for worker in self.workers:
                if worker.alive and worker.engine.ends_ps is None:
                    worker.look_up(at_ps)

    def _release(self, coming: _Coming, follow: Follow | None, followed: int) -> int:
        """Let come what waited for the jobs finished since `followed` of them were; return how many are now."""
        done = self.record.finished_jobs
        if follow:
            for place in range(followed, len(done)):
                for request in follow(done[place]):
                    coming.add(request)
        return len(done)

    def _done(self) -> int:
        return len(self.record.finished_jobs) + len(self.record.rejected_requests) + len(self.record.lost_jobs)

    def _has_work(self) -> bool:
        return self.dispatcher.waiting() > 0 or any(w.inbox or w.engine.has_work() for w in self.workers)

    def _next_event(self, coming: _Coming, failing: deque[Fault]) -> int:
        times = [ends for worker in self.workers if (ends := worker.engine.ends_ps) is not None]
        if coming:
            times.append(coming.next_ns * PS_PER_NS)
        if failing:
            times.append(failing[0].at_ns * PS_PER_NS)
        if times:
            return min(times)
        alive = [worker for worker in self.workers if worker.alive]
        if not alive:
            raise NoWorkerError(
                "requests are left, and every worker has failed for good: let one recover "
                "(--fail WORKER@SECONDS:RECOVER)"
            )
        raise next(worker.engine for worker in alive if worker.engine.has_work()).stalled()

    def _happen(self, fault: Fault) -> None:
        worker = self.workers[fault.worker]
        if fault.recovers:
            worker.alive = True
            self.dispatcher.join(worker.name, worker.blocks)
            return
        worker.alive = False
        worker.failures += 1
        lost = worker.engine.crash(fault.at_ns)
        lost += worker.inbox
        worker.inbox.clear()
        partly = [job for job in lost if job.produced]
        self.dispatcher.fail(worker.name, partly)
        for job in partly:
            # Its client has seen a part of the answer: this is an error that it hears of.
            self.record.lost(job)
        for job in lost:
            if not job.produced:
                self.rerouted += 1
                self.dispatcher.arrive(Job(job.trace, job.request), self.now_ns)
