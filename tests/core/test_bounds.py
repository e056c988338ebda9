"""Claims about the bounds: the numbers of known examples, how they grow, and what they refuse."""

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

UNIT_COST = CostWeights(extend=1, output=1)
COST = CostWeights(extend=1, output=2)


def engine(
    reservation: str = "full",
    *,
    memory: int = 400,
    running: int = 64,
    prompt: int = 100,
    output: int = 400,
    resume: str = "gated",
) -> Engine:
    """Return an engine with the figures of the examples."""
    return Engine(
        reservation=reservation,
        kv_tokens=memory,
        max_running=running,
        longest_input=prompt,
        longest_output=output,
        resume=resume,
    )


TINY = engine("none", memory=10, running=5, prompt=1, output=4)

ENGINES = st.builds(
    engine,
    st.sampled_from(["full", "none"]),
    memory=st.integers(2, 60),
    running=st.integers(1, 12),
    prompt=st.integers(1, 40),
    output=st.integers(1, 70),
    resume=st.sampled_from(["gated", "held"]),
)
COSTS = st.builds(CostWeights, extend=st.integers(0, 4), output=st.integers(1, 4))


# -- what one client can hold and owe -------------------------------------------------------------------


@given(ENGINES)
def test_the_grouped_sum_of_outstanding_output_equals_the_plain_one(any_engine: Engine) -> None:
    """Grouping equal floors changes the time it takes and nothing else."""
    occupancy = evolve(any_engine, reservation="none", resume="gated")
    memory, running = occupancy.kv_tokens, occupancy.max_running
    plain = sum(min(running, memory // (t + 1)) for t in range(1, occupancy.longest_output + 1))
    assert bounds.held_output(occupancy, COST) == 2 * plain


def test_the_largest_engines_are_computed_at_once() -> None:
    """A million output tokens and ten million of memory take thousands of steps, not millions."""
    huge = engine("none", memory=10_000_000, running=4096, prompt=1, output=1_000_000)
    held = bounds.held_output(huge, UNIT_COST)
    assert 10_000_000 < held < 10_000_000 * 15


def test_the_smallest_counterexample_to_the_paper_is_within_the_corrected_range() -> None:
    """M=10, L=1, w=1,1: outputs 1,1,2,4,4 drive the counter to -12; the paper says above -11."""
    assert bounds.held_output(TINY, UNIT_COST) == 12
    assert bounds.one_client_debt(TINY, UNIT_COST) == 13
    allowed = bounds.counter_range_dlpm(TINY, UNIT_COST, quantum=5)
    assert -12 in allowed
    assert -13 not in allowed
    assert UNIT_COST.service(TINY.longest_input, TINY.kv_tokens) == 11


def test_the_counterexample_with_five_hundred_requests_is_reached_exactly() -> None:
    """M=10 000, 500 one-token prompts: the counter falls to -67 195 where the paper promises -10 001."""
    memory, running = 10_000, 500
    outputs = [memory // (running - k) - 1 for k in range(running)]
    many = engine("none", memory=memory, running=running, prompt=1, output=max(outputs))
    assert sum(outputs) == bounds.held_output(many, UNIT_COST) == 67_195
    assert -67_195 in bounds.counter_range_dlpm(many, UNIT_COST, quantum=500)


def test_an_engine_that_resumes_by_itself_needs_the_larger_cap() -> None:
    """Five (1, 9) requests in M=10 are preempted and resumed unasked: 45 tokens follow, not 17."""
    gated = engine("none", memory=10, running=5, prompt=1, output=9)
    held = evolve(gated, resume="held")
    assert bounds.held_output(gated, UNIT_COST) == 17
    assert bounds.held_output(held, UNIT_COST) == 45
    assert -45 not in bounds.counter_range_dlpm(gated, UNIT_COST, quantum=5)
    assert -45 in bounds.counter_range_dlpm(held, UNIT_COST, quantum=5)


@given(ENGINES, COSTS)
def test_full_reservation_shares_the_memory_between_prompt_and_output(
    any_engine: Engine, cost: CostWeights
) -> None:
    """U is the dearest split of the memory, and never above w_q*M + max(0, w_e - w_q)*L."""
    full = evolve(any_engine, reservation="full")
    dearest = max(
        cost.service(prompt, output)
        for prompt in range(min(full.longest_input, full.kv_tokens) + 1)
        for output in range(min(full.max_running * full.longest_output, full.kv_tokens - prompt) + 1)
    )
    limit = cost.output * full.kv_tokens + max(0, cost.extend - cost.output) * full.longest_input
    assert bounds.one_client_debt(full, cost) == dearest <= limit


def test_charged_recomputation_makes_an_admission_longer_where_anything_is_preempted() -> None:
    """U grows by w_e*O under "none"; under "full" nothing is ever computed again."""
    free, charged = (bounds.one_client_debt(TINY, COST, mode) for mode in ("free", "charged"))
    assert charged == free + 4
    full = engine(resume="held")
    assert bounds.one_client_debt(full, COST, "charged") == bounds.one_client_debt(full, COST)


# -- one worker, DLPM -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("quantum", "ours", "paper"), [(50, 1700, 1900), (400, 2400, 2600), (2000, 5600, 5800)])
def test_counting_the_prompt_once_improves_on_the_paper(quantum: int, ours: int, paper: int) -> None:
    """M=400, L=100, w=1,2: 2(U' + Q) instead of 2(U + Q)."""
    bound = bounds.dlpm_both_backlogged(engine(), COST, quantum)
    assert bound.value == bound.exact == ours
    assert bounds.dlpm_published(engine(), COST, quantum).value == paper


def test_half_the_bound_is_wrong_from_a_fresh_start_when_weights_differ() -> None:
    """Weights 1:3, M=6, Q=1 reach a gap of 6: more than half the bound, less than the fresh-start one."""
    small = engine(memory=6, prompt=1, output=6)
    half = bounds.dlpm_published(small, UNIT_COST, 1, weights=(1, 3)).exact / 2
    fresh = bounds.dlpm_both_backlogged(small, UNIT_COST, 1, weights=(1, 3), fresh_start=True)
    assert 6 > half == Fraction(17, 3)
    assert fresh.exact == 7
    assert fresh.admits(6)
    assert not fresh.admits(7)


def test_a_fresh_start_halves_the_bound_for_equal_weights() -> None:
    """Q + U, against 2(Q + U)."""
    usual, fresh = (bounds.dlpm_both_backlogged(engine(), COST, 50, fresh_start=start) for start in (False, True))
    assert usual.exact == 2 * fresh.exact
    assert len(fresh.assumptions) == len(usual.assumptions) + 1


def test_overdraft_refund_and_chunked_prefill_each_widen_the_gap_on_both_sides() -> None:
    """2(U + Q + overdraft + refund), + 2*w_e*L when service is counted as it is delivered."""
    plain = bounds.dlpm_both_backlogged(engine(), COST, 50).exact
    assert bounds.dlpm_both_backlogged(engine(), COST, 50, overdraft=10, refund=7).exact == plain + 34
    delivered = bounds.dlpm_both_backlogged(engine(), COST, 50, chunked_prefill=True)
    assert delivered.exact == plain + 200
    fresh = bounds.dlpm_both_backlogged(
        engine(), COST, 50, weights=(1, 2), overdraft=10, refund=8, fresh_start=True
    )
    assert fresh.exact == 50 + 810 + 4


def test_the_counter_range_has_an_open_and_a_closed_end() -> None:
    """Q=150, q=1, charged 100 too much, refilled and refunded: 151 is within reach."""
    allowed = bounds.counter_range_dlpm(engine(), COST, 50, weight=3, overdraft=10, refund=1)
    assert (allowed.above, allowed.at_most) == (-810, 151)
    assert 151 in allowed
    assert -810 not in allowed


def test_a_backlogged_client_is_behind_anybody_by_no_more_than_behind_a_backlogged_one() -> None:
    """The one-sided bound is the same number, under the assumption that debt is kept."""
    one_sided = bounds.dlpm_backlogged_vs_any(engine(), COST, 50, weights=(1, 2), refund=3)
    assert one_sided.exact == bounds.dlpm_both_backlogged(engine(), COST, 50, weights=(1, 2), refund=3).exact
    assert any("debt" in assumption for assumption in one_sided.assumptions)


@given(ENGINES, COSTS, st.integers(1, 100), st.booleans())
def test_what_was_seen_gives_the_same_bound_when_all_that_can_be_was_seen(
    any_engine: Engine,
    cost: CostWeights,
    quantum: int,
    fresh: bool,  # noqa: FBT001 - drawn by Hypothesis
) -> None:
    """On an engine without reservation, with prompts and holds up to the cap, both bounds agree."""
    occupancy = evolve(any_engine, reservation="none")
    seen = bounds.dlpm_a_posteriori(
        cost,
        quantum,
        longest_prompt_seen=occupancy.longest_input,
        largest_hold_seen=bounds.held_output(occupancy, cost),
        fresh_start=fresh,
    )
    possible = bounds.dlpm_both_backlogged(occupancy, cost, quantum, fresh_start=fresh)
    assert seen.exact == possible.exact


def test_before_anything_was_seen_the_bound_still_covers_the_refills() -> None:
    """With nothing admitted yet a counter may be 0, or a whole quantum."""
    seen = bounds.dlpm_a_posteriori(COST, 50, longest_prompt_seen=0, largest_hold_seen=0)
    assert seen.value == 2 * (1 + 50)


@given(ENGINES, COSTS, st.integers(1, 100))
def test_the_reachable_gap_lies_below_the_bound(any_engine: Engine, cost: CostWeights, quantum: int) -> None:
    """What two clients can really reach under full reservation is strictly within what is promised."""
    full = evolve(any_engine, reservation="full", longest_output=any_engine.kv_tokens)
    dear_output = CostWeights(extend=min(cost.extend, cost.output), output=cost.output)
    reached = bounds.dlpm_tight_full(full, dear_output, quantum)
    assert bounds.dlpm_both_backlogged(full, dear_output, quantum).admits(reached.exact)


def test_the_bound_is_tight() -> None:
    """M=1000, w=1,2: the supremum 2(U'' + Q) - 2 is 99.8 % of the bound, 2 less in steps of 2."""
    large = engine(memory=1000, output=1000)
    reached = bounds.dlpm_tight_full(large, COST, 1)
    assert reached.value == 2 * (1 + 2 * 999 + 1) - 2
    assert reached.exact / bounds.dlpm_both_backlogged(large, COST, 1).exact > Fraction(998, 1000)
    even = bounds.dlpm_tight_full(large, CostWeights(extend=2, output=2), 4)
    assert even.value == 2 * (2000 + 4) - 4


def test_the_published_bound_is_marked_wrong_without_reservation() -> None:
    """Its own assumptions tell when not to believe it."""
    assert "WRONG" in bounds.dlpm_published(TINY, COST, 5).assumptions[0]
    assert not any("WRONG" in text for text in bounds.dlpm_published(engine(), COST, 5).assumptions)


def test_a_newcomer_waits_for_two_rounds_of_everybody_else() -> None:
    """2(n-1)(U + Q + overdraft) with equal weights, and more when the newcomer is light."""
    waits = bounds.newcomer_wait(engine(), COST, 50, clients=4, overdraft=10)
    assert waits.value == 2 * 3 * (800 + 50 + 10)
    light = bounds.newcomer_wait_weighted(engine(), COST, 50, own_weight=2, other_weights=[1, 4])
    assert light.exact == (50 + Fraction(1, 2) * 900 + 800) + (200 + 2 * 900 + 800)
    assert light.unit == "service units"


def test_every_kth_admission_of_the_oldest_bounds_the_wait() -> None:
    """A request with p older ones starts at or before own admission k(p + 1)."""
    position = bounds.bounded_wait_position(every=4, older=2)
    assert position.admits(12)
    assert not position.admits(13)


def test_changed_weights_are_bounded_against_the_entitlement() -> None:
    """U_f + U_g + the two largest quanta, + overdraft and refund of both."""
    assert bounds.changed_weights(engine(), COST, (50, 200), overdraft=1, refund=2).value == 1600 + 250 + 6


# -- one worker, committed credit -----------------------------------------------------------------------


@given(ENGINES)
def test_the_credit_gate_is_bounded_by_one_request_whatever_the_engine(any_engine: Engine) -> None:
    """2(w_e*L + w_q*O + Q + S), in every reservation mode and for every M and N."""
    bound = bounds.credit_both_backlogged(any_engine, COST, 50, slack=30, overdraft=5, refund=2)
    one_request = any_engine.longest_input + 2 * any_engine.longest_output
    assert bound.value == 2 * (one_request + 50 + 30 + 5 + 2)


def test_the_credit_gate_has_its_own_range_and_fresh_start() -> None:
    """-(w_e*L + w_q*O + overdraft) < q <= weight*Q + S + refund."""
    allowed = bounds.credit_range(engine(), COST, 50, slack=30, weight=2, overdraft=5, refund=1)
    assert (allowed.above, allowed.at_most) == (-905, 131)
    fresh = bounds.credit_both_backlogged(engine(), COST, 50, slack=30, weights=(1, 2), fresh_start=True)
    assert fresh.exact == 50 + 900 + 15


def test_the_credit_gate_with_charged_recomputation_pays_the_dearer_of_output_and_extend() -> None:
    """A resumed request computes its output again instead of producing it."""
    dear_prompts = CostWeights(extend=5, output=2)
    charged = bounds.credit_both_backlogged(TINY, dear_prompts, 10, recompute="charged")
    assert charged.value == 2 * (5 + 5 * 4 + 10)
    same = bounds.credit_both_backlogged(engine(), dear_prompts, 10, recompute="charged")
    assert same == bounds.credit_both_backlogged(engine(), dear_prompts, 10)


def test_wrong_predictions_cost_both_clients_at_both_ends() -> None:
    """w_q*((N - 1)*e- + N*e+) for each client of weight 1; only one end counts from a fresh start."""
    surcharge = bounds.prediction_surcharge(engine(running=8), COST, over=3, under=5)
    assert surcharge.value == 2 * (14 * 5 + 16 * 3)
    fresh = bounds.prediction_surcharge(engine(running=8), COST, over=3, under=5, weights=(1, 2), fresh_start=True)
    assert fresh.exact == 14 * 5 + 8 * 3


def test_predictions_that_are_only_held_may_be_too_large_at_no_cost() -> None:
    """Without a word about charging, only too small predictions count; with a single slot not even these."""
    held = bounds.prediction_surcharge(engine(running=8), COST, under=5)
    assert held.exact == 2 * 14 * 5
    assert bounds.prediction_surcharge(engine(running=1), COST, under=5).exact == 0


# -- VTC ------------------------------------------------------------------------------------------------


def test_the_published_lemma_of_vtc_is_too_small_for_dear_prompts() -> None:
    """w_p=4, w_q=1, L=M/2=200: 1000, where max(w_p*L, w_q*M) is 800."""
    dear_prompts = CostWeights(extend=4, output=1)
    half = engine(prompt=200)
    assert bounds.vtc_lemma(half, dear_prompts).value == 1000
    assert bounds.vtc_lemma(half, COST).value == max(200, 800)
    assert bounds.vtc_lemma(TINY, UNIT_COST).value == 13


def test_vtc_is_within_twice_and_four_times_the_lemma() -> None:
    """2U for two backlogged clients, 4U against anybody, at least w_q*M for every scheduler."""
    lemma = bounds.vtc_lemma(engine(), COST).value
    pair = bounds.vtc_both_backlogged(engine(), COST)
    assert pair.admits(2 * lemma)
    assert not pair.admits(2 * lemma + 1)
    assert bounds.vtc_both_backlogged(engine(), COST, weights=(1, 3)).value == -(-4 * lemma // 3)
    assert bounds.vtc_backlogged_vs_any(engine(), COST).value == 2 * lemma
    forced = bounds.lower_bound_work_conserving(engine(), COST)
    assert forced.value == 800 <= pair.value
    assert forced.admits(0)


# -- several workers ------------------------------------------------------------------------------------


def test_d2lpm_sums_its_workers_and_pays_for_missed_refills() -> None:
    """2|W|(U + Q) for equal workers, and a quantum for each miss."""
    two = [engine(memory=200), engine(memory=200)]
    bound = bounds.d2lpm_both_backlogged(two, COST, 110)
    assert bound.value == 2 * 2 * (400 + 110) == 2040
    assert bounds.d2lpm_both_backlogged(two, COST, 110, misses=7).value == 2040 + 770
    assert len(bound.assumptions) == len(set(bound.assumptions))


def test_a_central_pool_needs_no_misses() -> None:
    """Different workers add up, each with its own U."""
    workers = [engine(memory=200), TINY]
    pool = bounds.central_pool(workers, COST, 110, weights=(1, 2), overdraft=4, refund=2)
    debts = sum(bounds.one_client_debt(worker, COST) for worker in workers)
    assert pool.exact == Fraction(3, 2) * (debts + 12) + 440


def test_a_shared_ledger_of_one_worker_is_the_bound_of_one_worker() -> None:
    """Without staleness nothing is lost, and each further worker adds only what it can hold."""
    alone = bounds.shared_ledger([engine()], COST, 50, unsettled=0)
    assert alone.exact == bounds.dlpm_both_backlogged(engine(), COST, 50).exact
    three = bounds.shared_ledger([engine()] * 3, COST, 50, unsettled=25, weights=(1, 2))
    assert three.exact == Fraction(3, 2) * (3 * 800 + 25) + 100
    mixed = bounds.shared_ledger([engine(), TINY], COST, 50, unsettled=0)
    assert mixed.exact == 2 * (800 + 24 + 1 + 50)


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


def test_uncounted_prompts_break_the_published_vtc_lemma() -> None:
    """Where M leaves cached prompts out, VTC charges 298 where the paper's lemma says 200."""
    small = engine(memory=100, prompt=100, output=99, running=1)
    published = max(COST.extend * 100, COST.output * 100)
    charged = COST.service(100, 99)  # 99 of 100 prompt tokens cached, and not counted: 1 + 99 tokens fill M
    assert bounds.vtc_lemma(small, COST).value <= published < charged
    assert charged <= bounds.vtc_lemma(small, COST, cached_prompts_free=True).value
    assert bounds.vtc_backlogged_vs_any(small, COST, cached_prompts_free=True).value == 2 * charged
    assert bounds.vtc_both_backlogged(small, COST, cached_prompts_free=True).value == 2 * charged
