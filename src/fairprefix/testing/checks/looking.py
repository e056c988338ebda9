"""Looking changes nothing: neither `peek` nor `plan` leaves a trace in what the policy does."""

from __future__ import annotations

from fairprefix.testing.checks.determinism import same_decisions
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.checks.workloads import anything
from fairprefix.testing.driver import Driver
from fairprefix.testing.events import History
from fairprefix.testing.lab import Lab


def check(lab: Lab, history: History) -> None:
    """Look more often than needed."""
    looked = lab.run(history, hook=_look)
    same_decisions("the policy that was looked at", lab.run(history).decisions(), looked.decisions())


def _look(driver: Driver) -> None:
    policy = driver.slot.asked
    state, snapshot = policy.canonical(), policy.snapshot()
    for limit in (3, 1):
        offered, planned = policy.peek(), policy.plan(limit)
        first = planned[0] if planned else None
        assert first is offered, f"peek() offers {_id(offered)}, plan() begins with {_id(first)}"
    whole, affordable = policy.plan(3), policy.plan(3, budget=1)
    same = all(one is other for one, other in zip(whole, affordable, strict=False))
    assert same, "plan() with a budget does not begin like plan() without one"
    assert bool(whole) == bool(affordable), "of plan() with and without a budget, one alone is empty"
    assert policy.peek() is offered, "peek() offers somebody else when it is asked again"
    assert policy.canonical() == state, "looking changed the state"
    assert policy.snapshot() == snapshot, "looking changed the snapshot"
    policy.validate()


def _id(offered: object) -> object:
    return getattr(offered, "id", repr(offered))


CHECK = Check(
    name="looking",
    claim="peek and plan commit nothing, and agree with each other",
    run=check,
    data=anything,
)
