"""One deficit per client for all workers, which they see late."""

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
from tests.formal.smt.logic import Formula, Term, all_of, any_real, follows, same, whole
from tests.formal.smt.logic import real as constant
from tests.formal.smt.systems import PAIR_BOUND, F, G, within
from tests.formal.smt.worker import (
    Account,
    Limits,
    accounted,
    admitted,
    any_account,
    ends,
    fresh,
    in_range,
    observed_from_now,
    produces,
    refilled,
)

delta = constant("delta")
"""The most that a worker does not know of: what all other workers have charged and not settled yet."""


@frozen
class Late:
    """A client's true account, and what of it the ledger has not heard of."""

    account: Account
    unsettled: Term


@frozen
class Both:
    """Two clients."""

    f: Late
    g: Late


def _any() -> Both:
    return Both(Late(any_account(), any_real("y_f")), Late(any_account(), any_real("y_g")))


def _admit(limit: Limits, late: Late) -> Step[Late]:
    unseen = any_real("unseen")
    view = late.account.q + unseen
    step = admitted(limit, late.account, any_real, view > 0)
    seen = all_of(unseen >= 0, unseen <= delta, unseen <= late.unsettled)
    # No chunked prefill here: the prompt is computed at once.
    after = evolve(step.after, late=late.account.late)
    return Step(all_of(step.needs, seen), _unheard_of(late, after))


def _produce(late: Late) -> Step[Late]:
    step = produces(late.account, any_real)
    return Step(step.needs, _unheard_of(late, step.after))


def _end(late: Late) -> Step[Late]:
    step = ends(late.account, any_real)
    return Step(step.needs, evolve(late, account=step.after))


def _settle(late: Late) -> Step[Late]:
    heard = any_real("heard")
    after = evolve(late, unsettled=late.unsettled - heard)
    return Step(all_of(heard > 0, heard <= late.unsettled), after)


def _unheard_of(late: Late, after: Account) -> Late:
    return Late(after, late.unsettled + (late.account.q - after.q))


def _refill(both: Both) -> Step[Both]:
    settled = [late.account.q + late.unsettled for late in (both.f, both.g)]
    f = evolve(both.f, account=refilled(both.f.account, F.quantum))
    g = evolve(both.g, account=refilled(both.g.account, G.quantum))
    return Step(all_of(*(value <= 0 for value in settled)), Both(f, g))


def _interval_begins(both: Both) -> Step[Both]:
    f = evolve(both.f, account=observed_from_now(both.f.account))
    g = evolve(both.g, account=observed_from_now(both.g.account))
    return Step(delta >= 0, Both(f, g))


def _of_f(both: Both, step: Step[Late]) -> Step[Both]:
    return Step(step.needs, evolve(both, f=step.after))


def _of_g(both: Both, step: Step[Late]) -> Step[Both]:
    return Step(step.needs, evolve(both, g=step.after))


def _stale(limit: Limits) -> Limits:
    return evolve(limit, overdraft=delta)


def _sound(limit: Limits, late: Late) -> Formula:
    return all_of(
        in_range(_stale(limit), late.account),
        late.unsettled >= 0,
        late.account.q + late.unsettled <= limit.quantum,
        accounted(late.account),
    )


LEDGER = System[Both](
    state=_any,
    given=all_of(F.valid(), G.valid(), delta >= 0, same(F.refund, 0), same(G.refund, 0)),
    example=all_of(F.example(), G.example(), same(delta, 1)),
    start=lambda both: all_of(
        *(fresh(late.account) for late in (both.f, both.g)),
        *(same(late.unsettled, 0) for late in (both.f, both.g)),
    ),
    transitions={
        "f is admitted": lambda both: _of_f(both, _admit(F, both.f)),
        "g is admitted": lambda both: _of_g(both, _admit(G, both.g)),
        "f produces": lambda both: _of_f(both, _produce(both.f)),
        "g produces": lambda both: _of_g(both, _produce(both.g)),
        "f ends a request": lambda both: _of_f(both, _end(both.f)),
        "g ends a request": lambda both: _of_g(both, _end(both.g)),
        "f is settled": lambda both: _of_f(both, _settle(both.f)),
        "g is settled": lambda both: _of_g(both, _settle(both.g)),
        "both are refilled": _refill,
        "an interval begins": _interval_begins,
    },
    invariant=lambda both: {
        "f": _sound(F, both.f),
        "g": _sound(G, both.g),
        "equal refills": same(both.f.account.granted, both.g.account.granted),
    },
    claim=lambda both: {
        "charged": within(
            both.f.account.w - both.g.account.w,
            F.debt + G.debt + F.quantum + G.quantum + 2 * delta,
        ),
    },
)


def test_a_shared_ledger_is_fair_up_to_what_workers_do_not_know() -> None:
    """|W_f - W_g| < 2(U + Q + delta), U being one worker's U plus the B of all others; no |W|*Q appears in it."""
    prove(LEDGER)


def test_every_event_of_the_shared_ledger_can_happen() -> None:
    """The proof is not empty."""
    every_transition_can_happen(LEDGER)


def test_a_shared_ledger_needs_the_term_for_staleness() -> None:
    """Control: without delta a run exceeds 2(U + Q)."""
    bare = evolve(
        LEDGER,
        example=all_of(F.example(debt=1, quantum=1), G.example(debt=1, quantum=1), same(delta, 4)),
        claim=lambda both: {"charged": within(both.f.account.w - both.g.account.w, PAIR_BOUND)},
    )
    assert broken_obligations(bare)
    of_interest = ("both are refilled", "f is admitted")
    fewer = {name: take for name, take in bare.transitions.items() if name in of_interest}
    assert violation(evolve(bare, transitions=fewer)) is not None


def test_refills_on_stale_values_would_do_no_harm_but_on_optimistic_ones_would() -> None:
    """Control: a refill decided on less than what was settled lets the counter rise above a quantum."""
    eager = evolve(
        LEDGER,
        transitions={
            **LEDGER.transitions,
            "both are refilled": lambda both: evolve(_refill(both), needs=both.f.account.q <= delta),
        },
    )
    assert any(name.startswith("both are refilled") for name in broken_obligations(eager))


def test_only_one_prompt_shares_memory_with_the_output_of_all_workers() -> None:
    """Two workers: w_e*e + w_q*(o_1 + o_2) <= U_1 + B_2 whenever e + o_1 <= M_1 and o_2 <= M_2 (w_q >= w_e)."""
    w_e, w_q, e, o_1, o_2, m_1, m_2 = (whole(name) for name in ("w_e", "w_q", "e", "o_1", "o_2", "M_1", "M_2"))
    ranges = all_of(w_e >= 0, w_q >= w_e, e >= 0, o_1 >= 0, o_2 >= 0, e + o_1 <= m_1, o_2 <= m_2)
    follows(w_e * e + w_q * (o_1 + o_2) <= w_q * m_1 + w_q * m_2, ranges)
