"""Bounds for DLPM on one worker (admit while the deficit counter is positive), and for its variations.

The argument that all of them share: q is a client's counter, h the output that its running requests may still
be charged. An admission is decided while q > 0 and costs at most U together with what h then holds, so q > -U.
A refill happens only when every queued client has q <= 0; two clients that are queued at every refill are
refilled equally often. *Overdraft* lets requests in while q > -overdraft, at times when nobody with credit can
be placed: it lowers q, but no refill depends on it. *Refund* is the largest overcharge that may still be given
back: it raises q above the quantum.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import gcd

from fairprefix.core.bounds_base import (
    BOTH_BACKLOGGED,
    DEBT_KEPT,
    DERIVED,
    FREE,
    FULL,
    RESERVES_ALL,
    Bound,
    CounterRange,
    Engine,
    one_client_debt,
    pair_gap,
    pair_of,
)
from fairprefix.core.cost import CostWeights
from fairprefix.core.errors import at_least, reject

_PAPER = "DLPM (arXiv 2501.14312)"
_PAIR_FORMULA = "(U + overdraft + refund)/weight_f + (U + overdraft + refund)/weight_g + 2*Q"
_FRESH_FORMULA = "Q + max over both orders of (U + overdraft)/weight_f + refund/weight_g"
_FRESH = "both counters are 0, and neither client has anything running, when the interval begins"
_CHARGED_SERVICE = "service is counted when it is charged"
_DELIVERED = "of each client at most one prompt is charged but not wholly computed (chunked prefill)"
_SOMEBODY_FITS = "a request of a client with credit that has no room keeps its place; one blocked otherwise leaves"
_TRUE_COSTS = "true costs are charged: nothing is refunded"


def counter_range_dlpm(
    engine: Engine,
    cost: CostWeights,
    quantum: int,
    *,
    weight: int = 1,
    overdraft: int = 0,
    refund: int = 0,
    recompute: str = FREE,
) -> CounterRange:
    """Return where the deficit counter of a client of that weight can be."""
    debt = _debt(engine, cost, overdraft, recompute)
    quantum_i = at_least("quantum", quantum, 1) * at_least("weight", weight, 1)
    return CounterRange(
        name="deficit counter under DLPM",
        above=-debt,
        at_most=quantum_i + at_least("refund", refund, 0),
        formula="-(U + overdraft) < q <= weight*Q + refund",
        source=f"{_PAPER}, Theorem A.1, with U {DERIVED}",
        assumptions=engine.assumptions(),
    )


def dlpm_both_backlogged(
    engine: Engine,
    cost: CostWeights,
    quantum: int,
    *,
    weights: Sequence[int] = (1, 1),
    overdraft: int = 0,
    refund: int = 0,
    fresh_start: bool = False,
    chunked_prefill: bool = False,
    recompute: str = FREE,
) -> Bound:
    """Bound |W_f/weight_f - W_g/weight_g| over any interval in which f and g both stay backlogged.

    Args:
        engine: how the engine admits.
        cost: what a token costs.
        quantum: Q, in service units; a client of weight w gets w*Q.
        weights: of f and g; `lightest_pair` gives the two for which the bound is largest.
        overdraft: how far below 0 a client may still be admitted, in service units.
        refund: the largest overcharge of a client that may still be given back, in service units.
        fresh_start: the interval begins when nobody has been served yet; the bound then about halves.
        chunked_prefill: prompts are charged at admission, but service is counted as it is delivered.
        recompute: "free" or "charged" (see `one_client_debt`).
    """
    debt = _debt(engine, cost, overdraft, recompute)
    late = cost.extend * engine.longest_input if chunked_prefill else 0
    excess = at_least("refund", refund, 0) + late
    counted = _DELIVERED if chunked_prefill else _CHARGED_SERVICE
    return Bound(
        name="gap of two backlogged clients under DLPM",
        exact=pair_gap(
            debt=debt,
            excess=excess,
            quantum=at_least("quantum", quantum, 1),
            weights=weights,
            fresh_start=fresh_start,
        ),
        formula=(_FRESH_FORMULA if fresh_start else _PAIR_FORMULA)
        + ("; refund includes w_e*L" if chunked_prefill else ""),
        source=f"{_PAPER}, Theorem 4.1, with U and weights {DERIVED}",
        assumptions=(BOTH_BACKLOGGED, counted, *engine.assumptions(), *((_FRESH,) if fresh_start else ())),
    )


def dlpm_backlogged_vs_any(
    engine: Engine,
    cost: CostWeights,
    quantum: int,
    *,
    weights: Sequence[int] = (1, 1),
    overdraft: int = 0,
    refund: int = 0,
    recompute: str = FREE,
) -> Bound:
    """Bound W_g/weight_g - W_f/weight_f where f stays backlogged and g does whatever it likes.

    g is refilled no more often than f. Credit of an idle client may be dropped or kept; debt must be kept.
    """
    debt = _debt(engine, cost, overdraft, recompute)
    return Bound(
        name="lead of any client over a backlogged one under DLPM",
        exact=pair_gap(
            debt=debt,
            excess=at_least("refund", refund, 0),
            quantum=at_least("quantum", quantum, 1),
            weights=weights,
        ),
        formula=_PAIR_FORMULA,
        source=f"{_PAPER}, Theorem 4.2, with U and weights {DERIVED}",
        assumptions=(
            "f has a request queued at every refill of the interval",
            DEBT_KEPT,
            _CHARGED_SERVICE,
            *engine.assumptions(),
        ),
    )


def dlpm_a_posteriori(
    cost: CostWeights,
    quantum: int,
    *,
    longest_prompt_seen: int,
    largest_hold_seen: int,
    weights: Sequence[int] = (1, 1),
    overdraft: int = 0,
    refund: int = 0,
    fresh_start: bool = False,
) -> Bound:
    """Bound the gap of two backlogged clients by what was seen so far: nothing is assumed about the engine.

    Args:
        cost: what a token costs.
        quantum: Q, in service units.
        longest_prompt_seen: most extend tokens that one admission was charged.
        largest_hold_seen: largest h of any client, right after an admission, in service units.
        weights: of the two clients.
        overdraft: how far below 0 a client may still be admitted, in service units.
        refund: the largest overcharge that could be given back, in service units.
        fresh_start: the interval begins when nobody has been served yet.
    """
    prompt = cost.extend * at_least("longest_prompt_seen", longest_prompt_seen, 0)
    debt = prompt + at_least("largest_hold_seen", largest_hold_seen, 0)
    return Bound(
        name="gap of two backlogged clients under DLPM, from what was seen",
        exact=pair_gap(
            # Before anything is admitted every counter is 0, which is above -1.
            debt=max(1, debt) + at_least("overdraft", overdraft, 0),
            excess=at_least("refund", refund, 0),
            quantum=at_least("quantum", quantum, 1),
            weights=weights,
            fresh_start=fresh_start,
        ),
        formula=(_FRESH_FORMULA if fresh_start else _PAIR_FORMULA)
        + "; U = w_e*longest prompt seen + largest h seen",
        source=DERIVED,
        assumptions=(BOTH_BACKLOGGED, _CHARGED_SERVICE, *((_FRESH,) if fresh_start else ())),
    )


def dlpm_tight_full(engine: Engine, cost: CostWeights, quantum: int) -> Bound:
    """Return the largest gap that two backlogged clients of weight 1 can really reach under full reservation.

    All counters are multiples of the unit gcd(w_e, w_q, Q), so a counter is at least one unit when a request is
    admitted, and at least one unit above -U.

    Raises:
        ConfigError: not "full", or w_q < w_e, or no request can fill the memory (O < M - 1).
    """
    at_least("quantum", quantum, 1)
    if engine.reservation != FULL:
        raise reject("engine.reservation", engine.reservation, "'full': tightness is only known there")
    if cost.output < cost.extend:
        raise reject("cost.output", cost.output, f"at least cost.extend = {cost.extend}")
    at_least("engine.longest_output", engine.longest_output, engine.kv_tokens - 1)
    debt = cost.service(1, engine.kv_tokens - 1)
    unit = gcd(cost.extend, cost.output, quantum)
    return Bound(
        name="largest gap that two backlogged clients can reach under DLPM",
        exact=Fraction(2 * (debt + quantum) - 2 * unit),
        formula="2*(U + Q) - 2*gcd(w_e, w_q, Q), U = w_e + w_q*(M - 1)",
        source=f"{DERIVED}, by exhaustive search on small engines",
        assumptions=(
            BOTH_BACKLOGGED,
            RESERVES_ALL,
            "every running request has at least one extend token",
            _TRUE_COSTS,
        ),
        relation="<=",
    )


def dlpm_published(engine: Engine, cost: CostWeights, quantum: int, *, weights: Sequence[int] = (1, 1)) -> Bound:
    """Return the bound as the paper prints it, for comparison: U = w_e*L + w_q*M, extended to weights.

    With reservation "none" it is WRONG: short requests end and longer ones take their place, so the output still
    to be charged can exceed M tokens. Its assumptions say so.
    """
    debt = cost.service(engine.longest_input, engine.kv_tokens)
    unproven = (
        ()
        if engine.reservation == FULL
        else ("WRONG for this engine: it admits on present occupancy, and the theorem does not hold there",)
    )
    return Bound(
        name="gap of two backlogged clients as published",
        exact=pair_gap(debt=debt, excess=0, quantum=at_least("quantum", quantum, 1), weights=weights),
        formula="U/weight_f + U/weight_g + 2*Q, U = w_e*L + w_q*M",
        source=f"{_PAPER}, Theorem 4.1",
        assumptions=(*unproven, BOTH_BACKLOGGED, RESERVES_ALL, _TRUE_COSTS),
        relation="<=",
    )


def newcomer_wait(engine: Engine, cost: CostWeights, quantum: int, clients: int, *, overdraft: int = 0) -> Bound:
    """Bound what all other clients together receive before a newcomer is served, all weights being 1.

    Args:
        engine: how the engine admits.
        cost: what a token costs.
        quantum: Q, in service units.
        clients: how many there are, the newcomer included; at least 2.
        overdraft: how far below 0 a client may still be admitted, in service units.
    """
    others = [1] * (at_least("clients", clients, 2) - 1)
    return newcomer_wait_weighted(engine, cost, quantum, own_weight=1, other_weights=others, overdraft=overdraft)


def newcomer_wait_weighted(
    engine: Engine,
    cost: CostWeights,
    quantum: int,
    *,
    own_weight: int,
    other_weights: Sequence[int],
    overdraft: int = 0,
) -> Bound:
    """Bound what all other clients together receive before a newcomer is served.

    The newcomer f needs fewer than (U + Q_f)/Q_f + 1 refills. Each other client g spends the credit that it has,
    what those refills bring, and its debt.
    """
    at_least("quantum", quantum, 1)
    own = at_least("own_weight", own_weight, 1)
    if not other_weights:
        raise reject("other_weights", other_weights, "the weight of at least one other client")
    debt = _debt(engine, cost, overdraft, FREE)
    refills = Fraction(debt, own) + quantum
    total = sum(
        (
            at_least(f"other_weights[{i}]", weight, 1) * (quantum + refills) + debt
            for i, weight in enumerate(other_weights)
        ),
        Fraction(0),
    )
    return Bound(
        name="service of all others before a newcomer is served",
        exact=total,
        formula="sum over g of Q_g + (weight_g/weight_f)*(U + overdraft + Q_f) + U + overdraft",
        source=f"{_PAPER}, Theorem A.2, with kept debt {DERIVED}",
        assumptions=(
            "the newcomer has nothing running, and owes less than U + overdraft",
            DEBT_KEPT,
            _SOMEBODY_FITS,
            _TRUE_COSTS,
            *engine.assumptions(),
        ),
        unit="service units",
    )


def bounded_wait_position(every: int, older: int) -> Bound:
    """Bound which admission of its own client starts a request, when every `every`-th takes the oldest.

    Args:
        every: k, at least 1.
        older: p, how many requests of the same client are older than it.
    """
    position = at_least("every", every, 1) * (at_least("older", older, 0) + 1)
    return Bound(
        name="place of a request among its own client's admissions",
        exact=Fraction(position),
        formula="k*(p + 1)",
        source=DERIVED,
        assumptions=(
            "every k-th admission of a client takes its oldest request",
            "when the oldest one has no room, its client admits nothing else until it has",
        ),
        relation="<=",
        unit="admissions of the client",
    )


def changed_weights(
    engine: Engine,
    cost: CostWeights,
    largest_quanta: Sequence[int],
    *,
    overdraft: int = 0,
    refund: int = 0,
) -> Bound:
    """Bound |(W_f - E_f) - (W_g - E_g)| for two backlogged clients whose weights change on the way.

    E is what a client was entitled to: the sum of its quanta over the refills of the interval.

    Args:
        engine: how the engine admits.
        cost: what a token costs.
        largest_quanta: the largest quantum that each of the two ever had, in service units.
        overdraft: how far below 0 a client may still be admitted, in service units.
        refund: the largest overcharge of a client that may still be given back, in service units.
    """
    debt = _debt(engine, cost, overdraft, FREE)
    quanta = pair_of("largest_quanta", largest_quanta, 1)
    return Bound(
        name="gap to the entitlement of two backlogged clients whose weights change",
        exact=Fraction(2 * (debt + at_least("refund", refund, 0)) + sum(quanta)),
        formula="2*(U + overdraft + refund) + max Q_f + max Q_g",
        source=DERIVED,
        assumptions=(
            BOTH_BACKLOGGED,
            "a new weight applies from the next refill; debt is neither rescaled nor forgiven",
            _CHARGED_SERVICE,
            *engine.assumptions(),
        ),
        unit="service units",
    )


def _debt(engine: Engine, cost: CostWeights, overdraft: int, recompute: str) -> int:
    return one_client_debt(engine, cost, recompute) + at_least("overdraft", overdraft, 0)
