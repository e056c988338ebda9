"""What every bound takes for granted, refuses and assumes: its defaults, its relation, its conditions."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import pytest

from fairprefix.core import bounds
from fairprefix.core.bounds import Bound, CounterRange
from fairprefix.core.bounds_base import (
    BOTH_BACKLOGGED,
    EVERYBODY_ADVANCES,
    RESERVES_ALL,
    RESUME_IS_GATED,
    RESUME_IS_HELD,
)
from fairprefix.core.cost import CostWeights
from fairprefix.core.errors import ConfigError
from tests.core.bound_cases import COST, TINY, UNIT_COST, engine

FULL = engine()
BOTH = [FULL, engine(memory=200)]

Call = Callable[..., Bound | CounterRange]

CALLS: dict[str, tuple[Call, str, dict[str, int]]] = {
    "range": (partial(bounds.counter_range_dlpm, FULL, COST, 50), "", {"weight": 1, "overdraft": 0, "refund": 0}),
    "both": (partial(bounds.dlpm_both_backlogged, FULL, COST, 50), "<", {"overdraft": 0, "refund": 0}),
    "any": (partial(bounds.dlpm_backlogged_vs_any, FULL, COST, 50), "<", {"overdraft": 0, "refund": 0}),
    "seen": (
        partial(bounds.dlpm_a_posteriori, COST, 50, longest_prompt_seen=4, largest_hold_seen=6),
        "<",
        {"overdraft": 0, "refund": 0},
    ),
    "newcomer": (partial(bounds.newcomer_wait, FULL, COST, 50, 3), "<", {"overdraft": 0}),
    "newcomer, weighted": (
        partial(bounds.newcomer_wait_weighted, FULL, COST, 50, own_weight=1, other_weights=[2]),
        "<",
        {"overdraft": 0},
    ),
    "weights": (partial(bounds.changed_weights, FULL, COST, (50, 60)), "<", {"overdraft": 0, "refund": 0}),
    "tight": (partial(bounds.dlpm_tight_full, FULL, COST, 50), "<=", {}),
    "published": (partial(bounds.dlpm_published, FULL, COST, 50), "<=", {}),
    "position": (partial(bounds.bounded_wait_position, 4, 2), "<=", {}),
    "credit range": (
        partial(bounds.credit_range, FULL, COST, 50),
        "",
        {"slack": 0, "weight": 1, "overdraft": 0, "refund": 0},
    ),
    "credit": (
        partial(bounds.credit_both_backlogged, FULL, COST, 50),
        "<",
        {"slack": 0, "overdraft": 0, "refund": 0},
    ),
    "prediction": (partial(bounds.prediction_surcharge, FULL, COST, under=3), "<=", {"over": 0}),
    "lemma": (partial(bounds.vtc_lemma, FULL, COST), "<=", {}),
    "vtc": (partial(bounds.vtc_both_backlogged, FULL, COST), "<=", {}),
    "vtc, any": (partial(bounds.vtc_backlogged_vs_any, FULL, COST), "<=", {}),
    "lower": (partial(bounds.lower_bound_work_conserving, FULL, COST), ">=", {}),
    "d2lpm": (
        partial(bounds.d2lpm_both_backlogged, BOTH, COST, 50),
        "<",
        {"misses": 0, "overdraft": 0, "refund": 0},
    ),
    "pool": (partial(bounds.central_pool, BOTH, COST, 50), "<", {"overdraft": 0, "refund": 0}),
    "shared": (partial(bounds.shared_ledger, BOTH, COST, 50, unsettled=0), "<", {}),
}
"""Bound -> (with what it must be told, its relation, the least value of each option, which is its default)."""

OPTIONS = [(name, option, least) for name, (_, _, options) in CALLS.items() for option, least in options.items()]


@pytest.mark.parametrize(("name", "option", "least"), OPTIONS)
def test_what_is_not_said_is_as_small_as_it_can_be(name: str, option: str, least: int) -> None:
    """Each option has its least value unless said; less is refused by name, and more widens what is promised."""
    call = CALLS[name][0]
    assert call(**{option: least}) == call()
    assert widths(call(**{option: least + 1})) > widths(call())
    with pytest.raises(
        ConfigError, match=f"^{option} = {least - 1} is not valid: expected an integer >= {least}$"
    ):
        call(**{option: least - 1})


def widths(promise: Bound | CounterRange) -> Fraction:
    """Return how wide a promise is."""
    return promise.exact if isinstance(promise, Bound) else Fraction(promise.at_most - promise.above)


@pytest.mark.parametrize("name", [name for name, (_, relation, _) in CALLS.items() if relation])
def test_a_bound_says_whether_it_may_be_reached(name: str) -> None:
    """`<` where no history reaches the bound, `<=` where one may, `>=` where one does; `admits` goes by it."""
    call, relation, _ = CALLS[name]
    bound = call()
    assert isinstance(bound, Bound)
    assert bound.relation == relation
    assert bound.admits(bound.exact) == (relation != "<")
    assert bound.admits(bound.exact + 1) == (relation == ">=")
    assert bound.admits(bound.exact - 1)


QUANTA: dict[str, Callable[[int], Any]] = {
    "range": lambda q: bounds.counter_range_dlpm(FULL, COST, q),
    "any": lambda q: bounds.dlpm_backlogged_vs_any(FULL, COST, q),
    "seen": lambda q: bounds.dlpm_a_posteriori(COST, q, longest_prompt_seen=0, largest_hold_seen=0),
    "tight": lambda q: bounds.dlpm_tight_full(FULL, COST, q),
    "published": lambda q: bounds.dlpm_published(FULL, COST, q),
    "credit": lambda q: bounds.credit_both_backlogged(FULL, COST, q),
    "credit range": lambda q: bounds.credit_range(FULL, COST, q),
    "newcomer": lambda q: bounds.newcomer_wait_weighted(FULL, COST, q, own_weight=1, other_weights=[1]),
    "d2lpm": lambda q: bounds.d2lpm_both_backlogged(BOTH, COST, q),
    "shared": lambda q: bounds.shared_ledger(BOTH, COST, q, unsettled=0),
}


@pytest.mark.parametrize("name", QUANTA)
def test_a_quantum_is_at_least_one_unit(name: str) -> None:
    """A quantum of 1 is the smallest; 0 is refused by that name."""
    QUANTA[name](1)
    with pytest.raises(ConfigError, match=r"^quantum = 0 is not valid: expected an integer >= 1$"):
        QUANTA[name](0)


REFUSED: dict[str, Callable[[], Any]] = {
    "longest_prompt_seen = -1": lambda: bounds.dlpm_a_posteriori(
        COST, 5, longest_prompt_seen=-1, largest_hold_seen=0
    ),
    "largest_hold_seen = -1": lambda: bounds.dlpm_a_posteriori(
        COST, 5, longest_prompt_seen=0, largest_hold_seen=-1
    ),
    "own_weight = 0": lambda: bounds.newcomer_wait_weighted(FULL, COST, 5, own_weight=0, other_weights=[1]),
    "other_weights[1] = 0": lambda: bounds.newcomer_wait_weighted(
        FULL, COST, 5, own_weight=1, other_weights=[1, 0]
    ),
    "under = -1": lambda: bounds.prediction_surcharge(FULL, COST, under=-1),
    "engine.longest_output = 398": lambda: bounds.dlpm_tight_full(engine(output=398), COST, 5),
}


@pytest.mark.parametrize("message", REFUSED)
def test_a_figure_outside_its_range_is_named(message: str) -> None:
    """The message begins with the field and the value."""
    with pytest.raises(ConfigError) as refused:
        REFUSED[message]()
    assert str(refused.value).startswith(f"{message} is not valid: expected an integer >= ")


def test_smallest_figures_are_taken() -> None:
    """Nothing older, no error, no overdraft, an output that just fills the memory: all of these are figures."""
    assert bounds.bounded_wait_position(4, 0).exact == 4
    assert bounds.prediction_surcharge(FULL, COST, under=0, over=0).exact == 0
    assert bounds.dlpm_tight_full(engine(output=399), COST, 5).exact == 2 * (1 + 2 * 399 + 5) - 2


def test_overdraft_widens_what_was_seen() -> None:
    """A client may owe the overdraft on top of what one admission was seen to cost."""
    seen = partial(bounds.dlpm_a_posteriori, COST, 50, longest_prompt_seen=4, largest_hold_seen=6)
    assert seen(overdraft=3, refund=2).exact == 2 * (4 + 6 + 3 + 2 + 50)
    assert seen(overdraft=3, fresh_start=True).exact == 50 + 13


def test_a_fresh_start_takes_the_worse_order_of_the_pair() -> None:
    """The lighter client's debt and the heavier one's excess, or the other way round, whichever is more."""
    fresh = partial(bounds.dlpm_both_backlogged, FULL, COST, 50, refund=7, fresh_start=True)
    for weights in ((1, 3), (3, 1)):
        assert fresh(weights=weights).exact == 50 + 800 + Fraction(7, 3)


@pytest.mark.parametrize(
    ("cost", "quantum", "unit"),
    [((4, 6), 10, 2), ((4, 6), 8, 2), ((4, 8), 6, 2), ((4, 6), 3, 1), ((6, 6), 4, 2), ((3, 6), 4, 1)],
)
def test_the_tight_bound_moves_in_steps_of_the_common_divisor(
    cost: tuple[int, int], quantum: int, unit: int
) -> None:
    """The largest gap lies below 2(U'' + Q) by twice what w_e, w_q and Q have in common."""
    weights = CostWeights(extend=cost[0], output=cost[1])
    debt = cost[0] + 399 * cost[1]
    assert bounds.dlpm_tight_full(FULL, weights, quantum).exact == 2 * (debt + quantum) - 2 * unit


def test_recomputation_counts_at_every_worker() -> None:
    """Where tokens computed again are charged, every worker's U grows by w_e*O."""
    for call in (
        partial(bounds.shared_ledger, [TINY, TINY], UNIT_COST, 5, unsettled=0),
        partial(bounds.central_pool, [TINY], UNIT_COST, 5),
        partial(bounds.d2lpm_both_backlogged, [TINY], UNIT_COST, 5),
        partial(bounds.dlpm_both_backlogged, TINY, UNIT_COST, 5),
    ):
        assert call(recompute="charged").exact - call().exact == 2 * TINY.longest_output


