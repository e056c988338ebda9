"""The engine: requests in, tokens out, one step at a time.

    engine = Engine(runner, policy_config, EngineConfig())
    engine.add("alice", prompt_tokens, SamplingParams(max_tokens=64))
    while engine.busy:
        for output in engine.step(): ...

With `overlap`, the step after the present one is scheduled and launched before the present one's tokens are known:
`step` then returns the tokens of the step before. Whoever is found to be done at that moment has a token too many
under way: it is dropped, never charged, and its owner never sees it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from time import perf_counter_ns

from attrs import frozen

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import FairprefixError, reject
from fairprefix.core.policy import Policy
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.core.request import Client
from fairprefix.gpu_ref_engine.batch import Launched, Runner, StepResult
from fairprefix.gpu_ref_engine.config import EngineConfig, Nobody, Observer, RequestError
from fairprefix.gpu_ref_engine.job import Finish, Job, Output, make_job
from fairprefix.gpu_ref_engine.kvcache import KVCache
from fairprefix.gpu_ref_engine.profile import LAUNCH, POLICY, POST, PREPARATION, SYNC, Profile
from fairprefix.gpu_ref_engine.rows import Rows
from fairprefix.gpu_ref_engine.sampling import SamplingParams
from fairprefix.gpu_ref_engine.scheduler import Plan, Scheduler
from fairprefix.gpu_ref_engine.stop import StopWatch

MakePolicy = Callable[[PolicyConfig, PrefixIndex], Policy]


class StepError(FairprefixError):
    """The model failed in a step; the requests that ran are over, and the engine may go on with the others."""

    outputs: Sequence[Output] = ()
    """What has to be handed out all the same: the last output of every request that ran."""


@frozen(eq=False)
class _Flight:
    """A launched step."""

    launched: Launched
    jobs: Sequence[Job]
    """Whose tokens it samples, in the order of the result."""


class Engine:
    """Runs a model under a policy. Not thread-safe: `fairprefix.gpu_ref_engine.server.worker` gives it a thread.

    Args:
        runner: the model on its device.
        policy_config: the policy's parameters; its reservation mode must be the engine's.
        config: the engine's own parameters.
        eos: tokens that end an answer.
        make: makes the policy.
        observer: who is told about everything.

    Raises:
        ConfigError: the two configurations contradict each other.
    """

    def __init__(
        self,
        runner: Runner,
        policy_config: PolicyConfig,
        config: EngineConfig | None = None,
        *,
        eos: Collection[int] = (),
        make: MakePolicy = make_policy,
        observer: Observer | None = None,
    ) -> None:
        config = config or EngineConfig(reservation=policy_config.reservation)
        self.config: EngineConfig = config
        if policy_config.reservation != config.reservation:
            raise reject("reservation", policy_config.reservation, f"the engine's, {config.reservation!r}")
        self.runner = runner
        self.policy_config = policy_config
        self.cache: KVCache = KVCache(
            runner.pages, runner.page_size, PrefixIndex(runner.page_size), reuse=config.prefix_cache
        )
        self.policy: Policy = make(policy_config, self.cache.index)
        self.profile: Profile = Profile(config.profile_steps)
        self._eos = frozenset(eos)
        self._rows = Rows(config.max_batch, runner.longest, runner.page_size)
        self._observer = observer or Nobody()
        self._scheduler = Scheduler(config, self.cache, self._rows, self.policy, self._observer, self.profile)
        self._jobs: dict[str, Job] = {}
        self._flight: _Flight | None = None
        self._made = 0

    # Requests.

    def check(self, prompt: Sequence[int], params: SamplingParams) -> None:
        """Refuse a request that can never be served.

        Raises:
            RequestError: it is empty or too long, or a token is not the model's.
        """
        runner, total = self.runner, len(prompt) + params.max_tokens
        if not prompt:
            raise RequestError("the prompt is empty: expected at least one token")
        longest = min(runner.longest, runner.pages * runner.page_size)
        if total > longest:
            raise RequestError(
                f"the prompt has {len(prompt)} tokens and max_tokens is {params.max_tokens}, together {total}: "
                f"expected at most {longest}"
            )
        if not 0 <= min(prompt) <= max(prompt) < runner.vocabulary:
            raise RequestError(f"prompt: expected token ids from 0 to {runner.vocabulary - 1}")

    def make_job(
        self,
        client: Client,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        id: str,
        stop: StopWatch | None = None,
        namespace: str = "",
    ) -> Job:
        """Return a request that is ready to be added; any thread may call this.

        Raises:
            RequestError: it can never be served.
        """
        self.check(prompt, params)
        size, reuse = self.runner.page_size, self.config.prefix_cache
        return make_job(id, client, prompt, params, page_size=size, stop=stop, namespace=namespace, reuse=reuse)

    def add(
        self,
        client: Client,
        prompt: Sequence[int],
        params: SamplingParams,
        *,
        id: str | None = None,
        stop: StopWatch | None = None,
        namespace: str = "",
    ) -> str:
        """Queue a request and return its id.

        Args:
            client: whose it is.
            prompt: token ids.
            params: how to go on from there.
            id: unique among the requests that are not over; made up unless given.
            stop: finds `params.stop` in the text; needed where there are stop strings.
            namespace: prompts share cached pages only within one.

        Raises:
            RequestError: it can never be served, or the id is taken.
        """
        self._made += 1
        job = self.make_job(
            client, prompt, params, id=id or f"request-{self._made}", stop=stop, namespace=namespace
        )
        self.submit(job)
        return job.id

    def submit(self, job: Job) -> None:
        """Queue a request that `make_job` made.

        Raises:
            RequestError: the id is taken, or there are stop strings and nothing to find them.
        """
        if job.id in self._jobs:
            raise RequestError(f"request id {job.id!r} is taken by a request that is not over")
        if job.params.stop and job.stop is None:
            raise RequestError(f"request {job.id!r} has stop strings: the engine needs a StopWatch to find them")
        job.arrived_ns = job.arrived_ns or perf_counter_ns()
        self._jobs[job.id] = job
        self._scheduler.add(job)

    def abort(self, id: str, why: Finish = Finish.ABORT) -> bool:
        """Give up a request, wherever it stands; return whether it was still there."""
        job = self._jobs.get(id)
        if job is None:
            return False
        self._end(job, why, perf_counter_ns())
        return True

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._jobs) or self._flight is not None

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._scheduler.waiting)

    @property
    def running(self) -> int:
        """Requests that run."""
        return len(self._scheduler.running)

    @property
    def preemptions(self) -> int:
        """Requests that were preempted so far."""
        return self._scheduler.preemptions

    @property
    def stalls(self) -> int:
        """How often the policy offered nobody although nothing ran, and the oldest request was served."""
        return self._scheduler.stalls

    # Steps.

    def step(self) -> list[Output]:
        """Do one step and return what is new.

        Raises:
            StepError: the model failed; the requests that ran are over, and the engine may go on.
        """
        self.profile.begin()
        outputs: list[Output] = []
        plan: Plan | None = None
        try:
            before = self._flight
            if before is not None and (not self.config.overlap or self._scheduler.needs_results()):
                outputs += self._land(before)
                before = None
            plan = self._scheduler.plan()
            if plan is not None:
                self._launch(plan)
            if before is not None:
                outputs += self._land(before)
            if self._flight is not None and not self.config.overlap:
                outputs += self._land(self._flight)
        except Exception as problem:
            failure = StepError(f"a step failed: {type(problem).__name__}: {problem}")
            failure.outputs = outputs + self._give_up()
            raise failure from problem
        finally:
            self.profile.end(*(plan.tokens, plan.sequences) if plan else (0, 0))
        return outputs

    def _launch(self, plan: Plan) -> None:
        batch = self._rows.batch(plan.decodes, plan.rows, plan.chunks)
        self.profile.lap(PREPARATION)
        launched = self.runner.launch(batch)
        self.profile.lap(LAUNCH)
        self._flight = _Flight(launched, plan.sampled())
        self._scheduler.launched(plan)
        self.profile.lap(POST)

    def _land(self, flight: _Flight) -> list[Output]:
        """Wait for a launched step, and deal with its tokens."""
        result = flight.launched.wait()
        self.profile.lap(SYNC)
        if flight is self._flight:
            self._flight = None
            self._rows.know_all()
        outputs = self._deal(flight.jobs, result)
        self.profile.lap(POST)
        return outputs

    def _deal(self, jobs: Sequence[Job], result: StepResult) -> list[Output]:
        """Hand out sampled tokens, charge them, and settle who is done."""
        now = perf_counter_ns()
        charges: dict[Client, int] = {}
        outputs: list[Output] = []
        done: list[Job] = []
        for place, (job, token) in enumerate(zip(jobs, result.tokens.tolist(), strict=True)):
            job.pending -= 1
            if job.over is not None:  # it ended while this token was under way
                continue
            job.tokens.append(token)
            self._rows.know(job, token)
            charges[job.client] = charges.get(job.client, 0) + 1
            if job.first_token_ns < 0:
                job.first_token_ns = now
            job.over = self._verdict(job, token)
            if job.over is not None:
                done.append(job)
            outputs.append(
                Output(
                    id=job.id,
                    tokens=(token,),
                    logprobs=(result.logprobs[place],) if job.params.logprobs is not None else (),
                    finish=job.over,
                    cached_tokens=job.cached_tokens,
                )
            )
        self.profile.lap(POST)
        if charges:
            self.policy.produced(charges)
            self.profile.lap(POLICY)
            self._observer.produced(charges, now)
        for job in done:
            assert job.over is not None
            self._end(job, job.over, now)
        return outputs

    def _verdict(self, job: Job, token: int) -> Finish | None:
        params = job.params
        if (token in self._eos and not params.ignore_eos) or token in params.stop_token_ids:
            return Finish.STOP
        if job.stop is not None:
            job.stop.add((token,))
            if job.stop.stopped:
                return Finish.STOP
        return Finish.LENGTH if job.produced == params.max_tokens else None

    def _end(self, job: Job, why: Finish, now: int) -> None:
        job.over, job.finished_ns = why, now
        del self._jobs[job.id]
        self._scheduler.end(job)

    def _give_up(self) -> list[Output]:
        """End everything that runs, and forget what is cached: nobody knows what is in memory now."""
        self._flight = None
        self._rows.know_all()
        lost = list(self._scheduler.running.values())
        for job in lost:
            job.context = 0  # nothing of it is cached
            self._end(job, Finish.ERROR, perf_counter_ns())
        self.cache.clear()
        return [Output(id=job.id, tokens=(), finish=job.over, cached_tokens=job.cached_tokens) for job in lost]

    def check_integrity(self) -> None:
        """Check that every page, row and request is accounted for.

        Raises:
            AssertionError: something is wrong.
        """
        scheduler = self._scheduler
        assert self._jobs.keys() == scheduler.waiting.keys() | scheduler.running.keys()
        holdings = [job.holding for job in scheduler.running.values()]
        self.cache.check_integrity(holding for holding in holdings if holding is not None)
        assert all(job.holding is None for job in scheduler.waiting.values())
        self._rows.check_integrity([job.row for job in scheduler.running.values()])
