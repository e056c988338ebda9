"""Claims about all bounds at once: larger engines, lighter pairs, parameters outside their range."""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from fairprefix.core import bounds
from fairprefix.core.bounds import Bound, CounterRange, Engine
from fairprefix.core.cost import CostWeights
from fairprefix.core.errors import ConfigError
from tests.core.bound_cases import COST, COSTS, ENGINES, TINY, engine

# -- all of them ----------------------------------------------------------------------------------------

PAIR_BOUNDS: dict[str, Callable[[Engine, CostWeights, int, tuple[int, int]], Bound]] = {
    "both": lambda e, c, q, w: bounds.dlpm_both_backlogged(e, c, q, weights=w),
    "fresh": lambda e, c, q, w: bounds.dlpm_both_backlogged(e, c, q, weights=w, fresh_start=True),
    "any": lambda e, c, q, w: bounds.dlpm_backlogged_vs_any(e, c, q, weights=w),
    "published": lambda e, c, q, w: bounds.dlpm_published(e, c, q, weights=w),
    "credit": lambda e, c, q, w: bounds.credit_both_backlogged(e, c, q, weights=w),
    "prediction": lambda e, c, q, w: bounds.prediction_surcharge(e, c, over=q, under=q, weights=w),
    "vtc": lambda e, c, _, w: bounds.vtc_both_backlogged(e, c, weights=w),
    "d2lpm": lambda e, c, q, w: bounds.d2lpm_both_backlogged([e, e], c, q, weights=w),
    "pool": lambda e, c, q, w: bounds.central_pool([e, e], c, q, weights=w),
    "shared": lambda e, c, q, w: bounds.shared_ledger([e, e], c, q, unsettled=1, weights=w),
    "newcomer": lambda e, c, q, w: bounds.newcomer_wait_weighted(e, c, q, own_weight=1, other_weights=w),
    "weights": lambda e, c, q, w: bounds.changed_weights(e, c, (q * w[0], q * w[1])),
    "position": lambda e, _, q, w: bounds.bounded_wait_position(q, w[0] + e.kv_tokens),
    "lemma": lambda e, c, _, __: bounds.vtc_lemma(e, c),
    "vtc any": lambda e, c, _, __: bounds.vtc_backlogged_vs_any(e, c),
    "lower": lambda e, c, _, __: bounds.lower_bound_work_conserving(e, c),
}
LIMITS = ["kv_tokens", "max_running", "longest_input", "longest_output"]


@pytest.mark.parametrize("name", PAIR_BOUNDS)
@given(any_engine=ENGINES, cost=COSTS, quantum=st.integers(1, 50), limit=st.sampled_from(LIMITS))
def test_a_larger_engine_or_quantum_never_has_a_smaller_bound(
    name: str, any_engine: Engine, cost: CostWeights, quantum: int, limit: str
) -> None:
    """Every bound grows with each of M, N, L, O and Q, or stays."""
    compute = PAIR_BOUNDS[name]
    before = compute(any_engine, cost, quantum, (1, 3))
    limits = {limit: getattr(any_engine, limit) + 1}
    assert compute(evolve(any_engine, **limits), cost, quantum, (1, 3)).exact >= before.exact
    assert compute(any_engine, cost, quantum + 1, (1, 3)).exact >= before.exact
    assert before.exact <= before.value < before.exact + 1
    assert all([before.name, before.formula, before.source, before.assumptions, before.unit])


@given(st.dictionaries(st.text(max_size=3), st.integers(1, 9), min_size=2, max_size=6), st.booleans())
def test_the_lightest_pair_has_the_largest_bound(
    weights: dict[str, int],
    fresh: bool,  # noqa: FBT001 - drawn by Hypothesis
) -> None:
    """No pair of clients has a larger bound than the two lightest."""

    def gap(pair: tuple[int, int]) -> Fraction:
        return bounds.dlpm_both_backlogged(engine(), COST, 50, weights=pair, fresh_start=fresh).exact

    largest = max(gap((weights[f], weights[g])) for f, g in combinations(weights, 2))
    assert gap(bounds.lightest_pair(weights)) == largest


