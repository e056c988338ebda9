"""The closed form of a refill: many rounds at once, and lazily, with the same result as one by one."""

from __future__ import annotations

from tests.formal.smt.logic import (
    Formula,
    Term,
    all_of,
    any_of,
    either,
    follows,
    implies,
    negation,
    same,
    smaller,
    whole,
)

q, h, slack, quantum = whole("q"), whole("h"), whole("S"), whole("Q")
GIVEN = all_of(quantum >= 1, h >= 0, slack >= 0)


def due(counter: Term) -> Formula:
    """Return the rule of the credit gate; with h = S = 0 it is the published one."""
    return any_of(counter <= 0, all_of(counter - h <= 0, counter <= slack))


def is_rounds_until_above(rounds: Term, value: Term, threshold: Term | int) -> Formula:
    """Return "rounds = max(0, (threshold - value) // Q + 1)", with quotient and rest as integers of their own."""
    quotient, rest = whole(f"quotient {value.sexpr()}"), whole(f"rest {value.sexpr()}")
    division = all_of(same(threshold - value, quotient * quantum + rest), rest >= 0, rest < quantum)
    return all_of(division, same(rounds, either(quotient + 1 >= 0, quotient + 1, 0 * quotient)))


def test_the_number_of_rounds_is_the_least_that_lifts_a_counter_above_a_threshold() -> None:
    """N = max(0, (S - q)//Q + 1): n quanta lift q above S, and n - 1 do not."""
    rounds = whole("n")
    given = [GIVEN, is_rounds_until_above(rounds, q, slack)]
    follows(q + rounds * quantum > slack, *given)
    follows(implies(rounds > 0, q + (rounds - 1) * quantum <= slack), *given)
    follows(rounds >= 0, *given)


def test_a_client_is_due_just_as_long_as_its_counter_is_at_most_its_hold_and_the_slack() -> None:
    """Q <= 0, or q - h <= 0 and q <= S: since h and S are not negative, that is q <= min(h, S)."""
    follows(same(due(q), q <= smaller(h, slack)), GIVEN)


def test_due_rounds_are_the_smaller_of_the_two_thresholds() -> None:
    """After min(n(q - h, 0), n(q, S)) quanta a client is no longer due, and one quantum earlier it still is."""
    to_open, to_slack = whole("to open"), whole("to slack")
    needed = smaller(to_open, to_slack)
    given = [
        GIVEN,
        is_rounds_until_above(to_open, q - h, 0),
        is_rounds_until_above(to_slack, q, slack),
    ]
    for fewest, other in ((to_open, to_slack), (to_slack, to_open)):
        case = [*given, fewest <= other, same(needed, fewest)]
        follows(negation(due(q + fewest * quantum)), *case)
        follows(implies(fewest > 0, due(q + (fewest - 1) * quantum)), *case)


def test_one_round_of_the_loop_is_one_round_of_the_closed_form() -> None:
    """If min(k, needed) quanta are the state after k rounds, the loop makes min(k + 1, needed) of it.

    By induction over k the closed form equals the loop, for every number of rounds.
    """
    k, needed, granted = whole("k"), whole("needed"), whole("min(k, needed)*Q")
    # What the test above shows of `needed`, for the rounds at hand.
    last, final = whole("(needed - 1)*Q"), whole("needed*Q")
    given = all_of(
        *(GIVEN, k >= 0, needed >= 0),
        implies(needed > 0, q + last <= smaller(h, slack)),
        q + final > smaller(h, slack),
        same(final, last + quantum),
        implies(k >= needed, same(granted, final)),
        implies(k < needed, granted <= last),
    )
    looped = either(due(q + granted), granted + quantum, granted)
    closed = either(k < needed, granted + quantum, final)
    follows(same(looped, closed), given)


def test_products_of_a_quantum_grow_with_the_rounds() -> None:
    """The premise of the induction: k < needed implies k*Q <= (needed - 1)*Q."""
    k, needed = whole("k"), whole("needed")
    follows(k * quantum <= (needed - 1) * quantum, GIVEN, k < needed)


def test_settling_late_or_in_parts_makes_no_difference() -> None:
    """min(j, needed) rounds and then min(k, what is needed then) are min(j + k, needed) in all."""
    j, k, needed = whole("j"), whole("k"), whole("needed")
    first = smaller(j, needed)
    total = first + smaller(k, needed - first)
    follows(same(total, smaller(j + k, needed)), j >= 0, k >= 0, needed >= 0)


def test_the_loop_ends_when_the_first_queued_client_is_no_longer_due() -> None:
    """All queued clients are due for k rounds, k being the smallest of their needs, and for no longer."""
    needed_f, needed_g, done = whole("needed_f"), whole("needed_g"), whole("done")
    k = smaller(needed_f, needed_g)
    all_due = all_of(done < needed_f, done < needed_g)
    follows(same(all_due, done < k), done >= 0)
