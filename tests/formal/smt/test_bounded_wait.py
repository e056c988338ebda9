"""Every k-th admission of a client takes its oldest request: how long a request can be passed over."""

from __future__ import annotations

from attrs import evolve, frozen

from tests.formal.smt.induction import (
    Step,
    System,
    broken_obligations,
    every_transition_can_happen,
    prove,
    violation,
)
from tests.formal.smt.logic import (
    Formula,
    Term,
    all_of,
    any_flag,
    any_whole,
    either,
    implies,
    negation,
    same,
    whole,
)

every, older_at_first = whole("k"), whole("p")


@frozen
class Waiting:
    """One request of a client, and what was admitted since it arrived."""

    turn: Term
    """Admissions since the oldest was taken last."""
    older: Term
    """Requests of its client that are older and still wait."""
    passed_by: Term
    """k times the number of older requests that were admitted meanwhile."""
    by_age: Term
    """k times the number of admissions that took the oldest."""
    admissions: Term
    turn_then: Term
    placed: Formula
    """It was admitted itself."""


def _any() -> Waiting:
    turn, older, passed_by, by_age, admissions, turn_then = (
        any_whole(name) for name in ("turn", "older", "passed by", "by age", "admissions", "turn0")
    )
    return Waiting(turn, older, passed_by, by_age, admissions, turn_then, any_flag("placed"))


def _admit_another(waiting: Waiting, due: Formula) -> Step[Waiting]:
    """Admit by prefix: an older request, or a younger one."""
    gone = any_whole("older ones admitted")
    after = evolve(
        waiting,
        turn=waiting.turn + 1,
        older=waiting.older - gone,
        passed_by=waiting.passed_by + either(same(gone, 1), every, 0),
        admissions=waiting.admissions + 1,
    )
    return Step(all_of(negation(waiting.placed), due, gone >= 0, gone <= 1, gone <= waiting.older), after)


def _admit_oldest(waiting: Waiting) -> Step[Waiting]:
    still_older = waiting.older > 0
    after = evolve(
        waiting,
        turn=0 * waiting.turn,
        older=either(still_older, waiting.older - 1, waiting.older),
        passed_by=waiting.passed_by + either(still_older, every, 0),
        by_age=waiting.by_age + either(still_older, every, 0),
        admissions=waiting.admissions + 1,
        placed=negation(still_older),
    )
    return Step(all_of(negation(waiting.placed), same(waiting.turn, every - 1)), after)


def _start(waiting: Waiting) -> Formula:
    return all_of(
        *(waiting.turn >= 0, waiting.turn < every, same(waiting.turn_then, waiting.turn)),
        *(same(waiting.older, older_at_first), negation(waiting.placed)),
        *(same(x, 0) for x in (waiting.passed_by, waiting.by_age, waiting.admissions)),
    )


WAIT = System[Waiting](
    state=_any,
    given=all_of(every >= 1, older_at_first >= 0),
    example=all_of(same(every, 3), same(older_at_first, 1)),
    start=_start,
    transitions={
        "another is admitted": lambda waiting: _admit_another(waiting, waiting.turn < every - 1),
        "the oldest is admitted": _admit_oldest,
    },
    invariant=lambda waiting: {
        "ranges": all_of(
            *(waiting.turn >= 0, waiting.turn < every, waiting.older >= 0, waiting.turn_then >= 0),
        ),
        "older ones leave": same(waiting.passed_by, every * (older_at_first - waiting.older)),
        "each admission by age takes an older one": waiting.by_age <= waiting.passed_by,
        "admissions until it is placed": implies(
            negation(waiting.placed), same(waiting.admissions, waiting.turn - waiting.turn_then + waiting.by_age)
        ),
        "admissions": waiting.admissions <= every * (older_at_first + 1),
    },
    claim=lambda waiting: {"admissions": waiting.admissions <= every * (older_at_first + 1)},
)


def test_a_request_starts_at_or_before_admission_k_times_its_place() -> None:
    """With p older requests of its client it is among that client's next k(p + 1) admissions."""
    prove(WAIT)


def test_every_event_of_bounded_wait_can_happen() -> None:
    """The proof is not empty."""
    every_transition_can_happen(WAIT)


def test_without_the_hold_a_request_that_does_not_fit_waits_for_ever() -> None:
    """Control: when the oldest is due and has no room, another one may be admitted in its stead."""
    unheld = evolve(
        WAIT,
        transitions={
            **WAIT.transitions,
            "another is admitted": lambda waiting: _admit_another(waiting, waiting.turn < 2 * every),
        },
    )
    assert broken_obligations(unheld)
    assert violation(evolve(unheld, example=all_of(same(every, 1), same(older_at_first, 0)))) is not None
