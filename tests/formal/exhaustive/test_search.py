"""Every state of small configurations, on the shipping classes: counters, gaps, and what the bounds promise."""

from __future__ import annotations

import gc
from functools import cache

import pytest

from fairprefix.core import bounds
from fairprefix.core.bounds import Bound, CounterRange
from fairprefix.core.cost import CostWeights
from fairprefix.testing.claims import Claims, promised_against_any
from tests.formal.exhaustive import scopes
from tests.formal.exhaustive.search import Result, explore
from tests.formal.exhaustive.world import Scope
from tests.formal.published import PAGE, table
from tests.formal.report import EXHAUSTIVE

ALL = {scope.name: scope for scope in (*scopes.DLPM, *scopes.CREDIT, *scopes.VTC)}
AT_LEAST = 100_000
TIGHT = (
    "full",
    "full, blocked",
    "full, cached and evicted",
    "full, weights 1:3",
    "full, three clients",
    "none, O=2",
    "none, held",
    "credit, full",
    "credit, none",
    "credit, held, S=1",
)
"""Where the largest gap that exists is the bound less one unit for each client: integers allow no more."""
BY_THEOREM_4 = ("full", "full, w=1,2")
"""Where one request may fill the memory: 2(U'' + Q) less twice the common divisor is the largest gap."""
REACHED = ("VTC, full", "VTC, three clients", "VTC, none", "VTC, weights 1:2")
"""Where VTC's bound, which is not strict, is reached."""


@cache
def result(name: str) -> Result:
    """Search a scope, once a session."""
    gc.disable()  # millions of small objects and not one cycle worth looking for
    try:
        found = explore(ALL[name])
    finally:
        gc.enable()
    pair, against_any, counters = promised(ALL[name])
    EXHAUSTIVE.add(
        *(name, f"{found.states:,}", f"{found.transitions:,}"),
        *((found.lowest, f"> {counters.above}") if counters else ("", "")),
        *(found.both_backlogged, f"{pair.relation} {found.scaled(pair)}"),
        *(found.f_backlogged, f"{against_any.relation} {found.scaled(against_any)}"),
    )
    EXHAUSTIVE.notes[:] = [f"{sum(int(row[1].replace(',', '')) for row in EXHAUSTIVE.rows):,} states in all"]
    return found


def promised(scope: Scope) -> tuple[Bound, Bound, CounterRange | None]:
    """Return the bounds of a scope: two backlogged clients, one against any, and the range of a counter."""
    config, engine = scope.config, scope.engine
    weights = (config.weight("f"), config.weight("g"))
    if config.policy == "vtc":
        pair = bounds.vtc_both_backlogged(engine, config.cost, weights=weights)
        return pair, promised_against_any(Claims(bound="vtc"), config, engine, weights), None
    if config.gate == "credit":
        pair = bounds.credit_both_backlogged(
            engine, config.cost, config.quantum, slack=config.slack, weights=weights
        )
        counters = bounds.credit_range(engine, config.cost, config.quantum, slack=config.slack)
        return pair, pair, counters
    # Every running request may be refunded as a whole.
    refund = engine.max_running * config.cost_extend * engine.longest_input if "refund" in scope.extras else 0
    arguments = (engine, config.cost, config.quantum)
    recompute, overdraft = config.recompute, config.overdraft
    pair, against_any = (
        bound(*arguments, weights=weights, overdraft=overdraft, refund=refund, recompute=recompute)
        for bound in (bounds.dlpm_both_backlogged, bounds.dlpm_backlogged_vs_any)
    )
    counters = bounds.counter_range_dlpm(
        *arguments, weight=max(weights), overdraft=overdraft, refund=refund, recompute=recompute
    )
    return pair, against_any, counters


def theorem_4(scope: Scope) -> int:
    """Return the largest gap where requests may fill the memory."""
    return bounds.dlpm_tight_full(scope.engine, scope.config.cost, scope.config.quantum).value


