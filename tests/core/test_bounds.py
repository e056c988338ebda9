"""Claims about the bounds of one worker under DLPM: the numbers of known examples, and how they grow."""

from __future__ import annotations

from fractions import Fraction

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from fairprefix.core import bounds
from fairprefix.core.bounds import Engine
from fairprefix.core.cost import CostWeights
from tests.core.bound_cases import COST, COSTS, ENGINES, TINY, UNIT_COST, engine

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
