"""One DLPM worker as a transition system: two clients, and everybody else.

Any number of other clients is allowed: all that they can do to the two is to hold back a refill, and a refill
may be missing from a run anyway. Whatever the engine does in between (finish, abort, preempt, resume, refuse,
block, evict) is one of the transitions below for the client concerned, or changes nothing here.

Amounts are service units, or service units per unit of weight: a client of weight w is described by its costs
divided by w, and gets Q a round whatever its weight. So one proof over the reals covers every weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import evolve, frozen

from tests.formal.smt.induction import Step
from tests.formal.smt.logic import (
    ALWAYS,
    Formula,
    Term,
    all_of,
    any_flag,
    any_real,
    either,
    real,
    same,
)

Variable = Callable[[str], Term]


@frozen
class Limits:
    """What one client can do at most, symbolically."""

    debt: Term
    """U: what one admission is charged, together with all output that is outstanding right after it."""
    prompt: Term
    """w_e*L: what one admission is charged."""
    refund: Term
    """R: overcharge that may still be given back."""
    overdraft: Term
    """How far below 0 it may be admitted while nobody with credit can be placed."""
    quantum: Term
    """Q, or weight times Q: what a refill brings."""

    def valid(self) -> Formula:
        """Return the ranges of the parameters."""
        return all_of(self.debt > 0, self.prompt >= 0, self.refund >= 0, self.overdraft >= 0, self.quantum > 0)

    def example(
        self, *, debt: int = 4, prompt: int = 1, refund: int = 0, overdraft: int = 0, quantum: int = 2
    ) -> Formula:
        """Return small values of the parameters, for searching runs."""
        return all_of(
            same(self.debt, debt),
            same(self.prompt, prompt),
            same(self.refund, refund),
            same(self.overdraft, overdraft),
            same(self.quantum, quantum),
        )

    def floor(self) -> Term:
        """Return what the counter always exceeds."""
        return -(self.debt + self.overdraft)


def limits(name: str, variable: Variable = real, quantum: str = "Q") -> Limits:
    """Return symbolic limits of the client called `name`."""
    return Limits(
        variable(f"U_{name}"),
        variable(f"P_{name}"),
        variable(f"R_{name}"),
        variable(f"overdraft_{name}"),
        variable(quantum),
    )


@frozen
class Account:
    """One client: its counter now, and what happened to it since the interval began."""

    q: Term
    """The deficit counter."""
    h: Term
    """Output that its running, or preempted and held, requests may still be charged."""
    r: Term
    """What may still be refunded to it."""
    late: Term
    """Prompt that was charged and is not computed yet (chunked prefill)."""
    w: Term
    """Service charged in the interval, refunds taken off."""
    granted: Term
    """What refills have brought in the interval."""
    q_then: Term
    """q, h and late when the interval began."""
    h_then: Term
    late_then: Term

    def committed(self) -> Term:
        """Return the service of the interval, with outstanding output counted when it is set aside."""
        return self.w + self.h - self.h_then

    def delivered(self) -> Term:
        """Return the service of the interval, with prompts counted when they are computed."""
        return self.w - self.late + self.late_then


def any_account(variable: Variable = any_real) -> Account:
    """Return an account about which nothing is known."""
    return Account(*(variable(name) for name in ("q", "h", "r", "late", "w", "granted", "q0", "h0", "late0")))


def fresh(account: Account) -> Formula:
    """Return "nothing has ever happened to this client"."""
    parts = (
        account.q, account.h, account.r, account.late, account.w, account.granted,
        account.q_then, account.h_then, account.late_then,
    )  # fmt: skip
    return all_of(*(same(part, 0) for part in parts))


# What can happen to one client.


def admitted(
    limit: Limits, account: Account, variable: Variable, gate: Formula, cap: Formula | None = None
) -> Step[Account]:
    """Admit one request: charge c (of which x may be refunded), set output a aside."""
    c, x, a = variable("c"), variable("x"), variable("a")
    after = charged(evolve(account, h=account.h + a, r=account.r + x, late=c), c)
    room = all_of(c >= 0, c <= limit.prompt, a >= 0, x >= 0, x <= c, after.r <= limit.refund)
    reserve = c + after.h <= limit.debt if cap is None else cap
    # Only one prompt of a client is being computed at a time.
    return Step(all_of(gate, room, reserve, same(account.late, 0)), after)


def charged(account: Account, amount: Term) -> Account:
    """Charge an amount (a negative one is given back)."""
    return evolve(account, q=account.q - amount, w=account.w + amount)


def produces(account: Account, variable: Variable) -> Step[Account]:
    """Produce output that was set aside."""
    t = variable("t")
    return Step(all_of(t > 0, t <= account.h), charged(evolve(account, h=account.h - t), t))


def ends(account: Account, variable: Variable) -> Step[Account]:
    """Give up output that was set aside: the request is done, aborted, or preempted and queued again."""
    d = variable("d")
    return Step(all_of(d > 0, d <= account.h), evolve(account, h=account.h - d))


def refunded(account: Account, variable: Variable) -> Step[Account]:
    """Get an overcharge back."""
    x = variable("x")
    return Step(all_of(x > 0, x <= account.r), charged(evolve(account, r=account.r - x), -x))


def computes(account: Account, variable: Variable) -> Step[Account]:
    """Compute a part of the prompt that was charged."""
    p = variable("p")
    return Step(all_of(p > 0, p <= account.late), evolve(account, late=account.late - p))


def own_transitions(
    limit: Limits, variable: Variable, gate: Callable[[Account], Formula] | None = None
) -> Mapping[str, Callable[[Account], Step[Account]]]:
    """Return what can happen to one client alone, by name; the gate is the published one unless given."""

    def passes(account: Account) -> Formula:
        return account.q > -limit.overdraft if gate is None else gate(account)

    return {
        "is admitted": lambda account: admitted(limit, account, variable, passes(account)),
        "produces": lambda account: produces(account, variable),
        "ends a request": lambda account: ends(account, variable),
        "is refunded": lambda account: refunded(account, variable),
        "computes a prompt": lambda account: computes(account, variable),
    }


def refilled(account: Account, quantum: Term) -> Account:
    """Grant one quantum."""
    return evolve(account, q=account.q + quantum, granted=account.granted + quantum)


def refilled_if_due(account: Account, quantum: Term) -> Account:
    """Grant one quantum if the counter is not positive and the client is known."""
    due = all_of(account.q <= 0, any_flag("known"))
    return evolve(
        account,
        q=either(due, account.q + quantum, account.q),
        granted=either(due, account.granted + quantum, account.granted),
    )


def observed_from_now(account: Account) -> Account:
    """Begin an interval."""
    nothing = account.w - account.w
    return evolve(account, w=nothing, granted=nothing, q_then=account.q, h_then=account.h, late_then=account.late)


# What always holds for one client.


def in_range(limit: Limits, account: Account, top: Term | None = None) -> Formula:
    """Return the range of the counter, with what may still be charged and refunded."""
    highest = limit.quantum if top is None else top
    return all_of(
        account.h >= 0,
        account.r >= 0,
        account.r <= limit.refund,
        account.late >= 0,
        account.late <= limit.prompt,
        account.q + account.r <= highest + limit.refund,
        account.q - account.h > limit.floor(),
        account.h_then >= 0,
        account.late_then >= 0,
        account.late_then <= limit.prompt,
        account.q_then <= highest + limit.refund,
        account.q_then - account.h_then > limit.floor(),
    )


def accounted(account: Account) -> Formula:
    """Return "service is what the counter lost and refills replaced"."""
    return same(account.w, account.q_then + account.granted - account.q)


# Two clients side by side.


@frozen
class Pair:
    """Two clients."""

    f: Account
    g: Account


def any_pair(variable: Variable = any_real) -> Pair:
    """Return two accounts about which nothing is known."""
    return Pair(any_account(variable), any_account(variable))


def for_both(
    of_f: Mapping[str, Callable[[Account], Step[Account]]], of_g: Mapping[str, Callable[[Account], Step[Account]]]
) -> dict[str, Callable[[Pair], Step[Pair]]]:
    """Return the transitions of either client alone, as transitions of the pair."""
    both: dict[str, Callable[[Pair], Step[Pair]]] = {}
    for name, take in of_f.items():
        both[f"f {name}"] = lambda pair, take=take: _f_moves(pair, take(pair.f))  # type: ignore[misc]
    for name, take in of_g.items():
        both[f"g {name}"] = lambda pair, take=take: _g_moves(pair, take(pair.g))  # type: ignore[misc]
    return both


def interval_begins(pair: Pair) -> Step[Pair]:
    """Begin an interval, at any time."""
    return Step(ALWAYS, Pair(observed_from_now(pair.f), observed_from_now(pair.g)))


def both_refilled(f: Limits, g: Limits) -> Callable[[Pair], Step[Pair]]:
    """Return the refill of two clients that are queued at every refill: neither may have credit left."""
    return lambda pair: Step(
        all_of(pair.f.q <= 0, pair.g.q <= 0),
        Pair(refilled(pair.f, f.quantum), refilled(pair.g, g.quantum)),
    )


def _f_moves(pair: Pair, step: Step[Account]) -> Step[Pair]:
    return Step(step.needs, evolve(pair, f=step.after))


def _g_moves(pair: Pair, step: Step[Account]) -> Step[Pair]:
    return Step(step.needs, evolve(pair, g=step.after))