def most_below(name: str) -> int:
    """Return the largest whole number of units that a strict bound leaves: one less for each client."""
    config = ALL[name].config
    return result(name).scaled(promised(ALL[name])[0]) - config.weight("f") - config.weight("g")


@pytest.mark.parametrize("name", ALL)
def test_no_state_breaks_a_bound(name: str) -> None:
    """All states were visited: no counter leaves its range, and no interval has a gap beyond the bound."""
    found = result(name)
    pair, against_any, counters = promised(ALL[name])
    found.check(pair=pair, against_any=against_any, counters=counters)


@pytest.mark.parametrize("name", TIGHT)
def test_the_bound_is_the_best_that_can_be_promised(name: str) -> None:
    """The largest gap that exists is one unit of each client below the bound."""
    found = result(name)
    assert found.both_backlogged == most_below(name)


@pytest.mark.parametrize("name", REACHED)
def test_vtcs_bound_is_reached(name: str) -> None:
    """Two backlogged clients under VTC do drift apart by twice the lemma."""
    found = result(name)
    assert found.both_backlogged == found.scaled(promised(ALL[name])[0])


@pytest.mark.parametrize("name", ALL)
def test_the_published_table_says_what_was_found(name: str) -> None:
    """Table 1 of docs/theory.md: states, counters, gaps and bounds, in bold where no larger gap is possible."""
    found = result(name)
    pair, against_any, counters = promised(ALL[name])
    best = {found.scaled(pair) if pair.relation == "<=" else most_below(name)}
    best |= {theorem_4(ALL[name])} if name in BY_THEOREM_4 else set()
    gap = f"**{found.both_backlogged}**" if found.both_backlogged in best else f"{found.both_backlogged}"
    assert table(1)[list(ALL).index(name)][3:] == (
        f"{found.states:,}",
        f"{found.lowest} (> {counters.above})" if counters else "",
        *(gap, f"{pair.relation} {found.scaled(pair)}"),
        *(str(found.f_backlogged), f"{against_any.relation} {found.scaled(against_any)}"),
    )


def test_the_formula_for_full_reservation_gives_the_largest_gap_exactly() -> None:
    """2(U + Q) - 2*gcd(w_e, w_q, Q) with U = w_e + w_q*(M - 1): what the search finds for two configurations."""
    for name in BY_THEOREM_4:
        assert result(name).both_backlogged == theorem_4(ALL[name])


def test_the_formula_needs_costs_and_quantum_without_a_common_divisor() -> None:
    """With w=2,2 and Q=4 all counters are even: the largest gap is 4 below the bound, not 2."""
    scope = scopes.EVEN
    found = explore(scope)
    assert found.both_backlogged == theorem_4(scope) == found.scaled(promised(scope)[0]) - 4


def test_the_formula_needs_requests_that_fill_the_memory() -> None:
    """With O < M - 1 no single request takes it all, and the first of several must leave the gate open."""
    found = explore(scopes.SHORT)
    engine, cost = scopes.SHORT.engine, CostWeights(1, 1)
    quantum = scopes.SHORT.config.quantum
    as_if_filled = bounds.dlpm_tight_full(
        bounds.Engine(
            reservation="full",
            kv_tokens=engine.kv_tokens,
            max_running=engine.max_running,
            longest_input=1,
            longest_output=engine.kv_tokens - 1,
        ),
        cost,
        quantum,
    )
    assert found.both_backlogged < as_if_filled.exact


def test_enough_was_searched() -> None:
    """At least 100,000 states, with every sort of event among the transitions."""
    found = [result(name) for name in ALL]
    states = sum(one.states for one in found)
    assert states >= AT_LEAST
    assert f"; {states:,} states." in PAGE.read_text(encoding="utf-8")
    happened = frozenset[str]().union(*(one.kinds_of_action for one in found))
    assert happened == {
        *("arrive", "admit", "step", "end", "abort"),
        *("block", "unblock", "preempt", "resume", "refund", "evict"),
    }
    returns = [one.returns_in_debt for one in found if one.scope.config.policy == "dlpm"]
    assert all(count > 0 for count in returns), "clients that left in debt came back"
