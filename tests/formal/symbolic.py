"""Contracts for the shipping arithmetic of one client, read by crosshair: see test_symbolic.py.

Each function calls the shipping code, and its docstring says what must come out, for all integers. Functions whose
names begin with `planted_` say something wrong on purpose: they must be refuted.
"""

from __future__ import annotations

from fairprefix.core.deficit import DeficitAccount, rounds_until_above
from fairprefix.core.lane import Lane


def account(q: int, outstanding: int, quantum: int, settled_at: int = 0) -> DeficitAccount:
    """Return an account of the shipping class."""
    made = DeficitAccount("client", 1, Lane(None), q, quantum=quantum, settled_at=settled_at)
    made.outstanding = outstanding
    return made


def is_due(q: int, held: int, slack: int | None) -> bool:
    """Return the rule of Algorithm 1, or that of the credit gate."""
    if slack is None:
        return q <= 0
    return q <= 0 or (q - held <= 0 and q <= slack)


def enough_rounds(value: int, threshold: int, quantum: int) -> int:
    """The rounds returned lift the value above the threshold.

    pre: quantum >= 1
    post: _ >= 0
    post: value + _ * quantum > threshold
    """
    return rounds_until_above(value, threshold, quantum)


def no_round_too_many(value: int, threshold: int, quantum: int) -> int:
    """One round fewer would not lift it.

    pre: quantum >= 1
    post: _ == 0 or value + (_ - 1) * quantum <= threshold
    """
    return rounds_until_above(value, threshold, quantum)


def committed_is_what_is_left_of_q(q: int, outstanding: int, output_cost: int) -> int:
    """The outstanding output is set aside; predictions that fell short add nothing.

    pre: output_cost >= 0
    post: _ <= q
    post: _ == q - output_cost * outstanding or outstanding < 0
    """
    return account(q, outstanding, 1).committed(output_cost)


def refills_until_not_due(q: int, quantum: int) -> tuple[bool, bool]:
    """Published gate: due until the last of these rounds, and not after it.

    pre: quantum >= 1
    post: _ == (q <= 0, False)
    """
    due_for = account(q, 0, quantum).rounds_due(2, None)
    last = is_due(q + (due_for - 1) * quantum, 0, None) if due_for else False
    return last, is_due(q + due_for * quantum, 0, None)


def credit_refills_until_not_due(q: int, outstanding: int, quantum: int, slack: int) -> tuple[bool, bool]:
    """Credit gate: due until the last of these rounds, and not after it.

    pre: quantum >= 1
    pre: slack >= 0
    post: _ == (is_due(q, 2 * max(outstanding, 0), slack), False)
    """
    due_for = account(q, outstanding, quantum).rounds_due(2, slack)
    held = 2 * max(outstanding, 0)
    last = is_due(q + (due_for - 1) * quantum, held, slack) if due_for else False
    return last, is_due(q + due_for * quantum, held, slack)


def settled(q: int, outstanding: int, quantum: int, rounds: int, slack: int | None) -> int:
    """Return the counter of the shipping class after some rounds."""
    client = account(q, outstanding, quantum, settled_at=3)
    client.settle(3 + rounds, 2, slack)
    return client.balance


def one_round_by_hand(q: int, outstanding: int, quantum: int, slack: int | None) -> int:
    """Return the counter after one round, as Algorithm 1 writes it."""
    return q + quantum if is_due(q, 2 * max(outstanding, 0), slack) else q


def a_round_more_is_a_round_more(q: int, quantum: int, rounds: int) -> tuple[int, int]:
    """Published gate: settling k + 1 rounds at once is settling k and doing one by hand. So it equals the loop.

    pre: quantum >= 1
    pre: rounds >= 0
    post: _[0] == _[1]
    """
    return settled(q, 0, quantum, rounds + 1, None), one_round_by_hand(
        settled(q, 0, quantum, rounds, None), 0, quantum, None
    )


def a_credit_round_more_is_a_round_more(
    q: int, outstanding: int, quantum: int, rounds: int, slack: int
) -> tuple[int, int]:
    """Credit gate: the same.

    pre: quantum >= 1
    pre: slack >= 0
    pre: rounds >= 0
    post: _[0] == _[1]
    """
    return settled(q, outstanding, quantum, rounds + 1, slack), one_round_by_hand(
        settled(q, outstanding, quantum, rounds, slack), outstanding, quantum, slack
    )


def settling_in_parts(q: int, quantum: int, first: int, second: int) -> tuple[int, int]:
    """Published gate: settling early changes nothing.

    pre: quantum >= 1
    pre: first >= 0
    pre: second >= 0
    post: _[0] == _[1]
    """
    client = account(q, 0, quantum)
    client.settle(first, 2, None)
    client.settle(first + second, 2, None)
    return client.balance, settled(q, 0, quantum, first + second, None)


def never_above_a_quantum(q: int, quantum: int, rounds: int) -> int:
    """Published gate: a refill never lifts a counter above its quantum, and never lowers it.

    pre: quantum >= 1
    pre: rounds >= 0
    post: _ >= q
    post: _ <= max(q, quantum)
    """
    return settled(q, 0, quantum, rounds, None)


def never_above_a_quantum_and_the_slack(q: int, outstanding: int, quantum: int, rounds: int, slack: int) -> int:
    """Credit gate: a refill never lifts a counter above quantum + slack.

    pre: quantum >= 1
    pre: slack >= 0
    pre: rounds >= 0
    post: _ >= q
    post: _ <= max(q, quantum + slack)
    """
    return settled(q, outstanding, quantum, rounds, slack)


# Wrong on purpose.


def planted_gate_at_zero(q: int, quantum: int) -> int:
    """Claims that q = 0 is not due.

    pre: quantum >= 1
    post: q < 0 or _ == 0
    """
    return account(q, 0, quantum).rounds_due(2, None)


def planted_one_round_too_few(value: int, threshold: int, quantum: int) -> int:
    """A copy with an off-by-one error.

    pre: quantum >= 1
    post: value + _ * quantum > threshold
    """
    return max(0, -((value - threshold) // quantum))


def planted_top_up(q: int, quantum: int, rounds: int) -> int:
    """Claims that every round brings a quantum, due or not.

    pre: quantum >= 1
    pre: rounds >= 0
    post: _ == q + rounds * quantum
    """
    return settled(q, 0, quantum, rounds, None)


def planted_shortfall(q: int, outstanding: int) -> int:
    """Claims that a prediction that fell short raises the committed credit.

    post: _ == q - 2 * outstanding
    """
    return account(q, outstanding, 1).committed(2)
