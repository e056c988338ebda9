"""Claims about the bounds of committed credit, of VTC, and of several workers."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given

from fairprefix.core import bounds
from fairprefix.core.bounds import Engine
from fairprefix.core.cost import CostWeights
from tests.core.bound_cases import COST, ENGINES, TINY, UNIT_COST, engine

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


def test_uncounted_prompts_break_the_published_vtc_lemma() -> None:
    """Where M leaves cached prompts out, VTC charges 298 where the paper's lemma says 200."""
    small = engine(memory=100, prompt=100, output=99, running=1)
    published = max(COST.extend * 100, COST.output * 100)
    charged = COST.service(100, 99)  # 99 of 100 prompt tokens cached, and not counted: 1 + 99 tokens fill M
    assert bounds.vtc_lemma(small, COST).value <= published < charged
    assert charged <= bounds.vtc_lemma(small, COST, cached_prompts_free=True).value
    assert bounds.vtc_backlogged_vs_any(small, COST, cached_prompts_free=True).value == 2 * charged
    assert bounds.vtc_both_backlogged(small, COST, cached_prompts_free=True).value == 2 * charged


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
