"""D2LPM's dispatcher: one deficit per client and worker; a client's workers are refilled together."""

from __future__ import annotations

from collections.abc import Callable

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
    ALWAYS,
    NOTHING,
    Formula,
    Term,
    all_of,
    any_of,
    any_real,
    any_whole,
    either,
    flag,
    follows,
    implies,
    negation,
    real,
    refute,
    same,
    whole,
)
from tests.formal.smt.systems import BACKLOGGED, PAIR_BOUND, F, G, both_fresh, both_sound, within
from tests.formal.smt.worker import Account, Pair, any_pair, interval_begins

quantum, refund = real("Q_w"), real("R")


@frozen
class Worker:
    """What the dispatcher keeps about one client at one worker."""

    q: Term
    r: Term
    """What may still be refunded (a prediction that was too large)."""
    refills: Term


@frozen
class Workers:
    """Two of the client's workers; there may be any number of others."""

    v: Worker
    w: Worker


def _any() -> Workers:
    v, w = (Worker(any_real("q"), any_real("r"), any_whole("refills")) for _ in range(2))
    return Workers(v, w)


def _charge(worker: Worker, gate: Formula) -> Step[Worker]:
    c, x = any_real("c"), any_real("x")
    after = evolve(worker, q=worker.q - c, r=worker.r + x)
    return Step(all_of(gate, c > 0, x >= 0, x <= c, after.r <= refund), after)


def _give_back(worker: Worker) -> Step[Worker]:
    x = any_real("x")
    return Step(all_of(x > 0, x <= worker.r), evolve(worker, q=worker.q + x, r=worker.r - x))


def _finish(worker: Worker) -> Step[Worker]:
    c = any_real("c")
    return Step(c > 0, evolve(worker, q=worker.q - c))


def _of_v(workers: Workers, step: Step[Worker]) -> Step[Workers]:
    return Step(step.needs, evolve(workers, v=step.after))


def _of_w(workers: Workers, step: Step[Worker]) -> Step[Workers]:
    return Step(step.needs, evolve(workers, w=step.after))


def _refilled(worker: Worker) -> Worker:
    return evolve(worker, q=worker.q + quantum, refills=worker.refills + 1)


def _refill(workers: Workers) -> Step[Workers]:
    nobody_has_credit = all_of(workers.v.q <= 0, workers.w.q <= 0)
    return Step(nobody_has_credit, Workers(_refilled(workers.v), _refilled(workers.w)))


DISPATCHER = System[Workers](
    state=_any,
    given=all_of(quantum > 0, refund >= 0),
    example=all_of(same(quantum, 2), same(refund, 1)),
    start=lambda workers: all_of(
        *(same(x, 0) for worker in (workers.v, workers.w) for x in (worker.q, worker.r, worker.refills))
    ),
    transitions={
        "dispatch to v": lambda workers: _of_v(workers, _charge(workers.v, workers.v.q > 0)),
        "dispatch to w": lambda workers: _of_w(workers, _charge(workers.w, workers.w.q > 0)),
        "v finishes a request": lambda workers: _of_v(workers, _finish(workers.v)),
        "w finishes a request": lambda workers: _of_w(workers, _finish(workers.w)),
        "v gives back": lambda workers: _of_v(workers, _give_back(workers.v)),
        "w gives back": lambda workers: _of_w(workers, _give_back(workers.w)),
        "all workers are refilled": _refill,
    },
    invariant=lambda workers: {
        "range": all_of(
            *(worker.q + worker.r <= quantum + refund for worker in (workers.v, workers.w)),
            *(worker.r >= 0 for worker in (workers.v, workers.w)),
            *(worker.r <= refund for worker in (workers.v, workers.w)),
        ),
        "equal refills": same(workers.v.refills, workers.w.refills),
    },
    claim=lambda workers: {
        "at most": all_of(*(worker.q <= quantum + refund for worker in (workers.v, workers.w))),
        "equal refills": same(workers.v.refills, workers.w.refills),
    },
)


def test_a_clients_workers_stay_below_one_quantum_and_are_refilled_equally_often() -> None:
    """q_{i,w} <= Q_w + R, and all workers of a client have seen the same number of refills."""
    prove(DISPATCHER)


def test_every_event_of_the_dispatcher_can_happen() -> None:
    """The proof is not empty."""
    every_transition_can_happen(DISPATCHER)


def test_refilling_workers_one_by_one_breaks_the_equal_counts() -> None:
    """Control: a refill of the one worker that ran out."""
    alone = evolve(
        DISPATCHER,
        transitions={
            **DISPATCHER.transitions,
            "v is refilled": lambda workers: Step(workers.v.q <= 0, evolve(workers, v=_refilled(workers.v))),
        },
    )
    assert broken_obligations(alone)
    assert violation(alone) is not None


# A worker's own DLPM, when a client with credit there has nothing queued at a refill: it misses that refill.


@frozen
class Missing:
    """Two clients at one worker, and what each has missed, in service units per unit of weight."""

    pair: Pair
    f_missed: Term
    g_missed: Term


def _alone(name: str) -> Callable[[Missing], Step[Missing]]:
    take = BACKLOGGED.transitions[name]

    def moves(missing: Missing) -> Step[Missing]:
        step = take(missing.pair)
        return Step(step.needs, evolve(missing, pair=step.after))

    return moves