ONE = (engine(), COST, 50)
REFUSED: list[tuple[str, Callable[[], Bound | CounterRange | Engine | int | tuple[int, int]]]] = [
    ("engine.reservation = 'fulll' is not valid: expected one of full, none (did", lambda: engine("fulll")),
    ("engine.resume = 'no'", lambda: engine(resume="no")),
    ("engine.kv_tokens = 1", lambda: engine(memory=1)),
    ("engine.max_running = 0", lambda: engine(running=0)),
    ("engine.longest_input = 0", lambda: engine(prompt=0)),
    ("engine.longest_output = 0", lambda: engine(output=0)),
    ("recompute = 'paid'", lambda: bounds.one_client_debt(engine(), COST, "paid")),
    ("recompute = 'paid'", lambda: bounds.credit_both_backlogged(*ONE, recompute="paid")),
    (
        "recompute = 'charged' is not valid: expected 'free' when engine.resume is 'held'",
        lambda: bounds.one_client_debt(evolve(TINY, resume="held"), COST, "charged"),
    ),
    ("quantum = 0", lambda: bounds.counter_range_dlpm(engine(), COST, 0)),
    ("quantum = 0", lambda: bounds.dlpm_both_backlogged(engine(), COST, 0)),
    ("quantum = 0", lambda: bounds.dlpm_backlogged_vs_any(engine(), COST, 0)),
    ("quantum = 0", lambda: bounds.dlpm_published(engine(), COST, 0)),
    ("quantum = 0", lambda: bounds.dlpm_tight_full(engine(), COST, 0)),
    ("quantum = 0", lambda: bounds.newcomer_wait(engine(), COST, 0, 2)),
    ("quantum = 0", lambda: bounds.credit_range(engine(), COST, 0)),
    ("quantum = 0", lambda: bounds.central_pool([engine()], COST, 0)),
    ("quantum = 0", lambda: bounds.shared_ledger([engine()], COST, 0, unsettled=0)),
    ("weight = 0", lambda: bounds.counter_range_dlpm(*ONE, weight=0)),
    ("weights[1] = 0", lambda: bounds.dlpm_both_backlogged(*ONE, weights=(1, 0))),
    ("weights = (1, 2, 3)", lambda: bounds.dlpm_both_backlogged(*ONE, weights=(1, 2, 3))),
    ("overdraft = -1", lambda: bounds.dlpm_both_backlogged(*ONE, overdraft=-1)),
    ("refund = -1", lambda: bounds.dlpm_both_backlogged(*ONE, refund=-1)),
    ("slack = -1", lambda: bounds.credit_both_backlogged(*ONE, slack=-1)),
    ("under = -1", lambda: bounds.prediction_surcharge(engine(), COST, over=1, under=-1)),
    ("over = -1", lambda: bounds.prediction_surcharge(engine(), COST, over=-1, under=1)),
    ("engine.reservation = 'none'", lambda: bounds.dlpm_tight_full(TINY, COST, 5)),
    ("cost.output = 1", lambda: bounds.dlpm_tight_full(engine(), CostWeights(2, 1), 5)),
    ("engine.longest_output = 9", lambda: bounds.dlpm_tight_full(engine(output=9), COST, 5)),
    ("clients = 1", lambda: bounds.newcomer_wait(*ONE, clients=1)),
    (
        "other_weights = []",
        lambda: bounds.newcomer_wait_weighted(*ONE, own_weight=1, other_weights=[]),
    ),
    ("every = 0", lambda: bounds.bounded_wait_position(0, 1)),
    ("older = -1", lambda: bounds.bounded_wait_position(1, -1)),
    ("largest_quanta[0] = 0", lambda: bounds.changed_weights(engine(), COST, (0, 1))),
    ("misses = -1", lambda: bounds.d2lpm_both_backlogged([engine()], COST, 5, misses=-1)),
    ("engines = []", lambda: bounds.central_pool([], COST, 5)),
    ("engines = []", lambda: bounds.shared_ledger([], COST, 5, unsettled=0)),
    ("unsettled = -1", lambda: bounds.shared_ledger([engine()], COST, 5, unsettled=-1)),
    ("weights = {'ann': 1}", lambda: bounds.lightest_pair({"ann": 1})),
    ("weights['ann'] = 0", lambda: bounds.lightest_pair({"ann": 0, "bob": 1})),
]


@pytest.mark.parametrize(("message", "call"), REFUSED, ids=[message for message, _ in REFUSED])
def test_a_parameter_outside_its_range_is_refused_by_name(
    message: str, call: Callable[[], Bound | CounterRange | Engine | int | tuple[int, int]]
) -> None:
    """The error names the field and the value that was given."""
    with pytest.raises(ConfigError, match=re.escape(message)):
        call()