def test_recomputed_output_is_charged_at_the_dearer_price_only_when_it_is_charged() -> None:
    """With dear prompts, the credit gate's U counts output at w_q unless recomputation is charged."""
    dear = CostWeights(extend=5, output=2)
    assert bounds.credit_both_backlogged(TINY, dear, 10).exact == 2 * (5 + 2 * 4 + 10)


def test_dear_and_cheap_prompts_share_the_memory_alike_when_both_cost_the_same() -> None:
    """At w_e = w_q it makes no difference whether prompt or output fills the memory."""
    small = engine(memory=10, running=2, prompt=8, output=3)
    assert bounds.one_client_debt(small, UNIT_COST) == 10


ASSUMED = {
    "full": (engine(), (RESERVES_ALL,)),
    "held": (engine("none", resume="held"), (RESUME_IS_HELD,)),
    "gated": (engine("none"), (EVERYBODY_ADVANCES, RESUME_IS_GATED)),
}


@pytest.mark.parametrize("kind", ASSUMED)
def test_an_engine_s_assumptions_are_those_of_its_way_to_admit(kind: str) -> None:
    """Each way to admit has assumptions of its own, and every bound that depends on the engine repeats them."""
    machine, expected = ASSUMED[kind]
    assert machine.assumptions() == expected
    for promise in (
        bounds.counter_range_dlpm(machine, COST, 50),
        bounds.dlpm_both_backlogged(machine, COST, 50),
        bounds.dlpm_backlogged_vs_any(machine, COST, 50),
        bounds.newcomer_wait(machine, COST, 50, 2),
        bounds.changed_weights(machine, COST, (50, 50)),
        bounds.vtc_lemma(machine, COST),
        bounds.vtc_both_backlogged(machine, COST),
        bounds.vtc_backlogged_vs_any(machine, COST),
        bounds.d2lpm_both_backlogged([machine, machine], COST, 50),
        bounds.central_pool([machine], COST, 50),
        bounds.shared_ledger([machine], COST, 50, unsettled=0),
    ):
        assert promise.assumptions[-len(expected) :] == expected


