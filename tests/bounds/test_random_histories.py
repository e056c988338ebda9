"""On any history of a small engine, no two backlogged clients come further apart than the bound says."""

from __future__ import annotations

import random
from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
from attrs import frozen
from hypothesis import given, settings

from fairprefix.core import bounds
from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.dlpm import DLPM
from fairprefix.core.ledger import Gap, Ledger, View
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.core.request import Request
from tests.support import TinyEngine

COST = PolicyConfig().cost


@frozen(kw_only=True)
class Load:
    """Clients, an engine, and the seed of what they ask for."""

    seed: int
    memory: int
    max_running: int
    longest_input: int
    longest_output: int
    weights: dict[str, int]
    steps: int = 120
    full: bool = True
    held: bool = False

    def engine(self) -> bounds.Engine:
        """Return the engine as the bounds know it."""
        return bounds.Engine(
            reservation="full" if self.full else "none",
            kv_tokens=self.memory,
            max_running=self.max_running,
            longest_input=self.longest_input,
            longest_output=self.longest_output,
            resume="held" if self.held else "gated",
        )

    def start(self, config: PolicyConfig) -> TinyEngine:
        """Return an engine with nothing to do yet."""
        index = PrefixIndex(2)
        return TinyEngine(
            make_policy(config, index),
            index,
            Ledger(cost=config.cost, weights=self.weights),
            memory=self.memory,
            max_running=self.max_running,
            full=self.full,
            held=self.held,
            cache_blocks=6,
        )

    def run(self, engine: TinyEngine) -> Iterator[None]:
        """Let the clients ask for something in every step; yield after each."""
        dice = random.Random(self.seed)  # noqa: S311 (to be repeatable is the point)
        busy = {client: dice.choice((1, 2, 4)) for client in self.weights}
        hot = {client: dice.randrange(1, 4) for client in self.weights}
        short = {client: dice.random() < 0.5 for client in self.weights}
        number = 0
        for step in range(self.steps):
            for client in self.weights:
                waiting = sum(job.request.client == client for job in engine.waiting.values())
                pause = dice.random() < 0.02
                while waiting < (0 if pause else busy[client]) or (step == 0 and waiting < 2):
                    number += 1
                    waiting += 1
                    engine.arrive(*self.request(dice, client, number, hot[client], short=short[client]))
            engine.step()
            yield

    def request(
        self, dice: random.Random, client: str, number: int, hot: int, *, short: bool
    ) -> tuple[Request, int]:
        """Return a request and the length of its output."""
        longest = self.longest_output if not short or dice.random() < 0.2 else 1
        max_output = dice.randint(1, longest)
        length = max_output if dice.random() < 0.5 else dice.randint(1, max_output)
        prompt = dice.randint(1, self.longest_input)
        prefix = ord(client) if dice.random() < 0.7 else dice.randrange(3)
        path = tuple(1000 * prefix + depth for depth in range(min(hot, prompt // 2)))
        return Request(f"{client}{number}", client, prompt, max_output, path), length


@st.composite
def loads(draw: st.DrawFn, *, full: st.SearchStrategy[bool], held: st.SearchStrategy[bool]) -> Load:
    """Return loads in which every request fits an empty engine."""
    memory = draw(st.integers(6, 60))
    longest_input = draw(st.integers(1, memory // 2))
    return Load(
        seed=draw(st.integers(0, 2**32)),
        memory=memory,
        max_running=draw(st.integers(1, 8)),
        longest_input=longest_input,
        longest_output=draw(st.integers(1, memory - longest_input)),
        weights=dict(zip("abcd", draw(st.lists(st.integers(1, 4), min_size=2, max_size=4)), strict=False)),
        full=draw(full),
        held=draw(held),
    )


ANY = loads(full=st.booleans(), held=st.booleans())
TRIES = settings(max_examples=max(120, settings().max_examples))


def gap_of(load: Load, config: PolicyConfig, view: View = View.CHARGED) -> Gap:
    """Return the largest gap between two backlogged clients of a whole history."""
    engine = load.start(config)
    for _ in load.run(engine):
        pass
    engine.policy.validate()
    return engine.ledger.largest_gap(view)


@TRIES
@given(
    load=ANY, quantum=st.integers(1, 60), overdraft=st.just(0) | st.integers(1, 40), turns=st.none() | st.just(3)
)
def test_dlpm_stays_within_its_bound(load: Load, quantum: int, overdraft: int, turns: int | None) -> None:
    """Gaps and counters stay within their bounds, however the engine admits and resumes, and with overdraft."""
    config = PolicyConfig(quantum=quantum, weights=load.weights, overdraft=overdraft, bounded_wait=turns)
    engine = load.start(config)
    policy = engine.policy
    assert isinstance(policy, DLPM)
    ranges = {
        client: bounds.counter_range_dlpm(load.engine(), COST, quantum, weight=weight, overdraft=overdraft)
        for client, weight in load.weights.items()
    }
    for _ in load.run(engine):
        for client in load.weights:
            assert policy.deficit(client) in ranges[client]
    bound = bounds.dlpm_both_backlogged(
        load.engine(), COST, quantum, weights=bounds.lightest_pair(load.weights), overdraft=overdraft
    )
    assert bound.admits(engine.ledger.largest_gap(View.CHARGED).exact_value)
    assert bound.admits(engine.ledger.largest_gap(View.ACTUAL).exact_value)


@TRIES
@given(load=ANY, quantum=st.integers(1, 60), slack=st.integers(0, 80))
def test_the_credit_gate_stays_within_its_bound(load: Load, quantum: int, slack: int) -> None:
    """Under the credit gate gaps and counters stay within bounds that know neither memory nor batch size."""
    config = PolicyConfig(quantum=quantum, weights=load.weights, gate="credit", slack=slack)
    engine = load.start(config)
    policy = engine.policy
    assert isinstance(policy, DLPM)
    for _ in load.run(engine):
        for client, weight in load.weights.items():
            allowed = bounds.credit_range(load.engine(), COST, quantum, slack=slack, weight=weight)
            assert policy.deficit(client) in allowed
            assert policy.deficit(client) - policy.outstanding(client) in allowed
    bound = bounds.credit_both_backlogged(
        load.engine(), COST, quantum, slack=slack, weights=bounds.lightest_pair(load.weights)
    )
    assert bound.admits(engine.ledger.largest_gap(View.ACTUAL).exact_value)


@TRIES
@given(load=ANY)
def test_vtc_stays_within_its_bound(load: Load) -> None:
    """VTC's charges stay within its bound, in both reservation modes and with weights."""
    bound = bounds.vtc_both_backlogged(load.engine(), COST, weights=bounds.lightest_pair(load.weights))
    config = PolicyConfig(policy="vtc", weights=load.weights)
    assert bound.admits(gap_of(load, config).exact_value)


def two_floods(policy: str) -> tuple[Gap, bounds.Bound]:
    """Return the gap under a policy, and DLPM's bound, when f asks for much before g and has the hotter prefix."""
    load = Load(
        seed=0, memory=40, max_running=4, longest_input=8, longest_output=8, weights={"f": 1, "g": 1}, steps=0
    )
    engine = load.start(PolicyConfig(policy=policy, quantum=20))
    for n in range(100):
        engine.arrive(Request(f"f{n}", "f", 8, 8, (1, 2)), 8)
    for n in range(100):
        engine.arrive(Request(f"g{n}", "g", 8, 8), 8)
    for _ in range(300):
        engine.step()
    bound = bounds.dlpm_both_backlogged(load.engine(), COST, 20)
    return engine.ledger.largest_gap(), bound


@pytest.mark.parametrize("policy", ["fcfs", "lpm"])
def test_fcfs_and_lpm_keep_no_bound(policy: str) -> None:
    """A client that floods the queue, with a hot prefix, gets far ahead of another under FCFS and LPM."""
    gap, bound = two_floods(policy)
    assert not bound.admits(gap.exact_value)
    assert gap.value > 5 * bound.value
    assert (gap.first, gap.second) == ("f", "g")


@pytest.mark.parametrize("policy", ["vtc", "dlpm"])
def test_the_same_flood_gains_nothing_under_a_fair_policy(policy: str) -> None:
    """The same history stays within the bound under VTC and DLPM."""
    gap, bound = two_floods(policy)
    assert bound.admits(gap.exact_value)


def test_the_published_bound_is_wrong_for_admission_on_occupancy() -> None:
    """M=10, L=1, w=1,1, Q=5: outputs 1,1,2,4,4 drive q to -12, where the published U = 11 allows -10."""
    config = PolicyConfig(quantum=5, cost_extend=1, cost_output=1)
    load = Load(
        seed=0, memory=10, max_running=5, longest_input=1, longest_output=4, weights={"a": 1}, full=False, steps=0
    )
    engine = load.start(config)
    policy = engine.policy
    assert isinstance(policy, DLPM)
    for n, length in enumerate((1, 1, 2, 4, 4)):
        engine.arrive(Request(f"a{n}", "a", 1, 4), length)
    for _ in range(4):
        engine.step()
    assert engine.preemptions == 0
    assert policy.rounds == 1
    assert policy.deficit("a") == -12
    published = config.cost.service(load.longest_input, load.memory)
    assert published == 11
    assert policy.deficit("a") <= -published
    allowed = bounds.counter_range_dlpm(load.engine(), config.cost, 5)
    assert allowed.above == -13, "the corrected bound is reached exactly"
    assert policy.deficit("a") in allowed
