"""The method can say no: rules that are known to be unfair fail, each with a run that shows it.

Every control is checked twice: the proof breaks, and a search finds a run from a fresh start into a violation.
"""

from __future__ import annotations

import pytest
from attrs import evolve

from tests.formal.smt.induction import S, Step, System, broken_obligations, leads_to_violation, violation
from tests.formal.smt.logic import ALWAYS, NOTHING, Term, all_of, any_of, any_real, either, follows, real, same
from tests.formal.smt.systems import (
    AGAINST_ANY,
    BACKLOGGED,
    CHANGING_F,
    CHANGING_G,
    CHANGING_WEIGHTS,
    COUNTER,
    CREDIT_COUNTER,
    PAIR_BOUND,
    F,
    G,
    X,
    within,
)
from tests.formal.smt.worker import Account, Pair, admitted


def assert_refuted(system: System[S], *of_interest: str, deepest: int = 8) -> None:
    """Check that the proof breaks, and that a run with the named transitions alone reaches a violation."""
    assert broken_obligations(system), "the proof went through"
    fewer = {name: take for name, take in system.transitions.items() if name in of_interest}
    assert len(fewer) == len(of_interest), sorted(system.transitions)
    assert violation(evolve(system, transitions=fewer), deepest) is not None, "no run reaches a violation"


def test_what_follows_from_a_contradiction_is_not_proved() -> None:
    """Nor is what does not follow: both raise, so that no statement is proved about nothing."""
    x = real("x")
    follows(x >= 0, x > 1)
    with pytest.raises(AssertionError, match="contradicts itself"):
        follows(x >= 0, x > 1, x < 1)
    with pytest.raises(AssertionError, match="does not follow"):
        follows(x > 2, x > 1)


def test_occupancy_admission_without_a_cap_leaves_the_range() -> None:
    """Output that nobody reserved can be of any size: the counter falls below -U."""
    uncapped = evolve(
        COUNTER,
        transitions={
            **COUNTER.transitions,
            "is admitted": lambda account: admitted(X, account, any_real, account.q > 0, cap=ALWAYS),
        },
    )
    assert_refuted(uncapped, "is refilled", "is admitted", "produces")


def test_a_gate_that_opens_at_zero_leaves_the_range() -> None:
    """Admitting while q >= 0 instead of q > 0 reaches -U itself."""
    at_zero = evolve(
        COUNTER,
        transitions={
            **COUNTER.transitions,
            "is admitted": lambda account: admitted(X, account, any_real, account.q >= -X.overdraft),
        },
        example=X.example(),
    )
    assert_refuted(at_zero, "is admitted", "produces")


def test_resuming_unasked_what_is_no_longer_held_leaves_the_range() -> None:
    """A preempted request that was counted out, and resumes without credit, is charged a second time over."""

    def resume(account: Account) -> Step[Account]:
        a = any_real("a")
        after = evolve(account, h=account.h + a)
        return Step(all_of(a > 0, after.h < X.debt), after)

    unasked = evolve(
        COUNTER,
        transitions={**COUNTER.transitions, "resumes unasked": resume},
        example=X.example(),
    )
    assert_refuted(unasked, "resumes unasked", "produces", deepest=4)


def test_dropping_the_credit_of_a_client_that_runs_leaves_the_range_of_the_credit_gate() -> None:
    """With q > 0 its requests hold what that credit pays for; without it more than one request is owed."""

    def drop(account: Account) -> Step[Account]:
        return Step(account.q > 0, evolve(account, q=NOTHING))

    dropping = evolve(
        CREDIT_COUNTER,
        transitions={**CREDIT_COUNTER.transitions, "loses its credit": drop},
        example=all_of(X.example(debt=2, quantum=3)),
    )
    assert_refuted(dropping, "is refilled", "is admitted", "computes a prompt", "loses its credit")


