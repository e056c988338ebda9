"""A virtual-time engine: continuous batching, chunked prefill and paged KV memory, without a model.

It drives a policy exactly as a real engine does (`fairprefix.core.policy`): it delivers arrivals, makes scheduling
passes, admits what fits, preempts when memory runs out, and reports every token. Time is virtual and whole, so the
same input gives the same result, bit for bit; runs of decode steps between two events are jumped over.

A pass is made when something has arrived, finished or been preempted, and otherwise every `pass_interval` steps.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence

from attrs import define, evolve, field, frozen

from fairprefix.core.policy import Policy, Refusal
from fairprefix.core.request import Client
from fairprefix.sim.decoderun import DecodeRun
from fairprefix.sim.job import Arrivals, EngineConfig, Job, Observer, OversizeError, StalledError, admissible
from fairprefix.sim.kvcache import Holding, KVCache
from fairprefix.sim.steptime import StepTimeModel
from fairprefix.sim.trace import TraceRequest

__all__ = ["EngineConfig", "Job", "Observer", "OversizeError", "StalledError", "VirtualEngine"]

PS_PER_NS = 1000


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


@frozen
class _Step:
    """A step, or a run of pure decode steps, that has begun."""

    begun_ps: int
    ended_ps: int
    steps: int
    produces: list[Job]
    """Who produces a token in each of the steps."""
    through: list[Job]
    """Those of them whose prompts are through with this step."""
    run: DecodeRun | None = None


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
        shared_queue: the queue of several engines whose policies offer requests from it (late binding).
    """

    def __init__(
        self,
        config: EngineConfig,
        step_time: StepTimeModel,
        cache: KVCache,
        policy: Policy,
        observer: Observer,
        ready_ns: Callable[[TraceRequest], int] = lambda _request: 0,
        shared_queue: dict[str, Job] | None = None,
    ) -> None:
        self.clock_ps: int = 0
        self.steps: int = 0
        self.finished: int = 0
        self.preemptions: int = 0
        self._config = config
        self._step_time = step_time
        self._cache = cache
        self._policy = policy
        self._observer = observer
        self._ready_ns = ready_ns
        self._batch = _Batch()
        self._waiting: dict[str, Job] = {} if shared_queue is None else shared_queue
        self._shares = shared_queue is not None
        self._blocked: list[tuple[int, str]] = []
        self._pass_due = 0
        """Number of the step before which the next pass is made."""
        self._running: _Step | None = None
        self._outputs: dict[Client, tuple[int, int]] = {}
        """Per client: finished requests, and output tokens of them together."""

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
        arrivals = deque(admissible(requests, self._config, self._observer))
        rejected = len(requests) - len(arrivals)
        while arrivals or self.has_work():
            self.deliver(arrivals)
            event_ns = self._next_event_ns(arrivals)
            if self.begin(event_ns):
                self.complete()
                on_finish(rejected + self.finished)
            elif event_ns is None:
                raise self.stalled()
            else:
                self.wait_until(event_ns * PS_PER_NS)

    # What a cluster of engines is driven by (`fairprefix.sim.cluster`).

    @property
    def ends_ps(self) -> int | None:
        """When the step ends that has begun; None between steps."""
        return self._running.ended_ps if self._running else None

    def has_work(self) -> bool:
        """Return whether anything waits, is blocked or runs."""
        return bool(self._waiting or self._blocked or self._batch.jobs)

    def stalled(self) -> StalledError:
        """Return the error for requests that wait although nothing runs and nothing will happen."""
        return StalledError(
            f"{len(self._waiting)} requests wait in an empty engine, and policy "
            f"{type(self._policy).__name__} offers none of them"
        )

    def wait_until(self, at_ps: int) -> None:
        """Let an engine that does nothing wait."""
        self.clock_ps = max(self.clock_ps, at_ps)

    def begin(self, event_ns: int | None = None) -> bool:
        """Make a scheduling pass if one is due and begin the next step; return whether anything runs.

        Args:
            event_ns: when something is going to happen that the engine has to look up for, if that is known.
        """
        if self._waiting and (self.steps >= self._pass_due or not self._batch.jobs):
            self._make_pass()
        if not self._batch.jobs:
            return False
        if self._config.reservation == "none":
            self._make_room()
        self._running = self._mixed_step() if self._batch.prefilling else self._decode_steps(event_ns)
        return True

    def interrupt(self, at_ns: int) -> None:
        """Look up after the step during which something happens that was not known before."""
        self._pass_due = self.steps
        step = self._running
        if step is None or step.run is None:
            return
        steps = min(step.steps, step.run.steps_within(at_ns * PS_PER_NS - step.begun_ps) + 1)
        if steps < step.steps:
            self._running = evolve(step, steps=steps, ended_ps=step.begun_ps + step.run.total_ps(steps))

    def complete(self) -> None:
        """End the step that has begun, and report what it produced."""
        step = self._running
        assert step is not None
        self._running = None
        self.clock_ps = step.ended_ps
        self.steps += step.steps
        for job in step.through:
            self._batch.decoding[job.request.id] = job
        self._produce(step.produces, step.steps)

    def crash(self, at_ns: int) -> list[Job]:
        """Lose all requests and the cache; return the requests. What was produced by then stays produced.

        The policy outlives the engine, as that of a gateway does; all requests are finished for it.
        """
        step = self._running
        self._running = None
        if step is not None and step.run is not None:
            whole = step.run.steps_within(at_ns * PS_PER_NS - step.begun_ps)
            if whole:
                self._running = evolve(step, steps=whole, ended_ps=at_ns * PS_PER_NS)
                self.complete()
        self.wait_until(at_ns * PS_PER_NS)
        queued = [] if self._shares else list(self._waiting.values())
        for job in queued:
            self._observer.queued(job.request.client, self.clock_ns, -1)
        lost = [*self._batch.jobs.values(), *queued]
        for job in lost:
            self._policy.finish(job.request.id, output=job.produced)
            if job.holding is not None:
                self._cache.release(job.holding)
                job.holding = None
        for job in queued:
            del self._waiting[job.request.id]
        self._cache.clear()
        self._batch = _Batch()
        return lost

    # Arrivals.

    def _next_event_ns(self, arrivals: Arrivals) -> int | None:
        times = [arrivals[0][1].arrival_ns] if arrivals else []
        times += [self._blocked[0][0]] if self._blocked else []
        return min(times, default=None)

    def deliver(self, arrivals: Arrivals) -> None:
        """Let everything arrive, and become ready, that is due."""
        now = self.clock_ns
        while arrivals and arrivals[0][1].arrival_ns <= now:
            self.add(Job.of(*arrivals.popleft()))
        while self._blocked and self._blocked[0][0] <= now:
            id = heapq.heappop(self._blocked)[1]
            self._policy.unblock(id)
            self._observer.queued(self._waiting[id].request.client, now, +1)
            self._pass_due = self.steps

    def share(self, job: Job) -> None:
        """Let a request arrive, whatever the engine is doing and without a word to its observer."""
        self._waiting[job.request.id] = job
        self._policy.arrive(job.request)

    def add(self, job: Job) -> None:
        """Let a request arrive now."""
        self.share(job)
        self._observer.queued(job.request.client, self.clock_ns, +1)
        self._pass_due = self.steps

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
        receipt = self._policy.take(request.id, extend=extend, reserve=self._predicted(job, output_left))
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

    def _predicted(self, job: Job, output_left: int) -> int:
        """Return how much output the policy is told to expect."""
        if self._config.predict == "limit":
            return output_left
        count, tokens = self._outputs.get(job.request.client, (0, 0))
        return min(output_left, max(tokens // count - job.produced, 1)) if count else output_left

    # Steps.

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
        self._observer.preempted(job)
        self._pass_due = self.steps

    def _mixed_step(self) -> _Step:
        decoding = list(self._batch.decoding.values())
        context = sum(job.context for job in decoding)
        chunks, prefilled = self._prefill(max(self._config.chunk - len(decoding), 1))
        time_ps = self._step_time.step_ps(prefills=chunks, decodes=len(decoding), context=context)
        return _Step(self.clock_ps, self.clock_ps + time_ps, 1, decoding + prefilled, prefilled)

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

    def _decode_steps(self, event_ns: int | None) -> _Step:
        """Begin a run of pure decode steps, up to the next event."""
        jobs = list(self._batch.decoding.values())
        run = self._step_time.decode_run(len(jobs), sum(job.context for job in jobs))
        steps = min(job.trace.output_tokens - job.produced for job in jobs)
        if event_ns is not None:
            # The step during which something arrives is the last one before the engine looks up.
            steps = min(steps, run.steps_within(event_ns * PS_PER_NS - self.clock_ps) + 1)
        if self._waiting:
            steps = min(steps, max(self._pass_due - self.steps, 1))
        if self._config.reservation == "none":
            steps = min(steps, self._cache.room // len(jobs))
        return _Step(self.clock_ps, self.clock_ps + run.total_ps(steps), steps, jobs, [], run)

    def _produce(self, jobs: list[Job], steps: int) -> None:
        """Let every one of `jobs` produce a token in each of `steps` steps."""
        tokens: dict[Client, int] = {}
        now, grows = self.clock_ns, self._config.reservation == "none"
        done: list[Job] = []
        for job in jobs:
            produced = job.produced = job.produced + steps
            job.context += steps
            client = job.request.client
            tokens[client] = tokens.get(client, 0) + steps
            if job.first_token_ns < 0:
                job.first_token_ns = now
            if produced == job.trace.output_tokens:
                done.append(job)
            if grows:
                self._cache.grow(_held(job), steps)
        self._policy.produced(tokens)
        self._observer.produced(tokens, now)
        for job in done:
            self._finish(job)

    def _finish(self, job: Job) -> None:
        job.finished_ns = self.clock_ns
        self.finished += 1
        count, tokens = self._outputs.get(job.request.client, (0, 0))
        self._outputs[job.request.client] = (count + 1, tokens + job.produced)
        self._batch.remove(job)
        if job.trace.output_blocks:
            # The last token was produced, but never computed.
            computed = job.request.input_tokens + job.produced - 1
            self._cache.cache_output(_held(job), job.trace.output_blocks, computed)
        self._cache.release(_held(job))
        job.holding = None
        self._policy.finish(job.request.id, output=job.produced)
        self._observer.finished(job)
        self._pass_due = self.steps


def _held(job: Job) -> Holding:
    """Return what a running request holds."""
    assert job.holding is not None
    return job.holding
