"""Takes down what happens in a run: every finished request, and what each client received."""

from __future__ import annotations

from fairprefix.core.ledger import Ledger
from fairprefix.core.request import Client
from fairprefix.sim.engine import Job
from fairprefix.sim.trace import TraceRequest


class RunRecord:
    """The observer that the metrics are computed from."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.finished_jobs: list[Job] = []
        self.lost_jobs: list[Job] = []
        self.rejected_requests: list[TraceRequest] = []
        self.recomputed_tokens: int = 0
        self.timeline: dict[Client, list[tuple[int, int]]] = {}
        """Per client: (ns, cumulative service units) after each charge."""
        self._queued: dict[Client, int] = {}
        self._service: dict[Client, int] = {}

    def queued(self, client: Client, at: int, change: int) -> None:
        """Keep track of who is backlogged."""
        waiting = self._queued[client] = self._queued.get(client, 0) + change
        if waiting == 0:
            self.ledger.idle(client, at)
        elif waiting == change:
            self.ledger.backlogged(client, at)

    def admitted(self, job: Job, at: int, *, extend: int, charged: int, again: bool) -> None:
        """Count extend tokens once; what is computed again is overhead."""
        client = job.request.client
        if again:
            self.recomputed_tokens += extend
            self.ledger.recomputed(client, at, extend)
            return
        self.ledger.admitted(client, at, input_tokens=job.request.input_tokens, extend=extend, charged=charged)
        self._add(client, at, self.ledger.cost.service(extend, 0))

    def produced(self, tokens: dict[Client, int], at: int) -> None:
        """Count output tokens."""
        for client, count in tokens.items():
            self.ledger.produced(client, at, count)
            self._add(client, at, self.ledger.cost.service(0, count))

    def preempted(self, job: Job) -> None:
        """Nothing more than `queued` says."""

    def lost(self, job: Job) -> None:
        """Keep a request that failed with its worker after it had produced something."""
        self.lost_jobs.append(job)

    def finished(self, job: Job) -> None:
        """Keep the request with its time stamps."""
        self.finished_jobs.append(job)

    def rejected(self, request: TraceRequest) -> None:
        """Keep a request that can never fit."""
        self.rejected_requests.append(request)

    def _add(self, client: Client, at: int, units: int) -> None:
        total = self._service[client] = self._service.get(client, 0) + units
        points = self.timeline.setdefault(client, [])
        if points and points[-1][0] == at:
            points[-1] = (at, total)
        else:
            points.append((at, total))
