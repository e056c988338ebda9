"""Where a published claim, or a tempting simplification, fails: the smallest history that shows it.

Each history runs through the shipping classes, and the corrected bound holds in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import pytest

from fairprefix.core import bounds
from fairprefix.core.bounds import Engine
from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.cost import CostWeights
from fairprefix.core.dlpm import DLPM
from fairprefix.core.lane import Entry
from fairprefix.core.vtc import VTC
from tests.formal.exhaustive import scopes
from tests.formal.exhaustive.search import UNBOUNDED, explore
from tests.formal.exhaustive.world import Kind
from tests.formal.story import Story, hot

COST = CostWeights(1, 1)


def _occupancy(memory: int, running: int, output: int, *, resume: str = "gated") -> Engine:
    return Engine(
        reservation="none",
        kv_tokens=memory,
        max_running=running,
        longest_input=1,
        longest_output=output,
        resume=resume,
    )


def _batch(engine: Engine, outputs: Sequence[int], quantum: int) -> Story:
    """Admit one-token prompts with the given outputs, all of one client."""
    kinds = {"f": tuple(Kind(1, output) for output in outputs), "g": (Kind(1, 1),)}
    story = Story(PolicyConfig(quantum=quantum, cost_output=1), engine, kinds, slots=1)
    for k in range(len(outputs)):
        story.arrive(f"f{k}")
    assert story.admit_all() == len(outputs)
    return story


# The published U under admission on present occupancy.


@pytest.mark.parametrize(
    ("memory", "outputs", "quantum", "lowest"),
    [
        (10, [1, 1, 2, 4, 4], 5, -12),
        (10_000, [10_000 // (500 - k) - 1 for k in range(500)], 500, -67_195),
    ],
    ids=["M=10", "M=10000"],
)
def test_the_published_debt_is_exceeded_without_reservation(
    memory: int, outputs: list[int], quantum: int, lowest: int
) -> None:
    """Short requests end and longer ones go on in their memory: nothing overflows, nothing is preempted."""
    engine = _occupancy(memory, len(outputs), max(outputs))
    story = _batch(engine, outputs, quantum)
    assert story.deficit("f") == 0
    story.step(max(outputs))
    assert not story.world.runs
    published = COST.service(engine.longest_input, memory)
    assert story.deficit("f") == lowest < -published
    assert lowest in bounds.counter_range_dlpm(engine, COST, quantum)
    assert lowest - 1 not in bounds.counter_range_dlpm(engine, COST, quantum), "the corrected range is exact"


# What the corrected cap on outstanding output needs.


def _run_with_preemption(engine: Engine) -> int:
    """Run five (1, 9) requests of one client in ten tokens of memory; return the smallest counter."""
    story = _batch(engine, [9] * 5, quantum=5)
    lowest = 0
    while story.world.runs or story.resume() or story.admit():
        while story.crowded():
            story.preempt(list(story.world.runs)[-1])
        story.world.do(("step", ""))
        lowest = min(lowest, story.deficit("f"))
    assert not story.policy._entries
    return lowest


def test_resuming_unasked_escapes_the_harmonic_cap() -> None:
    """M=10, N=5: five (1, 9) requests are preempted and resumed without asking; all 45 tokens are charged.

    The harmonic cap allows 17. Where a resume is gated the counter stays within it.
    """
    gated, held = (_occupancy(10, 5, 9, resume=resume) for resume in ("gated", "held"))
    assert _run_with_preemption(held) == -45
    assert -45 not in bounds.counter_range_dlpm(gated, COST, 5)
    assert -45 in bounds.counter_range_dlpm(held, COST, 5)
    assert _run_with_preemption(gated) in bounds.counter_range_dlpm(gated, COST, 5)


def test_running_requests_that_take_turns_escape_the_harmonic_cap() -> None:
    """M=3, N=2, O=1: one request ends before the other begins, so that both produce; together only one could."""
    engine = _occupancy(3, 2, 1)
    story = _batch(engine, [1, 1], quantum=2)
    for id in list(story.world.runs):
        assert sum(run.tokens() for run in story.world.runs.values()) + 1 <= engine.kv_tokens
        story.advance(id)
        story.end(id)
    assert bounds.held_output(engine, COST) == 1
    assert story.deficit("f") == -2
    assert story.deficit("f") not in bounds.counter_range_dlpm(engine, COST, 2)


# Debt that is forgiven.


class _Forgiving(DLPM):
    """DLPM as in the paper's appendix A.2: a client that has left begins anew."""

    def _settled(self, entry: Entry) -> None:
        super()._settled(entry)
        account = self._table[entry.owner]
        if not account.live:
            self._settled_account(account).balance = max(account.balance, 0)


def _leads(make: type[DLPM], bursts: int) -> list[int]:
    """Let g take one large request, leave, and return, while f is always queued; return g's leads over f."""
    engine = Engine(reservation="full", kv_tokens=10, max_running=2, longest_input=1, longest_output=9)
    kinds = {"f": (Kind(1, 1), Kind(1, 9)), "g": (hot(1, 9),)}
    story = Story(PolicyConfig(quantum=2, cost_output=1), engine, kinds, slots=4, make=make)
    served = {"f": 0, "g": 0}
    leads = []
    story.arrive("f0")
    for _ in range(bursts):
        story.arrive("g0")
        story.arrive("f0")
        # Until g has been served: a request of f at a time, at least one of f waits behind it.
        while any(id.startswith("g") for id in story.policy._entries):
            id = story.admit()
            assert id is not None
            served[id[0]] += story.world.served[id[0]]
            while id in story.world.runs:
                story.world.do(("step", ""))
                served[id[0]] += story.world.served[id[0]]
            if not story.world.backlogged("f"):
                story.arrive("f0")
        leads.append(served["g"] - served["f"])
    return leads


