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
_DEBT = "U = w_q*M + max(0, w_e - w_q)*L under full reservation with prompts of their own, else w_e*L + B"
_HEAD_OF_LINE = "a request that does not fit ends the pass: the next client is not offered instead"
_LIFT = "a returning client is lifted to the smallest counter of those queued, or to the last one that left"
_BLOCKED = "a request that is blocked, not just without room, does not count as queued"


def vtc_lemma(engine: Engine, cost: CostWeights, *, prompts_shared: bool = False) -> Bound:
    """Bound how far the counters of two queued clients of weight 1 lie apart.

    A counter is the smallest one when its client is admitted, and then rises by one prompt and the output of
    what runs. The published max(w_e*L, w_q*M) agrees for w_q >= w_e; for dearer prompts it is too small, and so
    it is when prompts are charged as a whole although a prefix cache holds part of them for everybody: a prompt
    that takes no memory of its own leaves that memory to the output.

    Args:
        engine: how the engine admits.
        cost: what a token costs.
        prompts_shared: a prefix cache is in use, and cached prompt tokens are charged.
    """
    return Bound(
        name="difference of the virtual counters of two queued clients",
        exact=Fraction(_debt(engine, cost, prompts_shared=prompts_shared)),
        formula=_DEBT,
        source=f"{_PAPER}, Lemma 4.3, with U {DERIVED}",
        assumptions=_assumptions(engine),
        relation="<=",
    )


def vtc_both_backlogged(
    engine: Engine, cost: CostWeights, *, weights: Sequence[int] = (1, 1), prompts_shared: bool = False
) -> Bound:
    """Bound |W_f/weight_f - W_g/weight_g| over any interval in which f and g both stay backlogged.

    Service is what VTC charges: whole prompts. `prompts_shared`: see `vtc_lemma`.
    """
    debt = _debt(engine, cost, prompts_shared=prompts_shared)
    return Bound(
        name="gap of two backlogged clients under VTC",
        exact=pair_gap(debt=debt, excess=0, quantum=0, weights=weights),
        formula=f"U/weight_f + U/weight_g, {_DEBT}",
        source=f"{_PAPER}, Theorem 4.4, with U and weights {DERIVED}",
        assumptions=("both clients have a request queued throughout the interval", *_assumptions(engine)),
        relation="<=",
    )


def vtc_backlogged_vs_any(engine: Engine, cost: CostWeights, *, prompts_shared: bool = False) -> Bound:
    """Bound W_g - W_f where f stays backlogged and g does whatever it likes, both of weight 1."""
    return Bound(
        name="lead of any client over a backlogged one under VTC",
        exact=Fraction(4 * _debt(engine, cost, prompts_shared=prompts_shared)),
        formula=f"4*U, {_DEBT}",
        source=f"{_PAPER}, Theorem 4.9, with U {DERIVED}",
        assumptions=("f has a request queued throughout the interval", *_assumptions(engine)),
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


def _debt(engine: Engine, cost: CostWeights, *, prompts_shared: bool) -> int:
    if prompts_shared:
        return cost.extend * engine.longest_input + held_output(engine, cost)
    return one_client_debt(engine, cost)


def _assumptions(engine: Engine) -> tuple[str, ...]:
    memory = "the whole prompt counts against M, also where it is cached"
    return (
        _HEAD_OF_LINE,
        _LIFT,
        _BLOCKED,
        *((memory,) if engine.reservation == FULL else ()),
        *engine.assumptions(),
    )
