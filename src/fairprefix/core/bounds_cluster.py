"""Bounds for several workers: deficits per worker (D2LPM), a central pool, one shared ledger.

The workers need not be alike: each is described by its own engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from fairprefix.core.bounds_base import (
    DERIVED,
    FREE,
    Bound,
    Engine,
    held_output,
    one_client_debt,
    pair_gap,
)
from fairprefix.core.cost import CostWeights
from fairprefix.core.errors import at_least, reject

_PAPER = "DLPM (arXiv 2501.14312)"
_EACH_WORKER = "sum over workers of (U_w + overdraft + refund)*(1/weight_f + 1/weight_g) + 2*Q"


def d2lpm_both_backlogged(
    engines: Sequence[Engine],
    cost: CostWeights,
    quantum: int,
    *,
    weights: Sequence[int] = (1, 1),
    misses: int = 0,
    overdraft: int = 0,
    refund: int = 0,
    recompute: str = FREE,
) -> Bound:
    """Bound |W_f/weight_f - W_g/weight_g|, summed over workers that each run DLPM on their own.

    That a client is backlogged somewhere does not make it backlogged everywhere. Where it has credit but nothing
    queued while others are refilled, it *misses* a refill, and each one can cost it a quantum.

    Args:
        engines: the workers.
        cost: what a token costs.
        quantum: Q of each worker's own DLPM (not the dispatcher's), in service units.
        weights: of f and g.
        misses: refills missed over all workers, each round counting as one: of f or of g, whichever is more.
        overdraft: how far below 0 a client may still be admitted at a worker, in service units.
        refund: the largest overcharge of a client that a worker may still give back, in service units.
        recompute: "free" or "charged" (see `one_client_debt`).
    """
    gap = _sum_of_workers(engines, cost, quantum, weights, overdraft, refund, recompute)
    return Bound(
        name="gap of two backlogged clients under D2LPM",
        exact=gap + at_least("misses", misses, 0) * quantum,
        formula=f"{_EACH_WORKER}, + misses*Q",
        source=f"{_PAPER}, Theorem 5.1, with U, weights and misses {DERIVED}",
        assumptions=(
            "at each refill of a worker each of the two is queued or without credit there, except for `misses`",
            *_assumptions(engines),
        ),
    )


def over_workers(each: Sequence[Bound], quantum: int, *, misses: int = 0) -> Bound:
    """Add up the bounds that workers have by themselves, whatever their gate.

    Args:
        each: one bound per worker, on the same two clients.
        quantum: Q of the workers, in service units.
        misses: see `d2lpm_both_backlogged`.
    """
    if not each:
        raise reject("each", each, "the bound of at least one worker")
    return Bound(
        name="gap of two backlogged clients over several workers",
        exact=sum((bound.exact for bound in each), Fraction(0))
        + at_least("misses", misses, 0) * at_least("quantum", quantum, 1),
        formula=f"sum over workers of ({each[0].formula}), + misses*Q",
        source=DERIVED,
        assumptions=(
            "at each refill of a worker each of the two is queued or due there, except for `misses`",
            *dict.fromkeys(text for bound in each for text in bound.assumptions),
        ),
    )


def central_pool(
    engines: Sequence[Engine],
    cost: CostWeights,
    quantum: int,
    *,
    weights: Sequence[int] = (1, 1),
    overdraft: int = 0,
    refund: int = 0,
    recompute: str = FREE,
) -> Bound:
    """Bound |W_f/weight_f - W_g/weight_g| when requests wait centrally and workers are topped up from the pool.

    The parameters are those of `d2lpm_both_backlogged`. A client with a request in the pool is backlogged at
    every worker, which is just what D2LPM's theorem needs.
    """
    return Bound(
        name="gap of two backlogged clients with a central pool",
        exact=_sum_of_workers(engines, cost, quantum, weights, overdraft, refund, recompute),
        formula=_EACH_WORKER,
        source=DERIVED,
        assumptions=(
            "both clients have a request in the pool throughout the interval",
            "while a client's pool is not empty, each worker has a request of it queued at every refill",
            *_assumptions(engines),
        ),
    )


def shared_ledger(
    engines: Sequence[Engine],
    cost: CostWeights,
    quantum: int,
    *,
    unsettled: int,
    weights: Sequence[int] = (1, 1),
    recompute: str = FREE,
) -> Bound:
    """Bound |W_f/weight_f - W_g/weight_g| with one deficit per client for all workers, and late binding.

    The request admitted last shares one worker's memory with its output; the others can hold their B.

    Args:
        engines: the workers.
        cost: what a token costs.
        quantum: Q, in service units.
        unsettled: delta, in service units: by how much what a worker believes of a client's credit can exceed the
            truth, which is the SUM over all other workers of that client's charges not yet settled.
        weights: of f and g.
        recompute: "free" or "charged" (see `one_client_debt`).
    """
    _check(engines)
    held = [held_output(engine, cost) for engine in engines]
    debt = max(
        one_client_debt(engine, cost, recompute) + sum(held) - own
        for engine, own in zip(engines, held, strict=True)
    )
    return Bound(
        name="gap of two backlogged clients with a shared ledger",
        exact=pair_gap(
            debt=debt + at_least("unsettled", unsettled, 0),
            excess=0,
            quantum=at_least("quantum", quantum, 1),
            weights=weights,
        ),
        formula="(U + delta)*(1/weight_f + 1/weight_g) + 2*Q, U = max over w of U_w + B of all other workers",
        source=DERIVED,
        assumptions=(
            "both clients have a request queued at every refill of the interval",
            "refills are decided on settled values alone",
            *_assumptions(engines),
        ),
    )


def _sum_of_workers(
    engines: Sequence[Engine],
    cost: CostWeights,
    quantum: int,
    weights: Sequence[int],
    overdraft: int,
    refund: int,
    recompute: str,
) -> Fraction:
    _check(engines)
    at_least("quantum", quantum, 1)
    at_least("overdraft", overdraft, 0)
    at_least("refund", refund, 0)
    debts = [one_client_debt(engine, cost, recompute) + overdraft for engine in engines]
    gaps = (pair_gap(debt=debt, excess=refund, quantum=quantum, weights=weights) for debt in debts)
    return sum(gaps, Fraction(0))


def _check(engines: Sequence[Engine]) -> None:
    if not engines:
        raise reject("engines", engines, "at least one worker")


def _assumptions(engines: Sequence[Engine]) -> tuple[str, ...]:
    """Return each assumption about the workers once, in the order of first mention."""
    return tuple(dict.fromkeys(text for engine in engines for text in engine.assumptions()))
