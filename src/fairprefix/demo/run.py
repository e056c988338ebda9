"""One policy at work: the questions arrive in real time, the model answers, everything is taken down."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

from attrs import define, field, frozen

from fairprefix.core.bounds import Engine as EngineLimits
from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.ledger import Ledger
from fairprefix.core.request import Client
from fairprefix.demo.record import EngineRecord
from fairprefix.demo.workload import ANSWER_TOKENS, Question
from fairprefix.gpu_ref_engine.batch import Runner
from fairprefix.gpu_ref_engine.config import EngineConfig
from fairprefix.gpu_ref_engine.engine import Engine
from fairprefix.gpu_ref_engine.tokenizer import Tokenizer
from fairprefix.sim.simulate import RunResult, summarise

MAX_BATCH, CHUNK = 8, 256
_IDLE_S = 0.002


@frozen(eq=False)
class Answered:
    """A question and what the model said."""

    question: Question
    text: str
    latency_s: float
    cached: int


@define(eq=False)
class Standing:
    """How one client fares so far."""

    asked: int = 0
    answered: int = 0
    running: int = 0
    service: int = 0
    latency_s: float = 0.0
    """Summed over its answers."""


@define(eq=False)
class Scene:
    """What is to be seen while a policy runs."""

    policy: str
    questions: int
    clients: dict[Client, Standing]
    seconds: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    latest: Answered | None = None

    @property
    def answered(self) -> int:
        """Questions that are answered."""
        return sum(client.answered for client in self.clients.values())


@define(eq=False)
class Outcome:
    """What a run gave."""

    result: RunResult
    answers: list[Answered]
    profile: Mapping[str, float]
    """Share of each phase of the steps."""
    scene: Scene


@define(eq=False)
class _Open:
    """A question that is being answered."""

    question: Question
    tokens: list[int] = field(factory=list)


Show = Callable[[Scene], None]


def run_policy(
    policy: str, runner: Runner, tokenizer: Tokenizer, asked: Sequence[Question], show: Show
) -> Outcome:
    """Let a policy serve the questions, in real time.

    Args:
        policy: its name.
        runner: the model; whatever its memory holds is forgotten.
        tokenizer: the model's.
        asked: the questions, in order of time.
        show: called with the scene after every step.
    """
    return _Run(policy, runner, tokenizer, asked, show).carry_out()


def policy_config(policy: str, asked: Sequence[Question]) -> PolicyConfig:
    """Return the settings under which policies are compared.

    DLPM's quantum is what a document costs: a client that is served keeps its turn for as long as that pays.
    """
    return PolicyConfig(policy=policy, quantum=max(len(one.prompt) for one in asked), reservation="full")


def engine_limits(runner: Runner, asked: Sequence[Question]) -> EngineLimits:
    """Return what a bound needs to know of the engine and of these questions."""
    return EngineLimits(
        reservation="full",
        # A token is stored one step after it was produced.
        kv_tokens=runner.pages * runner.page_size + MAX_BATCH,
        max_running=MAX_BATCH,
        longest_input=max(len(question.prompt) for question in asked),
        longest_output=ANSWER_TOKENS,
    )


class _Run:
    def __init__(
        self, policy: str, runner: Runner, tokenizer: Tokenizer, asked: Sequence[Question], show: Show
    ) -> None:
        self._tokenizer = tokenizer
        self._asked = asked
        self._show = show
        self._runner = runner
        self._config = policy_config(policy, asked)
        self._start = time.perf_counter_ns()
        self._record = EngineRecord(Ledger(self._config.cost), self._start)
        self._engine = Engine(
            runner,
            self._config,
            EngineConfig(max_batch=MAX_BATCH, chunk=CHUNK, reservation="full"),
            eos=tokenizer.eos,
            make=make_policy,
            observer=self._record,
        )
        clients = dict.fromkeys(question.client for question in asked)
        self._scene = Scene(policy, len(asked), {client: Standing() for client in clients})
        self._open: dict[str, _Open] = {}
        self._answers: list[Answered] = []

    def carry_out(self) -> Outcome:
        """Ask everything when it is due, and work until all is answered."""
        due = deque(self._asked)
        while due or self._engine.busy:
            self._ask(due)
            if self._engine.busy:
                self._step()
            else:
                time.sleep(_IDLE_S)
        return Outcome(self._result(), self._answers, self._engine.profile.shares(), self._scene)

    def _ask(self, due: deque[Question]) -> None:
        now = time.perf_counter_ns() - self._start
        while due and due[0].due_ns <= now:
            question = due.popleft()
            self._open[question.id] = _Open(question)
            self._scene.clients[question.client].asked += 1
            self._engine.add(question.client, question.prompt, question.params, id=question.id)

    def _step(self) -> None:
        for output in self._engine.step():
            entry = self._open[output.id]
            entry.tokens += output.tokens
            if output.finish is not None:
                self._answered(entry, output.cached_tokens)
        self._scene.seconds = (time.perf_counter_ns() - self._start) / 1e9
        for client, points in self._record.record.timeline.items():
            self._scene.clients[client].service = points[-1][1]
        self._show(self._scene)

    def _answered(self, entry: _Open, cached: int) -> None:
        question = self._open.pop(entry.question.id).question
        scene, standing = self._scene, self._scene.clients[question.client]
        latency = (time.perf_counter_ns() - self._start - question.due_ns) / 1e9
        standing.answered += 1
        standing.latency_s += latency
        scene.prompt_tokens += len(question.prompt)
        scene.cached_tokens += cached
        text = self._tokenizer.decode(entry.tokens).strip()
        scene.latest = Answered(question, text, latency, cached)
        self._answers.append(scene.latest)

    def _result(self) -> RunResult:
        engine = self._engine
        counts = {
            "preemptions": engine.preemptions,
            "evicted_blocks": engine.cache.evicted_pages,
            "steps": engine.profile.steps,
            "refill_rounds": getattr(engine.policy, "rounds", None),
        }
        limits = engine_limits(self._runner, self._asked)
        duration = time.perf_counter_ns() - self._start
        return summarise(self._record.record, self._config, limits, duration, counts)


def seconds_needed(runner: Runner, asked: Sequence[Question]) -> float:
    """Return about how long the three policies take for these questions on this machine, after a short trial."""
    config = EngineConfig(max_batch=MAX_BATCH, chunk=CHUNK, reservation="full", prefix_cache=False)
    engine = Engine(runner, policy_config("fcfs", asked), config)
    trial, spent = asked[0], []
    for _ in range(2):  # the first one warms up
        engine.add("trial", trial.prompt, trial.params)
        start = time.perf_counter()
        while engine.busy:
            engine.step()
        spent.append(time.perf_counter() - start)
    per_token = min(spent) / (len(trial.prompt) + _STEP * ANSWER_TOKENS)
    prompts = sum(len(question.prompt) for question in asked)
    return per_token * (_COMPUTED * prompts + _STEPS_PER_OUTPUT * _STEP * ANSWER_TOKENS * len(asked))


_STEP = 45
"""A step with no more than one output token takes as long as so many tokens of a prompt."""
_COMPUTED = 0.6
"""Share of all prompt tokens that is computed, summed over the three policies: most of it by VTC."""
_STEPS_PER_OUTPUT = 0.65
"""Steps per output token, summed over the three policies: up to eight answers share a step."""