def test_forgiven_debt_lets_a_returning_client_gain_without_end() -> None:
    """A client takes one large request, leaves and returns: its lead grows with every round.

    With debt kept, as shipped, the same history stays within the bound.
    """
    engine = Engine(reservation="full", kv_tokens=10, max_running=2, longest_input=1, longest_output=9)
    bound = bounds.dlpm_backlogged_vs_any(engine, COST, 2)
    forgiven, kept = _leads(_Forgiving, 90), _leads(DLPM, 90)
    third = [forgiven[29], forgiven[59], forgiven[89]]
    assert third[1] > 1.9 * third[0]
    assert third[2] > 2.8 * third[0] > bound.value
    assert max(kept) < bound.value


def test_the_search_finds_out_about_forgiven_debt_by_itself() -> None:
    """Control for the exhaustive search: with debt forgiven it reports a lead without end."""
    scope = scopes.FORGIVEN
    bound = bounds.dlpm_backlogged_vs_any(scope.engine, COST, scope.config.quantum)
    assert explore(scope).f_backlogged < bound.exact
    assert explore(scope, make=_Forgiving, give_up=10 * bound.value).f_backlogged == UNBOUNDED


# The range of the counter, and a fresh start.


def test_a_refund_can_lift_a_counter_above_its_quantum() -> None:
    """Q=150: q=1 is charged 100 too much, refilled to 51, and given back to 151."""
    kinds = {"f": (Kind(149), Kind(100)), "g": (Kind(150), Kind(1))}
    engine = Engine(reservation="none", kv_tokens=1000, max_running=9, longest_input=150, longest_output=1)
    story = Story(PolicyConfig(quantum=150, cost_output=1), engine, kinds)
    for name in ("f0", "g0"):
        story.arrive(name)
        assert story.admit() is not None
    estimated = story.arrive("f1")
    assert story.deficit("f") == 1
    receipt = story.policy.take(estimated, extend=100, reserve=0)
    story.arrive("g1")
    assert story.admit() is not None, "g has no credit left: this is a refill"
    assert story.deficit("f") == 51
    story.policy.amend(receipt, extend=0)
    assert story.deficit("f") == 151
    assert 151 in bounds.counter_range_dlpm(engine, COST, 150, refund=100)
    assert 151 not in bounds.counter_range_dlpm(engine, COST, 150)


def test_half_the_bound_is_exceeded_from_a_fresh_start_with_unequal_weights() -> None:
    """Weights 1:3, M=6, Q=1: the light client's first request makes a gap of 6, more than 17/3."""
    engine = Engine(reservation="full", kv_tokens=6, max_running=1, longest_input=1, longest_output=5)
    kinds = {"f": (Kind(1, 5),), "g": (Kind(1, 5),)}
    weights = {"f": 1, "g": 3}
    story = Story(PolicyConfig(quantum=1, cost_output=1, weights=weights), engine, kinds)
    for name in ("f0", "g0", "f0"):
        story.arrive(name)
    first = story.admit()
    assert first is not None
    story.run(first)
    half = bounds.dlpm_published(engine, COST, 1, weights=(1, 3)).exact / 2
    assert story.gap() == 6 > half == Fraction(17, 3)
    assert bounds.dlpm_both_backlogged(engine, COST, 1, weights=(1, 3), fresh_start=True).admits(6)


# VTC's lemma.


def _counters_apart(config: PolicyConfig, engine: Engine, kind: Kind) -> int:
    """Serve one request of f while g waits; return how far their counters lie apart then."""
    story = Story(config, engine, {"f": (kind,), "g": (kind,)})
    for name in ("f0", "g0", "f0"):
        story.arrive(name)
    first = story.admit()
    assert first is not None
    story.run(first)
    assert isinstance(story.policy, VTC)
    return story.policy.counter("f") - story.policy.counter("g")


def test_the_lemma_of_vtc_is_too_small_for_dear_prompts() -> None:
    """w_p=4, w_q=1, M=400, L=200: one request takes the counters 1000 apart; 800 is claimed."""
    engine = Engine(reservation="full", kv_tokens=400, max_running=1, longest_input=200, longest_output=200)
    cost = CostWeights(4, 1)
    config = PolicyConfig(policy="vtc", cost_extend=4, cost_output=1)
    apart = _counters_apart(config, engine, Kind(200, 200))
    assert apart == 1000 == bounds.vtc_lemma(engine, cost).exact
    assert apart > max(4 * 200, 1 * 400)


def test_the_lemma_of_vtc_is_too_small_where_cached_prompts_take_no_memory_of_their_own() -> None:
    """M=2, L=2, w=1,1: two prompt tokens are charged, one of them cached, and one output token: 3 > 2."""
    engine = Engine(reservation="full", kv_tokens=2, max_running=1, longest_input=2, longest_output=1)
    config = PolicyConfig(policy="vtc", cost_output=1)
    apart = _counters_apart(config, engine, hot(1, 1))
    assert apart == 3 > max(2, 2) == bounds.vtc_lemma(engine, COST).exact
    assert apart <= bounds.vtc_lemma(engine, COST, cached_prompts_free=True).exact
    extend_only = PolicyConfig(policy="vtc", cost_output=1, vtc_charge="extend")
    assert _counters_apart(extend_only, engine, hot(1, 1)) == 2


# D2LPM: test_backlogged_anywhere.py.


def test_every_policy_is_made_by_the_catalog() -> None:
    """The histories above use the classes that ship, except for the one that is patched by name."""
    assert type(make_policy(PolicyConfig(policy="dlpm"))) is DLPM
    assert type(make_policy(PolicyConfig(policy="vtc"))) is VTC
