"""A virtual-time engine: continuous batching, chunked prefill and paged KV memory, without a model.

It drives a policy exactly as a real engine does (`fairprefix.core.policy`): it delivers arrivals, makes scheduling
passes, admits what fits, preempts when memory runs out, and reports every token. Time is virtual and whole, so the
same input gives the same result, bit for bit; runs of decode steps between two events are jumped over.

A pass is made when something has arrived, finished or been preempted, and otherwise every `pass_interval` steps.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from attrs import define, field, frozen

from fairprefix.core.config import RESERVATIONS
from fairprefix.core.errors import FairprefixError, at_least, one_of
from fairprefix.core.policy import Policy, Refusal
from fairprefix.core.request import Client, Request
from fairprefix.sim.kvcache import Holding, KVCache
from fairprefix.sim.steptime import StepTimeModel
from fairprefix.sim.trace import TraceRequest

PS_PER_NS = 1000


class OversizeError(FairprefixError, ValueError):
    """A request can never fit into the KV memory."""


class StalledError(FairprefixError):
    """Requests wait, nothing runs, and the policy offers nobody that fits."""


@frozen(kw_only=True)
class EngineConfig:
    """The engine's own parameters.

    Raises:
        ConfigError: a value is outside its range.
    """

    kv_tokens: int
    """M: size of the KV memory."""
    max_batch: int = 256
    """N: the most requests that run at once."""
    chunk: int = 2048
    """The most tokens (prefill and decode) that one step computes."""
    reservation: str = "full"
    """`full`: a request is admitted when its prompt and its longest output fit. `none`: when its prompt and one
    token fit; the youngest request is preempted when memory runs out, and computed again later."""
    pass_interval: int = 10
    """Steps after which a scheduling pass is made although nothing has happened."""
    lookahead: int = 16
    """Refusals for lack of room after which a pass ends."""
    oversize: str = "error"
    """What to do with a request that can never fit: `error`, or `reject` and count it."""

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        for name in ("kv_tokens", "max_batch", "chunk", "pass_interval", "lookahead"):
            at_least(name, getattr(self, name), 1)
        one_of("reservation", self.reservation, RESERVATIONS)
        one_of("oversize", self.oversize, ("error", "reject"))


class Observer(Protocol):
    """Who wants to know what happens; times are nanoseconds of virtual time."""

    def queued(self, client: Client, at: int, change: int) -> None:
        """`change` (+1 or -1) requests of a client wait more than before."""
        ...

    def admitted(self, job: Job, at: int, *, extend: int, charged: int, again: bool) -> None:
        """A request starts (`again`: after a preemption) with `extend` tokens to compute."""
        ...

    def produced(self, tokens: dict[Client, int], at: int) -> None:
        """Output tokens were produced."""
        ...

    def finished(self, job: Job) -> None:
        """A request has produced its last token."""
        ...

    def rejected(self, request: TraceRequest) -> None:
        """A request can never fit."""
        ...


@define(eq=False)
class Job:
    """One request on its way through the engine."""

    trace: TraceRequest
    request: Request
    holding: Holding | None = None
    admissions: int = 0
    context: int = 0
    """Its tokens in KV memory."""
    to_prefill: int = 0
    """Tokens that have to be computed before it produces its next token."""
    produced: int = 0
    admitted_ns: int = -1
    first_token_ns: int = -1
    finished_ns: int = -1
    cached_tokens: int = 0
    """Cached prefix at its first admission."""


@define(eq=False)
class _Batch:
    """What runs, in the order of admission."""

    jobs: dict[str, Job] = field(factory=dict)
    prefilling: deque[Job] = field(factory=deque)
    decoding: dict[str, Job] = field(factory=dict)

    def youngest(self) -> Job:
        return self.jobs[next(reversed(self.jobs))]

    def add(self, job: Job) -> None:
        self.jobs[job.request.id] = job
        self.prefilling.append(job)

    def remove(self, job: Job) -> None:
        del self.jobs[job.request.id]
        if self.decoding.pop(job.request.id, None) is None:
            self.prefilling.remove(job)


class VirtualEngine:
    """Runs the requests of a trace under one policy.

    Args:
        config: the engine's parameters.
        step_time: how long a step takes.
        cache: the KV memory; the policy looks at `cache.index`.
        policy: who is admitted next.
        observer: who is told about everything.
        ready_ns: when a request stops being blocked for reasons other than room (its grammar is compiled, its
            adapter loaded...), by the request; the default is never blocked.
    """

    def __init__(
        self,
        config: EngineConfig,
        step_time: StepTimeModel,
        cache: KVCache,
        policy: Policy,
        observer: Observer,
        ready_ns: Callable[[TraceRequest], int] = lambda _request: 0,
    ) -> None:
        self.clock_ps = 0
        self.steps = 0
        self.finished = 0
        self.preemptions = 0
        self._config = config
        self._step_time = step_time
        self._cache = cache
        self._policy = policy
        self._observer = observer
        self._ready_ns = ready_ns
        self._batch = _Batch()
        self._waiting: dict[str, Job] = {}
        self._blocked: list[tuple[int, str]] = []
        self._pass_due = 0
        """Number of the step before which the next pass is made."""

    @property
    def clock_ns(self) -> int:
        """Virtual time in nanoseconds."""
        return self.clock_ps // PS_PER_NS

    def run(
        self, requests: Sequence[TraceRequest], on_finish: Callable[[int], None] = lambda _count: None
    ) -> None:
        """Serve the requests (in order of arrival) to the end; `on_finish` hears how many are done.

        Raises:
            OversizeError: a request can never fit and oversized ones are not rejected.
        """
        arrivals = deque(self._admissible(requests))
        rejected = len(requests) - len(arrivals)
        while arrivals or self._waiting or self._blocked or self._batch.jobs:
            self._deliver(arrivals)
            if self._waiting and (self.steps >= self._pass_due or not self._batch.jobs):
                self._make_pass()
            if not self._batch.jobs:
                self._skip_to_next_event(arrivals)
                continue
            self._step(self._next_event_ns(arrivals))
            on_finish(rejected + self.finished)

    # Arrivals.

    def _admissible(self, requests: Sequence[TraceRequest]) -> Iterable[tuple[int, TraceRequest]]:
        for number, request in enumerate(requests):
            # One more: the last token of a prompt that is cached as a whole is computed again.
            needed = request.input_tokens + request.max_output_tokens + 1
            if needed <= self._config.kv_tokens:
                yield number, request
            elif self._config.oversize == "reject":
                self._observer.rejected(request)
            else:
                raise OversizeError(
                    f"request {number} needs {needed} tokens ({request.input_tokens} in, at most "
                    f"{request.max_output_tokens} out, and one), the KV pool holds {self._config.kv_tokens}: "
                    "give a larger pool (--kv-tokens), or leave such requests out (--oversize reject)"
                )

    def _next_event_ns(self, arrivals: deque[tuple[int, TraceRequest]]) -> int | None:
        times = [arrivals[0][1].arrival_ns] if arrivals else []
        times += [self._blocked[0][0]] if self._blocked else []
        return min(times, default=None)

    def _deliver(self, arrivals: deque[tuple[int, TraceRequest]]) -> None:
        now = self.clock_ns
        while arrivals and arrivals[0][1].arrival_ns <= now:
            self._arrive(*arrivals.popleft())
        while self._blocked and self._blocked[0][0] <= now:
            id = heapq.heappop(self._blocked)[1]
            self._policy.unblock(id)
            self._observer.queued(self._waiting[id].request.client, now, +1)
            self._pass_due = self.steps

    def _arrive(self, number: int, trace: TraceRequest) -> None:
        request = Request(str(number), trace.client, trace.input_tokens, trace.max_output_tokens, trace.blocks)
        self._waiting[request.id] = Job(trace, request)
        self._policy.arrive(request)
        self._observer.queued(request.client, self.clock_ns, +1)
        self._pass_due = self.steps

    def _skip_to_next_event(self, arrivals: deque[tuple[int, TraceRequest]]) -> None:
        event = self._next_event_ns(arrivals)
        if event is None:
            raise StalledError(
                f"{len(self._waiting)} requests wait in an empty engine, and policy "
                f"{type(self._policy).__name__} offers none of them"
            )
        self.clock_ps = max(self.clock_ps, event * PS_PER_NS)

    # Scheduling.

    def _make_pass(self) -> None:
        self._pass_due = self.steps + self._config.pass_interval
        self._policy.begin_pass()
        refused = 0
        while len(self._batch.jobs) < self._config.max_batch and refused < self._config.lookahead:
            offered = self._policy.peek()
            if offered is None:
                return
            job = self._waiting[offered.id]
            ready = self._ready_ns(job.trace)
            if ready > self.clock_ns:
                self._policy.defer(offered.id, Refusal.BLOCKED)
                heapq.heappush(self._blocked, (ready, offered.id))
                self._observer.queued(offered.client, self.clock_ns, -1)
            elif not self._admit(job):
                self._policy.defer(offered.id, Refusal.NO_ROOM)
                refused += 1

    def _admit(self, job: Job) -> bool:
        request, cache = job.request, self._cache
        matched = cache.matched_blocks(request.blocks)
        # The last token of a prompt is always computed, into a place of its own.
        cached = min(matched * cache.block_size, request.input_tokens - 1)
        extend = request.input_tokens + job.produced - cached
        output_left = request.max_output - job.produced
        full = self._config.reservation == "full"
        if not cache.fits(request.blocks, matched, extend + (output_left if full else 1)):
            return False
        receipt = self._policy.take(request.id, extend=extend, reserve=output_left)
        again = job.admissions > 0
        job.admissions += 1
        job.context, job.to_prefill = cached, extend
        if not again:
            job.admitted_ns, job.cached_tokens = self.clock_ns, cached
        self._observer.admitted(job, self.clock_ns, extend=extend, charged=receipt.charged, again=again)
        self._observer.queued(request.client, self.clock_ns, -1)
        del self._waiting[request.id]
        job.holding = cache.hold(request.blocks, matched, extend + (output_left if full else 0))
        self._batch.add(job)
        return True

    # Steps.

    def _step(self, next_event_ns: int | None) -> None:
        """Compute one step, or a run of pure decode steps up to the next event."""
        if self._config.reservation == "none":
            self._make_room()
        if self._batch.prefilling:
            self._mixed_step()
        elif self._batch.decoding:
            self._decode_steps(next_event_ns)

    def _make_room(self) -> None:
        """Preempt the youngest requests until every other one can store a token."""
        while len(self._batch.jobs) > self._cache.room:
            self._preempt(self._batch.youngest())

    def _preempt(self, job: Job) -> None:
        self.preemptions += 1
        self._batch.remove(job)
        self._cache.release(_held(job))
        job.holding = None
        self._waiting[job.request.id] = job
        self._policy.preempt(job.request.id, output=job.produced, keep_hold=False)
        self._observer.queued(job.request.client, self.clock_ns, +1)
        self._pass_due = self.steps

    def _mixed_step(self) -> None:
        batch = self._batch
        decoding = list(batch.decoding.values())
        context = sum(job.context for job in decoding)
        chunks, prefilled = self._prefill(max(self._config.chunk - len(decoding), 1))
        self.clock_ps += self._step_time.step_ps(prefills=chunks, decodes=len(decoding), context=context)
        self.steps += 1
        for job in prefilled:
            batch.decoding[job.request.id] = job
        self._produce(decoding + prefilled, 1)

    def _prefill(self, budget: int) -> tuple[list[tuple[int, int]], list[Job]]:
        """Compute up to `budget` prompt tokens; return the chunks, and the requests that are through."""
        prefilling = self._batch.prefilling
        chunks: list[tuple[int, int]] = []
        through: list[Job] = []
        while prefilling and budget:
            job = prefilling[0]
            tokens = min(job.to_prefill, budget)
            chunks.append((tokens, job.context))
            budget -= tokens
            job.context += tokens
            job.to_prefill -= tokens
            self._cache.cache(_held(job), job.context)
            if not job.to_prefill:
                through.append(prefilling.popleft())
        return chunks, through

    def _decode_steps(self, next_event_ns: int | None) -> None:
        jobs = list(self._batch.decoding.values())
        run = self._step_time.decode_run(len(jobs), sum(job.context for job in jobs))
        steps = min(job.trace.output_tokens - job.produced for job in jobs)
        if next_event_ns is not None:
            # The step during which something arrives is the last one before the engine looks up.
            steps = min(steps, run.steps_within(next_event_ns * PS_PER_NS - self.clock_ps) + 1)
        if self._waiting:
            steps = min(steps, max(self._pass_due - self.steps, 1))
        if self._config.reservation == "none":
            steps = min(steps, self._cache.room // len(jobs))
        self.clock_ps += run.total_ps(steps)
        self.steps += steps
        self._produce(jobs, steps)

    def _produce(self, jobs: list[Job], steps: int) -> None:
        """Let every one of `jobs` produce a token in each of `steps` steps."""
        tokens: dict[Client, int] = {}
        now = self.clock_ns
        done: list[Job] = []
        for job in jobs:
            job.produced += steps
            job.context += steps
            tokens[job.request.client] = tokens.get(job.request.client, 0) + steps
            if job.first_token_ns < 0:
                job.first_token_ns = now
            if job.produced == job.trace.output_tokens:
                done.append(job)
            if self._config.reservation == "none":
                self._cache.grow(_held(job), steps)
        self._policy.produced(tokens)
        self._observer.produced(tokens, now)
        for job in done:
            self._finish(job)

    def _finish(self, job: Job) -> None:
        job.finished_ns = self.clock_ns
        self.finished += 1
        self._batch.remove(job)
        self._cache.release(_held(job))
        job.holding = None
        self._policy.finish(job.request.id, output=job.produced)
        self._observer.finished(job)
        self._pass_due = self.steps


def _held(job: Job) -> Holding:
    """Return what a running request holds."""
    assert job.holding is not None
    return job.holding
