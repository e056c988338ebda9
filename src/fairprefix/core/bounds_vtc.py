"""Bounds for VTC (arXiv 2401.00588), and the one from below that no work-conserving scheduler escapes.

VTC admits the client with the smallest counter and adds what is served, divided by the client's weight. Here w_e
stands for the cost of a prompt token, which VTC charges whether cached or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from fairprefix.core.bounds_base import (
    DERIVED,
    FULL,
    Bound,
    Engine,
    held_output,
    one_client_debt,
    pair_gap,
)
from fairprefix.core.cost import CostWeights

_PAPER = "VTC (arXiv 2401.00588)"
_DEBT = "U = w_q*M + max(0, w_e - w_q)*L under full reservation that counts whole prompts, else w_e*L + B"
_HEAD_OF_LINE = "a request that does not fit ends the pass: the next client is not offered instead"
_LIFT = "a returning client is lifted to the smallest counter of those queued, or to the last one that left"
_BLOCKED = "a request that is blocked, not just without room, does not count as queued"


def vtc_lemma(engine: Engine, cost: CostWeights, *, cached_prompts_free: bool = False) -> Bound:
    """Bound how far the counters of two queued clients of weight 1 lie apart.

    A counter is the smallest one when its client is admitted, and then rises by one prompt and the output of
    what runs. The published max(w_e*L, w_q*M) agrees for w_q >= w_e; for dearer prompts it is too small. It is
    also too small for an engine whose M leaves cached prompt tokens out although VTC charges them: what a prompt
    does not take is left to the output. Where every resident token counts against M, shared or not, nothing
    changes.

    Args:
        engine: how the engine admits.
        cost: what a token costs.
        cached_prompts_free: M counts extend and output tokens alone, not the cached part of a running prompt.
    """
    return Bound(
        name="difference of the virtual counters of two queued clients",
        exact=Fraction(_debt(engine, cost, cached_prompts_free=cached_prompts_free)),
        formula=_DEBT,
        source=f"{_PAPER}, Lemma 4.3, with U {DERIVED}",
        assumptions=_assumptions(engine, cached_prompts_free=cached_prompts_free),
        relation="<=",
    )


def vtc_both_backlogged(
    engine: Engine, cost: CostWeights, *, weights: Sequence[int] = (1, 1), cached_prompts_free: bool = False
) -> Bound:
    """Bound |W_f/weight_f - W_g/weight_g| over any interval in which f and g both stay backlogged.

    Service is what VTC charges: whole prompts. `cached_prompts_free`: see `vtc_lemma`.
    """
    debt = _debt(engine, cost, cached_prompts_free=cached_prompts_free)
    return Bound(
        name="gap of two backlogged clients under VTC",
        exact=pair_gap(debt=debt, excess=0, quantum=0, weights=weights),
        formula=f"U/weight_f + U/weight_g, {_DEBT}",
        source=f"{_PAPER}, Theorem 4.4, with U and weights {DERIVED}",
        assumptions=(
            "both clients have a request queued throughout the interval",
            *_assumptions(engine, cached_prompts_free=cached_prompts_free),
        ),
        relation="<=",
    )


def vtc_backlogged_vs_any(engine: Engine, cost: CostWeights, *, cached_prompts_free: bool = False) -> Bound:
    """Bound W_g - W_f where f stays backlogged and g does whatever it likes, both of weight 1."""
    return Bound(
        name="lead of any client over a backlogged one under VTC",
        exact=Fraction(2 * _debt(engine, cost, cached_prompts_free=cached_prompts_free)),
        formula=f"2*U, {_DEBT}",
        source=f"{_PAPER}, Theorem 4.9, with U {DERIVED}",
        assumptions=(
            "f has a request queued throughout the interval",
            *_assumptions(engine, cached_prompts_free=cached_prompts_free),
        ),
        relation="<=",
    )


def lower_bound_work_conserving(engine: Engine, cost: CostWeights) -> Bound:
    """Return a gap of two backlogged clients that every work-conserving, non-preemptive scheduler can be led to.

    It fills the memory with requests of the only client there is, just before another one arrives.
    """
    tokens = min(engine.kv_tokens, engine.max_running * engine.longest_output)
    return Bound(
        name="gap that some arrivals force on every work-conserving scheduler",
        exact=Fraction(cost.output * tokens),
        formula="w_q*min(M, N*O)",
        source=f"{_PAPER}, Theorem 4.8",
        assumptions=(
            "the scheduler refuses nothing that fits, and preempts nothing",
            "prompts are negligible beside their outputs",
        ),
        relation=">=",
    )


def _debt(engine: Engine, cost: CostWeights, *, cached_prompts_free: bool) -> int:
    if cached_prompts_free:
        return cost.extend * engine.longest_input + held_output(engine, cost)
    return one_client_debt(engine, cost)


def _assumptions(engine: Engine, *, cached_prompts_free: bool) -> tuple[str, ...]:
    memory = "the whole prompt counts against M, also where it is cached"
    counted = engine.reservation == FULL and not cached_prompts_free
    return (
        _HEAD_OF_LINE,
        _LIFT,
        _BLOCKED,
        *((memory,) if counted else ()),
        *engine.assumptions(),
    )