def test_forgiving_the_debt_of_a_client_that_returns_breaks_the_bound() -> None:
    """A client takes U, leaves, returns with a clean slate, and does so again."""

    def return_with_a_clean_slate(pair: Pair) -> Step[Pair]:
        return Step(all_of(pair.g.q < 0, same(pair.g.h, 0)), evolve(pair, g=evolve(pair.g, q=NOTHING)))

    forgetful = evolve(
        AGAINST_ANY,
        transitions={**AGAINST_ANY.transitions, "g leaves and returns": return_with_a_clean_slate},
        example=all_of(F.example(debt=1, quantum=1), G.example(debt=40, prompt=40, quantum=1)),
    )
    assert_refuted(
        forgetful,
        *("due clients are refilled", "f is admitted", "g is admitted", "g computes a prompt"),
        "g leaves and returns",
    )


def test_refilling_as_soon_as_anybody_ran_out_breaks_the_bound() -> None:
    """A client whose requests do not fit keeps its credit, and the other is refilled again and again."""

    def refill_any(pair: Pair) -> Step[Pair]:
        f, g = (
            evolve(
                account,
                q=either(account.q <= 0, account.q + limit.quantum, account.q),
                granted=either(account.q <= 0, account.granted + limit.quantum, account.granted),
            )
            for account, limit in ((pair.f, F), (pair.g, G))
        )
        return Step(any_of(pair.f.q <= 0, pair.g.q <= 0), Pair(f, g))

    hasty = evolve(
        BACKLOGGED,
        transitions={**BACKLOGGED.transitions, "both are refilled": refill_any},
        example=all_of(F.example(debt=1, quantum=1), G.example(debt=1, quantum=1)),
    )
    assert_refuted(hasty, "both are refilled", "g is admitted", "g computes a prompt", deepest=14)


def test_rescaling_debt_with_the_weight_breaks_the_bound() -> None:
    """Whoever may shrink its debt by a change of weight does so after each large request."""

    def rescale(pair: Pair) -> Step[Pair]:
        debt = any_real("q")
        return Step(all_of(debt > pair.f.q, debt <= 0), evolve(pair, f=evolve(pair.f, q=debt)))

    rescaling = evolve(
        CHANGING_WEIGHTS,
        transitions={**CHANGING_WEIGHTS.transitions, "f is rescaled": rescale},
        example=all_of(CHANGING_F.example(debt=40, prompt=40, quantum=1), CHANGING_G.example(debt=1, quantum=1)),
    )
    assert_refuted(
        rescaling, "both are refilled", "f is admitted", "f computes a prompt", "g is admitted", "f is rescaled"
    )


def test_delivered_service_needs_the_term_for_chunked_prefill() -> None:
    """Prompts that are charged and not computed yet let delivered service drift beyond the bound on charges."""
    narrow = evolve(
        BACKLOGGED,
        example=all_of(F.example(debt=9, prompt=9, quantum=9), G.example(debt=9, prompt=9, quantum=9)),
        claim=lambda pair: {"delivered": within(pair.f.delivered() - pair.g.delivered(), PAIR_BOUND)},
    )
    assert broken_obligations(narrow)
    f_spends, g_spends = ("f is admitted", "f computes a prompt"), ("g is admitted", "g computes a prompt")
    refill = ("both are refilled",)
    late_f = (*refill, "f is admitted", *g_spends, *refill, *g_spends, *g_spends)
    story = (
        *(*late_f, "an interval begins", "f computes a prompt", *f_spends),
        *(*refill, *f_spends, "g is admitted", *refill, *f_spends, *f_spends),
    )
    assert leads_to_violation(narrow, story)


def test_half_the_bound_is_wrong_for_a_fresh_start_with_unequal_weights() -> None:
    """Half of the usual bound, as published for a fresh start, is exceeded when U per unit of weight differs."""
    started = {name: take for name, take in BACKLOGGED.transitions.items() if name != "an interval begins"}

    def twice(pair: Pair) -> Term:
        return 2 * (pair.f.w - pair.g.w)

    halved = evolve(
        BACKLOGGED,
        transitions=started,
        example=all_of(F.example(debt=9, prompt=9, quantum=1), G.example(debt=1, prompt=1, quantum=1)),
        claim=lambda pair: {"charged": within(twice(pair), PAIR_BOUND)},
    )
    assert_refuted(halved, "both are refilled", "f is admitted")
