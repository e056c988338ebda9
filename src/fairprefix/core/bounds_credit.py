"""Bounds for the gate on committed credit: admit only while q - h > 0.

h is the output that a client's running requests may still be charged. Because what they will cost is set aside
first, a client cannot owe more than ONE request costs, whatever the memory, the reservation or the number of
requests. Clients with q <= *slack* count as due for a refill once their committed credit is used up.
"""

from __future__ import annotations

from collections.abc import Sequence

from fairprefix.core.bounds_base import (
    BOTH_BACKLOGGED,
    DERIVED,
    FREE,
    Bound,
    CounterRange,
    Engine,
    longest_extend,
    pair_gap,
)
from fairprefix.core.cost import CostWeights
from fairprefix.core.errors import at_least

_HOLD_COVERS = "h covers all that running, or preempted and held, requests will still be charged"
_DUE = "refill only when each queued client has q <= 0, or q - h <= 0 and q <= slack; all due clients are refilled"
_PREDICTED = ("predictions are settled when a request finishes", "neither predicted nor true outputs exceed O")


def credit_range(
    engine: Engine,
    cost: CostWeights,
    quantum: int,
    *,
    slack: int = 0,
    weight: int = 1,
    overdraft: int = 0,
    refund: int = 0,
    recompute: str = FREE,
) -> CounterRange:
    """Return where the counter q, and the committed credit q - h, of a client of that weight can be."""
    debt = _one_request(engine, cost, overdraft, recompute)
    quantum_i = at_least("quantum", quantum, 1) * at_least("weight", weight, 1)
    return CounterRange(
        name="counter under the committed-credit gate",
        above=-debt,
        at_most=quantum_i + _excess(slack, refund),
        formula="-(w_e*L + w_q*O + overdraft) < q - h <= q <= weight*Q + slack + refund",
        source=DERIVED,
        assumptions=(_HOLD_COVERS, _DUE),
    )


def credit_both_backlogged(
    engine: Engine,
    cost: CostWeights,
    quantum: int,
    *,
    slack: int = 0,
    weights: Sequence[int] = (1, 1),
    overdraft: int = 0,
    refund: int = 0,
    fresh_start: bool = False,
    recompute: str = FREE,
) -> Bound:
    """Bound |W_f/weight_f - W_g/weight_g| over any interval in which f and g both stay backlogged.

    Args:
        engine: only its L and O matter, unless recomputation is charged.
        cost: what a token costs.
        quantum: Q, in service units; a client of weight w gets w*Q.
        slack: how much q a client may have left and still be due for a refill, in service units.
        weights: of f and g.
        overdraft: how far below 0 committed credit may be at an admission, in service units.
        refund: the largest overcharge of a client that may still be given back, in service units.
        fresh_start: the interval begins when nobody has been served yet.
        recompute: "free" or "charged": whether tokens computed again after a preemption are charged.
    """
    return Bound(
        name="gap of two backlogged clients under the committed-credit gate",
        exact=pair_gap(
            debt=_one_request(engine, cost, overdraft, recompute),
            excess=_excess(slack, refund),
            quantum=at_least("quantum", quantum, 1),
            weights=weights,
            fresh_start=fresh_start,
        ),
        formula=(
            "Q + max over both orders of (U + overdraft)/weight_f + (slack + refund)/weight_g, U = w_e*L + w_q*O"
            if fresh_start
            else "(1/weight_f + 1/weight_g)*(w_e*L + w_q*O + overdraft + slack + refund) + 2*Q"
        ),
        source=DERIVED,
        assumptions=(BOTH_BACKLOGGED, _HOLD_COVERS, _DUE),
    )


def prediction_surcharge(
    engine: Engine,
    cost: CostWeights,
    *,
    under: int,
    over: int = 0,
    weights: Sequence[int] = (1, 1),
    fresh_start: bool = False,
) -> Bound:
    """Return what to add to `credit_both_backlogged` when h holds predictions instead of longest outputs.

    The requests that run when another one is admitted, N - 1 at most, can each produce `under` tokens more than
    was set aside for them, which lowers a counter; the new one itself is counted with O anyway. A prediction that
    is only *held*, as by the policies of this package, may be too large at no cost: it lowers q - h, never raises
    q. Where a host *charges* predictions, each of N requests may be given back `over` tokens. All of it can happen
    to either client at either end of the interval.

    Args:
        engine: its N counts.
        cost: what a token costs.
        under: most tokens by which the true output exceeds its prediction.
        over: most tokens by which a prediction that was charged exceeds the true output; 0 where predictions are
            only held.
        weights: of the two clients.
        fresh_start: only the end of the interval counts.
    """
    return Bound(
        name="surcharge for predicted outputs",
        exact=pair_gap(
            debt=cost.output * (engine.max_running - 1) * at_least("under", under, 0),
            excess=cost.output * engine.max_running * at_least("over", over, 0),
            quantum=0,
            weights=weights,
            fresh_start=fresh_start,
        ),
        formula=(
            "w_q * max over both orders of (N - 1)*under/weight_f + N*over/weight_g"
            if fresh_start
            else "w_q*((N - 1)*under + N*over)*(1/weight_f + 1/weight_g)"
        ),
        source=DERIVED,
        assumptions=_PREDICTED,
        relation="<=",
    )


def _one_request(engine: Engine, cost: CostWeights, overdraft: int, recompute: str) -> int:
    """Return the most that one admission can be charged, its output included, plus the overdraft."""
    computed_again = longest_extend(engine, recompute) > engine.longest_input
    # Output that was produced before a preemption is computed again, but not produced again.
    output = max(cost.extend, cost.output) if computed_again else cost.output
    request = cost.extend * engine.longest_input + output * engine.longest_output
    return request + at_least("overdraft", overdraft, 0)


def _excess(slack: int, refund: int) -> int:
    return at_least("slack", slack, 0) + at_least("refund", refund, 0)
