"""The systems that are proved: DLPM's published gate, its variations, the credit gate, and the shared ledger."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import evolve

from tests.formal.smt.induction import Step, System
from tests.formal.smt.logic import (
    NOTHING,
    Formula,
    Term,
    all_of,
    any_of,
    any_real,
    any_whole,
    larger,
    real,
    same,
    whole,
)
from tests.formal.smt.worker import (
    Account,
    Limits,
    Pair,
    accounted,
    any_account,
    any_pair,
    both_refilled,
    for_both,
    fresh,
    in_range,
    interval_begins,
    limits,
    own_transitions,
    refilled,
    refilled_if_due,
)

F, G, X = limits("f"), limits("g"), limits("x")


def within(difference: Term, bound: Term) -> Formula:
    """Return |difference| < bound."""
    return all_of(difference < bound, -difference < bound)


def debts(f: Limits, g: Limits) -> Term:
    """Return (U_f + overdraft + R_f) + (U_g + overdraft + R_g)."""
    return f.debt + f.overdraft + f.refund + g.debt + g.overdraft + g.refund


PAIR_BOUND = debts(F, G) + F.quantum + G.quantum
"""2(U + Q) when f and g are alike; per unit of weight when they are not."""


def both_fresh(pair: Pair) -> Formula:
    """Return "nothing has ever happened to either"."""
    return all_of(fresh(pair.f), fresh(pair.g))


def both_sound(f: Limits, g: Limits, pair: Pair) -> dict[str, Formula]:
    """Return the invariants that each client has by itself."""
    return {
        "range of f": in_range(f, pair.f),
        "range of g": in_range(g, pair.g),
        "service of f": accounted(pair.f),
        "service of g": accounted(pair.g),
    }


# One client.


def _loses_credit(account: Account) -> Step[Account]:
    # h < U: whatever is running was admitted at the price of at least a part of a prompt.
    return Step(all_of(account.q > 0, account.h < X.debt), evolve(account, q=NOTHING))


def _forgiven(account: Account) -> Step[Account]:
    return Step(account.q < 0, evolve(account, q=NOTHING))


COUNTER = System[Account](
    state=any_account,
    given=X.valid(),
    example=X.example(prompt=2, refund=1, overdraft=1),
    start=fresh,
    transitions={
        **own_transitions(X, any_real),
        "is refilled": lambda account: Step(account.q <= 0, refilled(account, X.quantum)),
        "loses its credit": _loses_credit,
        "is forgiven while nobody is queued": _forgiven,
    },
    invariant=lambda account: {"range": in_range(X, account)},
    claim=lambda account: {
        "above": account.q > X.floor(),
        "at most": account.q <= X.quantum + X.refund,
        "committed above": account.q - account.h > X.floor(),
    },
)

# Two clients that are queued at every refill.

BACKLOGGED = System[Pair](
    state=any_pair,
    given=all_of(F.valid(), G.valid()),
    example=all_of(F.example(refund=1), G.example(refund=1)),
    start=both_fresh,
    transitions={
        **for_both(own_transitions(F, any_real), own_transitions(G, any_real)),
        "both are refilled": both_refilled(F, G),
        "an interval begins": interval_begins,
    },
    invariant=lambda pair: both_sound(F, G, pair) | {"equal refills": same(pair.f.granted, pair.g.granted)},
    claim=lambda pair: {
        "charged": within(pair.f.w - pair.g.w, PAIR_BOUND),
        "committed": within(pair.f.committed() - pair.g.committed(), PAIR_BOUND),
        "delivered": within(pair.f.delivered() - pair.g.delivered(), PAIR_BOUND + F.prompt + G.prompt),
    },
)

FRESH_BOUND = F.quantum + larger(F.debt + F.overdraft + G.refund, G.debt + G.overdraft + F.refund)

FRESH_START = evolve(
    BACKLOGGED,
    transitions={name: take for name, take in BACKLOGGED.transitions.items() if name != "an interval begins"},
    invariant=lambda pair: {
        **BACKLOGGED.invariant(pair),
        "both began at 0": all_of(same(pair.f.q_then, 0), same(pair.g.q_then, 0)),
    },
    claim=lambda pair: {"charged": within(pair.f.w - pair.g.w, FRESH_BOUND)},
)

# The same with weights as whole numbers, without dividing anything.

weight_f, weight_g, quantum = whole("weight_f"), whole("weight_g"), whole("Q")
WHOLE_F, WHOLE_G = limits("f", whole, "Q_f"), limits("g", whole, "Q_g")
WEIGHTED_BOUND = (
    weight_g * (WHOLE_F.debt + WHOLE_F.overdraft + WHOLE_F.refund)
    + weight_f * (WHOLE_G.debt + WHOLE_G.overdraft + WHOLE_G.refund)
    + 2 * weight_f * weight_g * quantum
)

WEIGHTED = System[Pair](
    state=lambda: any_pair(any_whole),
    given=all_of(
        WHOLE_F.valid(),
        WHOLE_G.valid(),
        weight_f >= 1,
        weight_g >= 1,
        quantum >= 1,
        same(WHOLE_F.quantum, weight_f * quantum),
        same(WHOLE_G.quantum, weight_g * quantum),
    ),
    example=all_of(WHOLE_F.example(quantum=1, refund=1), WHOLE_G.example(quantum=3, refund=1), same(weight_g, 3)),
    start=both_fresh,
    transitions={
        **for_both(own_transitions(WHOLE_F, any_whole), own_transitions(WHOLE_G, any_whole)),
        "both are refilled": both_refilled(WHOLE_F, WHOLE_G),
        "an interval begins": interval_begins,
    },
    invariant=lambda pair: {
        **both_sound(WHOLE_F, WHOLE_G, pair),
        "refills by weight": same(weight_g * pair.f.granted, weight_f * pair.g.granted),
    },
    claim=lambda pair: {"charged": within(weight_g * pair.f.w - weight_f * pair.g.w, WEIGHTED_BOUND)},
)

# Quanta that differ from refill to refill: weights that change on the way.

CHANGING_F, CHANGING_G = limits("f", quantum="largest Q_f"), limits("g", quantum="largest Q_g")
ENTITLEMENT_BOUND = debts(CHANGING_F, CHANGING_G) + CHANGING_F.quantum + CHANGING_G.quantum


def _refill_of_any_size(pair: Pair) -> Step[Pair]:
    to_f, to_g = any_real("quantum"), any_real("quantum")
    sizes = all_of(to_f > 0, to_f <= CHANGING_F.quantum, to_g > 0, to_g <= CHANGING_G.quantum)
    return Step(all_of(pair.f.q <= 0, pair.g.q <= 0, sizes), Pair(refilled(pair.f, to_f), refilled(pair.g, to_g)))


CHANGING_WEIGHTS = System[Pair](
    state=any_pair,
    given=all_of(CHANGING_F.valid(), CHANGING_G.valid()),
    example=all_of(CHANGING_F.example(refund=1), CHANGING_G.example(refund=1)),
    start=both_fresh,
    transitions={
        **for_both(own_transitions(CHANGING_F, any_real), own_transitions(CHANGING_G, any_real)),
        "both are refilled": _refill_of_any_size,
        "an interval begins": interval_begins,
    },
    invariant=lambda pair: both_sound(CHANGING_F, CHANGING_G, pair),
    claim=lambda pair: {
        "against the entitlement": within(
            (pair.f.w - pair.f.granted) - (pair.g.w - pair.g.granted), ENTITLEMENT_BOUND
        )
    },
)

# f is queued at every refill, g does what it likes.


def _refilled_while_f_waits(pair: Pair) -> Step[Pair]:
    return Step(pair.f.q <= 0, Pair(refilled(pair.f, F.quantum), refilled_if_due(pair.g, G.quantum)))


def _g_loses_credit(pair: Pair) -> Step[Pair]:
    return Step(all_of(pair.g.q > 0, same(pair.g.h, 0)), evolve(pair, g=evolve(pair.g, q=NOTHING)))


AGAINST_ANY = System[Pair](
    state=any_pair,
    given=all_of(F.valid(), G.valid()),
    example=all_of(F.example(refund=1), G.example(refund=1)),
    start=both_fresh,
    transitions={
        **for_both(own_transitions(F, any_real), own_transitions(G, any_real)),
        "due clients are refilled": _refilled_while_f_waits,
        "g loses its credit while idle": _g_loses_credit,
        "an interval begins": interval_begins,
    },
    invariant=lambda pair: {
        "range of f": in_range(F, pair.f),
        "range of g": in_range(G, pair.g),
        "service of f": accounted(pair.f),
        "service of g": pair.g.w <= pair.g.q_then + pair.g.granted - pair.g.q,
        "g is refilled no more often": pair.g.granted <= pair.f.granted,
    },
    claim=lambda pair: {
        "charged": pair.g.w - pair.f.w < PAIR_BOUND,
        "committed": pair.g.committed() - pair.f.committed() < PAIR_BOUND,
    },
)

# The credit gate: U is one request, whatever the engine.

slack = real("S")


def committed_credit(limit: Limits, account: Account) -> Formula:
    """Return whether the credit gate is open."""
    return account.q - account.h > -limit.overdraft


def due_for_credit(account: Account) -> Formula:
    """Return "q <= 0, or q - h <= 0 and q <= S"."""
    return any_of(account.q <= 0, all_of(account.q - account.h <= 0, account.q <= slack))


def credit_transitions(limit: Limits) -> Mapping[str, Callable[[Account], Step[Account]]]:
    """Return what can happen to one client: an admission costs one request, however much is outstanding."""

    def admit(account: Account) -> Step[Account]:
        c, x, a = any_real("c"), any_real("x"), any_real("a")
        after = evolve(account, q=account.q - c, w=account.w + c, h=account.h + a, r=account.r + x, late=c)
        return Step(
            all_of(
                committed_credit(limit, account),
                same(account.late, 0),
                *(c >= 0, a >= 0, x >= 0, x <= c, c <= limit.prompt, c + a <= limit.debt),
                after.r <= limit.refund,
            ),
            after,
        )

    return {**own_transitions(limit, any_real), "is admitted": admit}


def _loses_credit_while_idle(account: Account) -> Step[Account]:
    return Step(all_of(account.q > 0, same(account.h, 0)), evolve(account, q=NOTHING))


CREDIT_COUNTER = System[Account](
    state=any_account,
    given=all_of(X.valid(), slack >= 0),
    example=all_of(X.example(refund=1, overdraft=1), same(slack, 1)),
    start=fresh,
    transitions={
        **credit_transitions(X),
        "is refilled": lambda account: Step(due_for_credit(account), refilled(account, X.quantum)),
        "is forgiven while nobody is queued": _forgiven,
        "loses its credit while idle": _loses_credit_while_idle,
    },
    invariant=lambda account: {"range": in_range(X, account, X.quantum + slack)},
    claim=lambda account: {
        "above": account.q > X.floor(),
        "committed above": account.q - account.h > X.floor(),
        "at most": account.q <= X.quantum + slack + X.refund,
    },
)


def _refilled_when_due(pair: Pair) -> Step[Pair]:
    return Step(
        all_of(due_for_credit(pair.f), due_for_credit(pair.g)),
        Pair(refilled(pair.f, F.quantum), refilled(pair.g, G.quantum)),
    )


CREDIT_BOUND = PAIR_BOUND + 2 * slack

CREDIT = System[Pair](
    state=any_pair,
    given=all_of(F.valid(), G.valid(), slack >= 0),
    example=all_of(F.example(refund=1), G.example(refund=1), same(slack, 1)),
    start=both_fresh,
    transitions={
        **for_both(credit_transitions(F), credit_transitions(G)),
        "both are refilled": _refilled_when_due,
        "an interval begins": interval_begins,
    },
    invariant=lambda pair: {
        "range of f": in_range(F, pair.f, F.quantum + slack),
        "range of g": in_range(G, pair.g, G.quantum + slack),
        "service of f": accounted(pair.f),
        "service of g": accounted(pair.g),
        "equal refills": same(pair.f.granted, pair.g.granted),
    },
    claim=lambda pair: {
        "charged": within(pair.f.w - pair.g.w, CREDIT_BOUND),
        "committed": within(pair.f.committed() - pair.g.committed(), CREDIT_BOUND),
        "delivered": within(pair.f.delivered() - pair.g.delivered(), CREDIT_BOUND + F.prompt + G.prompt),
    },
)
