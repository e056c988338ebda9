"""What the engine does, in the terms of the simulator's record: the same figures come out of both."""

from __future__ import annotations

from collections.abc import Mapping

from fairprefix.core.ledger import Ledger
from fairprefix.core.request import Client
from fairprefix.gpu_ref_engine.job import Job as EngineJob
from fairprefix.sim.engine import Job
from fairprefix.sim.record import RunRecord
from fairprefix.sim.trace import TraceRequest


class EngineRecord:
    """Observes an engine; times count from `start_ns`.

    Args:
        ledger: takes down what each client receives.
        start_ns: when the run began, by `time.perf_counter_ns`.
    """

    def __init__(self, ledger: Ledger, start_ns: int) -> None:
        self.record: RunRecord = RunRecord(ledger)
        self._start = start_ns

    def queued(self, client: Client, at: int, change: int) -> None:
        """Pass on."""
        self.record.queued(client, at - self._start, change)

    def admitted(self, job: EngineJob, at: int, *, extend: int, charged: int, again: bool) -> None:
        """Pass on."""
        self.record.admitted(
            self._as_simulated(job), at - self._start, extend=extend, charged=charged, again=again
        )

    def produced(self, tokens: Mapping[Client, int], at: int) -> None:
        """Pass on."""
        self.record.produced(dict(tokens), at - self._start)

    def finished(self, job: EngineJob) -> None:
        """Pass on."""
        self.record.finished(self._as_simulated(job))

    def _as_simulated(self, job: EngineJob) -> Job:
        request, start = job.request, self._start
        trace = TraceRequest(
            arrival_ns=job.arrived_ns - start,
            client=request.client,
            input_tokens=request.input_tokens,
            output_tokens=max(job.produced, 1),
            max_output_tokens=request.max_output,
        )
        return Job(
            trace,
            request,
            produced=job.produced,
            admitted_ns=job.admitted_ns - start,
            first_token_ns=job.first_token_ns - start,
            finished_ns=job.finished_ns - start,
            cached_tokens=job.cached_tokens,
        )