def _refill_whoever_is_due(missing: Missing) -> Step[Missing]:
    f, g = missing.pair.f, missing.pair.g
    return Step(
        ALWAYS,
        Missing(
            Pair(_if_due(f, F.quantum), _if_due(g, G.quantum)),
            missing.f_missed + either(f.q <= 0, 0, F.quantum),
            missing.g_missed + either(g.q <= 0, 0, G.quantum),
        ),
    )


def _if_due(account: Account, brings: Term) -> Account:
    return evolve(
        account,
        q=either(account.q <= 0, account.q + brings, account.q),
        granted=either(account.q <= 0, account.granted + brings, account.granted),
    )


def _observed(missing: Missing) -> Step[Missing]:
    return Step(ALWAYS, Missing(interval_begins(missing.pair).after, NOTHING, NOTHING))


MISSES = System[Missing](
    state=lambda: Missing(any_pair(), any_real("missed"), any_real("missed")),
    given=BACKLOGGED.given,
    example=BACKLOGGED.example,
    start=lambda missing: all_of(both_fresh(missing.pair), same(missing.f_missed, 0), same(missing.g_missed, 0)),
    transitions={
        **{name: _alone(name) for name in BACKLOGGED.transitions if name.startswith(("f ", "g "))},
        "a refill": _refill_whoever_is_due,
        "an interval begins": _observed,
    },
    invariant=lambda missing: {
        **both_sound(F, G, missing.pair),
        "misses": all_of(missing.f_missed >= 0, missing.g_missed >= 0),
        "refills differ by the misses": same(
            missing.pair.f.granted + missing.f_missed, missing.pair.g.granted + missing.g_missed
        ),
    },
    claim=lambda missing: {
        "f ahead": missing.pair.f.w - missing.pair.g.w < PAIR_BOUND + missing.g_missed,
        "g ahead": missing.pair.g.w - missing.pair.f.w < PAIR_BOUND + missing.f_missed,
    },
)


def test_a_refill_that_a_client_misses_costs_it_one_quantum_at_most() -> None:
    """|W_f - W_g| < 2(U + Q) + max(misses of f, misses of g)*Q at each worker; the sum over workers is D2LPM's."""
    prove(MISSES)


def test_every_event_of_a_worker_with_missed_refills_can_happen() -> None:
    """The proof is not empty."""
    every_transition_can_happen(MISSES)


def test_backlogged_anywhere_is_not_backlogged_everywhere() -> None:
    """Control for Theorem 5.1: without the term for misses a run exceeds 2(U + Q) at one worker."""
    published = evolve(
        MISSES,
        example=all_of(F.example(debt=1, quantum=1), G.example(debt=1, quantum=1)),
        claim=lambda missing: {"charged": within(missing.pair.f.w - missing.pair.g.w, PAIR_BOUND)},
    )
    assert broken_obligations(published)
    of_interest = ("a refill", "g is admitted", "g computes a prompt")
    fewer = {name: take for name, take in published.transitions.items() if name in of_interest}
    assert violation(evolve(published, transitions=fewer), deepest=14) is not None


# Whom the dispatcher chooses. `x` is chosen, `y` any other worker.


@frozen
class _Candidate:
    matches: Formula
    """It holds the longest match."""
    credit: Formula
    load: Term
    chosen: Formula


def _candidate(name: str) -> _Candidate:
    return _Candidate(
        flag(f"{name} matches"), flag(f"{name} has credit"), whole(f"load of {name}"), flag(f"{name} is chosen")
    )


x, y = _candidate("x"), _candidate("y")
SOMEBODY = flag("some worker matches and has credit")
RULE = all_of(
    # Algorithm 2: the least loaded of those that match and have credit; if there are none, of those with credit.
    *(implies(all_of(worker.matches, worker.credit), SOMEBODY) for worker in (x, y)),
    *(implies(all_of(worker.chosen, SOMEBODY), all_of(worker.matches, worker.credit)) for worker in (x, y)),
    *(implies(worker.chosen, worker.credit) for worker in (x, y)),
    implies(all_of(x.chosen, SOMEBODY, y.matches, y.credit), x.load <= y.load),
    implies(all_of(x.chosen, negation(SOMEBODY), y.credit), x.load <= y.load),
)


def test_locality_is_kept_whenever_credit_allows_it() -> None:
    """If any worker both holds the longest match and has credit, such a worker is chosen, the least loaded one."""
    good = all_of(y.matches, y.credit)
    follows(all_of(x.matches, x.credit, x.load <= y.load), RULE, x.chosen, good)


def test_a_match_alone_does_not_win_over_missing_credit() -> None:
    """A worker without credit is never chosen, however long its match."""
    follows(negation(x.chosen), RULE, negation(x.credit))
    assert refute(any_of(x.matches, x.chosen), RULE) is not None


def test_refills_end_with_credit_somewhere() -> None:
    """While no worker has credit all are refilled: each round brings the least indebted one a quantum nearer."""
    debt, rounds, q = whole("least debt"), whole("rounds"), whole("Q")
    follows(-debt + rounds * q > 0, q >= 1, debt >= 0, rounds >= debt + 1)
    assert refute(-debt + rounds * q > 0, q >= 1, debt >= 0, rounds >= debt) is not None
