"""What runs in each step: continuous batching, with chunks of prompts and decoding requests in the same step.

The scheduler knows no tokens' values, only counts, so that it can plan a step before the results of the last one
are there. Nothing in a step walks the queue: a pass looks at the few requests that the policy offers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from time import perf_counter_ns

import numpy as np
from attrs import frozen

from fairprefix.core.errors import HostError
from fairprefix.core.policy import Policy, Refusal
from fairprefix.gpu_ref_engine.admission import EstimatedRoom, FullRoom, Room
from fairprefix.gpu_ref_engine.batch import Ints
from fairprefix.gpu_ref_engine.config import EngineConfig, Observer
from fairprefix.gpu_ref_engine.job import Job
from fairprefix.gpu_ref_engine.kvcache import TOKEN_BYTES, Holding, KVCache, Match
from fairprefix.gpu_ref_engine.profile import ALLOCATION, POLICY, Profile
from fairprefix.gpu_ref_engine.rows import Chunk, Rows


@frozen(eq=False)
class Plan:
    """What one step computes."""

    decodes: Sequence[Job]
    rows: Ints
    """Their rows."""
    chunks: Sequence[Chunk]

    @property
    def tokens(self) -> int:
        """How many tokens it computes."""
        return len(self.decodes) + sum(chunk.end - chunk.start for chunk in self.chunks)

    @property
    def sequences(self) -> int:
        """Of how many requests."""
        return len(self.decodes) + len(self.chunks)

    def sampled(self) -> list[Job]:
        """Return who gets a next token, in the order of the batch."""
        return [*self.decodes, *(chunk.job for chunk in self.chunks if chunk.last)]


class Scheduler:
    """Admits, preempts and lets go; owns the pages and rows of what runs.

    Args:
        config: the engine's parameters.
        cache: the KV memory; the policy looks at `cache.index`.
        rows: tables of what runs.
        policy: who is admitted next.
        observer: who is told about everything.
        profile: where the time is put down.
    """

    def __init__(
        self,
        config: EngineConfig,
        cache: KVCache,
        rows: Rows,
        policy: Policy,
        observer: Observer,
        profile: Profile,
    ) -> None:
        self.waiting: dict[str, Job] = {}
        self.running: dict[str, Job] = {}
        """In the order of admission."""
        self.preemptions: int = 0
        self.stalls: int = 0
        """How often the policy offered nobody although nothing ran."""
        self._config = config
        self._cache = cache
        self._rows = rows
        self._policy = policy
        self._observer = observer
        self._profile = profile
        self._room: Room = FullRoom(cache) if config.reservation == "full" else EstimatedRoom(cache)
        self._decoding: dict[str, Job] = {}
        self._decoding_rows: Ints | None = None
        """Rows of `_decoding`; None when these have changed."""
        self._prefilling: deque[Job] = deque()
        self._steps = 0
        self._pass_due = 0
        """Number of the step before which the next pass is made."""

    # Requests come and go.

    def add(self, job: Job) -> None:
        """Queue a new request."""
        before = self._profile.clock()
        self._policy.arrive(job.request)
        self._profile.charge(POLICY, self._profile.clock() - before)
        self.waiting[job.id] = job
        self._observer.queued(job.client, perf_counter_ns(), +1)
        self._pass_due = self._steps

    def end(self, job: Job) -> None:
        """Settle a request that is over, wherever it stands; what it has computed stays cached."""
        if self.waiting.pop(job.id, None) is not None:
            self._observer.queued(job.client, job.finished_ns, -1)
        else:
            self._stop(job)
        before = self._profile.clock()
        self._policy.finish(job.id, output=job.produced)
        self._profile.move(POLICY, self._profile.clock() - before)
        self._observer.finished(job)
        self._pass_due = self._steps

    def _stop(self, job: Job) -> None:
        """Take back everything that a running request holds."""
        del self.running[job.id]
        if self._decoding.pop(job.id, None) is not None:
            self._decoding_rows = None
        elif job in self._prefilling:
            self._prefilling.remove(job)
        self._room.stopped(job)
        self._rows.remove(job)
        self._cache.release(_held(job), job.all_data(), job.computed)
        job.holding = None
        job.context = 0

    # Steps.

    def needs_results(self) -> bool:
        """Return whether memory is so short that the launched step's results are needed before the next plan."""
        return len(self._rows.full(self._rows_of_decoding())) > self._cache.available

    def plan(self) -> Plan | None:
        """Return what the next step computes, with rows and pages given out; None when there is nothing to do."""
        self._steps += 1
        self._grow()
        decodes, rows = list(self._decoding.values()), self._rows_of_decoding()
        budget = self._config.chunk - len(decodes)
        chunks: list[Chunk] = []
        for job in self._prefilling:
            if not budget:
                break
            budget -= self._cut(job, budget, chunks)
        self._profile.lap(ALLOCATION)
        if self.waiting and (self._steps > self._pass_due or not self.running):
            self._make_pass(budget, chunks)
        return Plan(decodes, rows, chunks) if decodes or chunks else None

    def launched(self, plan: Plan) -> None:
        """Note that a planned step is on its way: its pages may be shared from now on."""
        for job in plan.decodes:
            job.context += 1
            job.pending += 1
            if job.context >= job.end:
                self._exhaust(job)
        samples = len(plan.decodes)
        for chunk in plan.chunks:
            job = chunk.job
            job.context = chunk.end
            if chunk.last:
                samples += 1
                job.pending += 1
                self._prefilling.popleft()
                if job.context < job.end:
                    self._decoding[job.id] = job
                self._decoding_rows = None
            if self._cache.share(_held(job), job.chain, job.data, min(chunk.end, self._shareable(job))):
                self._rows.copy_pages(job)
        self._room.sampled(samples)

    def _exhaust(self, job: Job) -> None:
        """Let a request decode no more: its last token is on the way."""
        del self._decoding[job.id]
        self._decoding_rows = None

    def _shareable(self, job: Job) -> int:
        return len(job.chain) * self._cache.page_size

    def _rows_of_decoding(self) -> Ints:
        if self._decoding_rows is None:
            self._decoding_rows = np.array([job.row for job in self._decoding.values()], np.int64)
        return self._decoding_rows

    def _cut(self, job: Job, budget: int, chunks: list[Chunk]) -> int:
        """Add the next part of a prompt to the step; return its tokens."""
        tokens = min(job.to_compute, budget)
        chunks.append(Chunk(job, job.context, job.context + tokens, tokens == job.to_compute))
        return tokens

    # Memory.

    def _grow(self) -> None:
        """Give every decoding request a place for its next token, preempting the youngest where there is none."""
        full = self._rows.full(self._rows_of_decoding())
        while len(full) > self._cache.available:
            self._preempt(self.running[next(reversed(self.running))])
            full = self._rows.full(self._rows_of_decoding())
        if len(full):
            decoding = list(self._decoding.values())
            for place in full.tolist():
                self._cache.grow(_held(decoding[place]), 1)
                self._rows.copy_pages(decoding[place])
            self._room.grew(len(full))

    def _preempt(self, job: Job) -> None:
        assert not job.pending, "a preempted request has tokens on the way"
        self.preemptions += 1
        self._stop(job)
        self._room.retracted()
        self.waiting[job.id] = job
        self._profile.lap(ALLOCATION)
        self._policy.preempt(job.id, output=job.produced, keep_hold=False)
        self._profile.lap(POLICY)
        self._observer.queued(job.client, perf_counter_ns(), +1)
        self._pass_due = self._steps

    # Admission.

    def _make_pass(self, budget: int, chunks: list[Chunk]) -> None:
        """Admit what the policy offers, while the step has tokens left and memory has room."""
        config, policy, lap = self._config, self._policy, self._profile.lap
        self._pass_due = self._steps + config.pass_interval
        policy.begin_pass()
        refused = 0
        while budget and len(self.running) < config.max_batch and refused < config.lookahead:
            offered = policy.peek()
            lap(POLICY)
            if offered is None:
                break
            job = self.waiting[offered.id]
            match = self._cache.match(job.all_data(), job.request.namespace)
            fits = self._room.admits(job, match)
            lap(ALLOCATION)
            if fits:
                self._admit(job, match)
                budget -= self._cut(job, budget, chunks)
            else:
                policy.defer(offered.id, Refusal.NO_ROOM)
                refused += 1
        else:
            if not budget:  # there may be more for the next step
                self._pass_due = self._steps
        if self.waiting and not self.running:
            self._rescue(budget, chunks)
        lap(POLICY)

    def _rescue(self, budget: int, chunks: list[Chunk]) -> None:
        """Admit the oldest request: an engine must not stand still because a policy offers nobody."""
        self.stalls += 1
        job = next(iter(self.waiting.values()))
        match = self._cache.match(job.all_data(), job.request.namespace)
        if not self._room.admits(job, match):
            raise HostError(f"request {job.id!r} does not fit into an empty engine")
        self._admit(job, match)
        self._cut(job, budget, chunks)

    def _admit(self, job: Job, match: Match) -> None:
        data = job.all_data()
        job.feed = np.frombuffer(data, "<i4")
        job.context = len(match.nodes) * self._cache.page_size
        extend = len(job.tokens) - job.context
        receipt = self._policy.take(job.id, extend=extend, reserve=job.remaining)
        self._profile.lap(POLICY)
        now = perf_counter_ns()
        again = job.admissions > 0
        job.admissions += 1
        if not again:
            job.admitted_ns, job.cached_tokens = now, job.context
        self._observer.admitted(job, now, extend=extend, charged=receipt.charged, again=again)
        self._observer.queued(job.client, now, -1)
        del self.waiting[job.id]
        more = self._cache.pages_for(len(data) // TOKEN_BYTES) - len(match.nodes)
        job.holding = self._cache.hold(match, more, job.request.namespace)
        self._rows.add(job)
        self._room.started(job)
        self.running[job.id] = job
        self._prefilling.append(job)
        self._profile.lap(ALLOCATION)


def _held(job: Job) -> Holding:
    """Return what a running request holds."""
    assert job.holding is not None
    return job.holding