def test_a_bound_says_how_service_is_counted() -> None:
    """Charged service needs no more; delivered service needs one prompt at a time, and a fresh start says so."""
    charged = bounds.dlpm_both_backlogged(FULL, COST, 50).assumptions
    delivered = bounds.dlpm_both_backlogged(FULL, COST, 50, chunked_prefill=True).assumptions
    assert charged == (BOTH_BACKLOGGED, "service is counted when it is charged", RESERVES_ALL)
    assert "chunked prefill" in delivered[1]
    seen = partial(bounds.dlpm_a_posteriori, COST, 50, longest_prompt_seen=4, largest_hold_seen=6)
    assert seen().assumptions == charged[:2]
    fresh = seen(fresh_start=True).assumptions
    assert fresh[:2] == charged[:2]
    assert "both counters are 0" in fresh[2]
    assert bounds.dlpm_both_backlogged(FULL, COST, 50, fresh_start=True).assumptions[-1] == fresh[2]


def test_vtc_assumes_that_prompts_count_where_that_matters() -> None:
    """Under full reservation VTC's U needs M to count whole prompts, unless cached ones are said to be free."""
    counts = "the whole prompt counts against M"

    def says(reservation: str, *, free: bool) -> bool:
        lemma = bounds.vtc_lemma(engine(reservation), COST, cached_prompts_free=free)
        return any(text.startswith(counts) for text in lemma.assumptions)

    assert says("full", free=False)
    assert not says("full", free=True)
    assert not says("none", free=False)
    assert not says("none", free=True)


def test_the_credit_gate_assumes_that_holds_cover_what_comes() -> None:
    """Its range and its gap rest on the hold and on who is due; predictions on being settled and at most O."""
    allowed = bounds.credit_range(FULL, COST, 50).assumptions
    assert [text.split()[0] for text in allowed] == ["h", "refill"]
    assert bounds.credit_both_backlogged(FULL, COST, 50).assumptions == (BOTH_BACKLOGGED, *allowed)
    assert len(bounds.prediction_surcharge(FULL, COST, under=1).assumptions) == 2


@pytest.mark.parametrize(("memory", "running", "output"), [(7, 3, 3), (6, 1, 2), (9, 4, 8), (2, 1, 1), (5, 5, 1)])
def test_the_last_divisor_counts(memory: int, running: int, output: int) -> None:
    """B under occupancy admission is the plain sum, also when its last term stands alone."""
    small = engine("none", memory=memory, running=running, prompt=1, output=output)
    plain = sum(min(running, memory // (t + 1)) for t in range(1, output + 1))
    assert bounds.held_output(small, UNIT_COST) == plain
