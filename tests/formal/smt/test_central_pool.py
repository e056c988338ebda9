"""Requests wait in one pool, and every worker is topped up to one queued request of each client."""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve, frozen

from tests.formal.smt.induction import (
    Step,
    System,
    broken_obligations,
    every_transition_can_happen,
    leads_to_violation,
    prove,
)
from tests.formal.smt.logic import (
    ALWAYS,
    Formula,
    Term,
    all_of,
    any_of,
    any_whole,
    either,
    follows,
    implies,
    real,
    refute,
    same,
)
from tests.formal.smt.systems import BACKLOGGED, PAIR_BOUND, F, G, both_fresh, both_sound, within
from tests.formal.smt.worker import Account, Limits, Pair, any_pair, interval_begins, refilled


@frozen
class Line:
    """One client's requests: those in the pool, and those queued at the worker in question."""

    pool: Term
    queued: Term


@frozen
class Pooled:
    """Two clients and one worker; any number of other workers take from the same pool."""

    pair: Pair
    f: Line
    g: Line


def _any() -> Pooled:
    f, g = (Line(any_whole("pool"), any_whole("queued")) for _ in range(2))
    return Pooled(any_pair(), f, g)


def _topped_up(line: Line) -> Line:
    lacking = all_of(line.queued <= 0, line.pool >= 1)
    return Line(either(lacking, line.pool - 1, line.pool), either(lacking, line.queued + 1, line.queued))


def _of(name: str, pooled: Pooled, line: Line) -> Pooled:
    return evolve(pooled, f=line) if name == "f" else evolve(pooled, g=line)


def _arrives(name: str) -> Callable[[Pooled], Step[Pooled]]:
    def step(pooled: Pooled) -> Step[Pooled]:
        line = getattr(pooled, name)
        return Step(ALWAYS, _of(name, pooled, _topped_up(evolve(line, pool=line.pool + 1))))

    return step


def _goes_elsewhere(name: str) -> Callable[[Pooled], Step[Pooled]]:
    """Another worker is topped up, or a request in the pool is aborted."""

    def step(pooled: Pooled) -> Step[Pooled]:
        line = getattr(pooled, name)
        return Step(line.pool >= 1, _of(name, pooled, evolve(line, pool=line.pool - 1)))

    return step


def _is_preempted(name: str) -> Callable[[Pooled], Step[Pooled]]:
    def step(pooled: Pooled) -> Step[Pooled]:
        line = getattr(pooled, name)
        return Step(ALWAYS, _of(name, pooled, evolve(line, queued=line.queued + 1)))

    return step


def _own(transition: str, top_up: Callable[[Line], Line]) -> Callable[[Pooled], Step[Pooled]]:
    """Return what happens to one client at the worker; after an admission the queue is topped up."""
    take, name = BACKLOGGED.transitions[transition], transition[0]

    def step(pooled: Pooled) -> Step[Pooled]:
        moved = take(pooled.pair)
        after = evolve(pooled, pair=moved.after)
        if not transition.endswith("is admitted"):
            return Step(moved.needs, after)
        line = getattr(pooled, name)
        left = top_up(evolve(line, queued=line.queued - 1))
        return Step(all_of(moved.needs, line.queued >= 1), _of(name, after, left))

    return step


def _if_due(limit: Limits, account: Account) -> Account:
    due = account.q <= 0
    after = refilled(account, limit.quantum)
    return evolve(account, q=either(due, after.q, account.q), granted=either(due, after.granted, account.granted))


def _refill(pooled: Pooled) -> Step[Pooled]:
    """Whoever is queued has no credit; whoever has none is refilled. Both clients have something in the pool."""
    f, g = pooled.pair.f, pooled.pair.g
    needs = all_of(
        any_of(pooled.f.queued <= 0, f.q <= 0),
        any_of(pooled.g.queued <= 0, g.q <= 0),
        *(line.pool >= 1 for line in (pooled.f, pooled.g)),
    )
    return Step(needs, evolve(pooled, pair=Pair(_if_due(F, f), _if_due(G, g))))


def _interval_begins(pooled: Pooled) -> Step[Pooled]:
    step = interval_begins(pooled.pair)
    return Step(step.needs, evolve(pooled, pair=step.after))


def _kept_up(line: Line) -> Formula:
    return all_of(line.pool >= 0, line.queued >= 0, implies(line.pool >= 1, line.queued >= 1))


def _system(top_up: Callable[[Line], Line] = _topped_up) -> System[Pooled]:
    own = [name for name in BACKLOGGED.transitions if name.startswith(("f ", "g "))]
    return System[Pooled](
        state=_any,
        given=BACKLOGGED.given,
        example=BACKLOGGED.example,
        start=lambda pooled: all_of(
            both_fresh(pooled.pair),
            *(same(x, 0) for line in (pooled.f, pooled.g) for x in (line.pool, line.queued)),
        ),
        transitions={
            **{name: _own(name, top_up) for name in own},
            **{f"{name} sends a request": _arrives(name) for name in "fg"},
            **{f"another worker takes one of {name}": _goes_elsewhere(name) for name in "fg"},
            **{f"a request of {name} is preempted": _is_preempted(name) for name in "fg"},
            "a refill": _refill,
            "an interval begins": _interval_begins,
        },
        invariant=lambda pooled: {
            **both_sound(F, G, pooled.pair),
            "f is kept up": _kept_up(pooled.f),
            "g is kept up": _kept_up(pooled.g),
            "equal refills": same(pooled.pair.f.granted, pooled.pair.g.granted),
        },
        claim=lambda pooled: {"charged": within(pooled.pair.f.w - pooled.pair.g.w, PAIR_BOUND)},
    )


POOL = _system()


def test_a_pool_that_tops_up_at_once_lets_nobody_miss_a_refill() -> None:
    """While both clients have a request in the pool, each worker keeps the bound of a single one: 2(U + Q)."""
    prove(POOL)


def test_every_event_of_the_pool_can_happen() -> None:
    """The proof is not empty."""
    every_transition_can_happen(POOL)


def test_the_bounds_of_the_workers_add_up() -> None:
    """|x_v| < B_v and |x_w| < B_w give |x_v + x_w| < B_v + B_w; by induction for any number of workers."""
    v, w, bound_v, bound_w = (real(name) for name in ("x_v", "x_w", "B_v", "B_w"))
    follows(within(v + w, bound_v + bound_w), within(v, bound_v), within(w, bound_w))
    assert refute(within(v + w, bound_v), within(v, bound_v), within(w, bound_w)) is not None


def test_a_pool_that_tops_up_late_breaks_the_bound() -> None:
    """Control: if a worker can refill before its queue is topped up, a client with credit is left out."""
    late = evolve(
        _system(lambda line: line),
        example=all_of(F.example(debt=1, quantum=1), G.example(debt=1, quantum=1)),
    )
    assert "f is admitted: f is kept up" in broken_obligations(late)
    begin = ["f sends a request"] * 2 + ["g sends a request"] * 2 + ["a refill", "f is admitted"]
    again = ["g is admitted", "g computes a prompt", "g sends a request", "a refill"]
    assert leads_to_violation(late, begin + again * 5)
    assert not leads_to_violation(evolve(late, transitions=POOL.transitions), begin + again * 5)
