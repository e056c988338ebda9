"""Bugs that the policy core once had, each with the claim that it broke."""

from __future__ import annotations

from typing import Any

import pytest

from fairprefix.core.dlpm import DLPM
from fairprefix.core.errors import ConfigError, HostError
from fairprefix.core.policy import Refusal
from fairprefix.core.prefixes import AskedPrefixes
from fairprefix.core.vtc import VTC
from tests.support import admit, arrive, dlpm, hot, lpm, offered, run, vtc


def test_the_refund_of_a_resume_gives_no_turn_back() -> None:
    """A resume takes no turn of its client's queue, so its refund gives none back."""
    policy = dlpm(hot(1), bounded_wait=3)
    run(policy, "a1")
    policy.preempt("a1", output=0, keep_hold=True)
    before = policy._table["a"].lane.turn
    policy.refund(policy.take("a1", extend=1, reserve=1))
    assert policy._table["a"].lane.turn == before


def test_a_request_whose_charge_was_refunded_is_charged_when_it_runs_again() -> None:
    """A preempted request cannot be refunded, or else it has not paid and is charged again."""
    policy = dlpm(quantum=100)
    receipt = run(policy, "a1", extend=50, reserve=5)
    policy.preempt("a1", output=0, keep_hold=True)
    try:
        policy.refund(receipt)
    except HostError:
        return
    assert policy.take("a1", extend=50, reserve=5).charged == 50


@pytest.mark.parametrize(("before", "after"), [(1, 10), (10, 1)])
def test_a_refund_under_vtc_gives_back_what_was_charged(before: int, after: int) -> None:
    """A refund takes the counter back by what the admission had added, whatever the weight is by then."""
    policy = vtc(weights={"a": before})
    arrive(policy, "a1", "b1", prompt=100)
    receipt = policy.take("a1", extend=100, reserve=1)
    policy.reweigh("a", after)
    policy.refund(receipt)
    assert policy.counter("a") == 0


@pytest.mark.parametrize("make", [vtc, dlpm])
def test_states_with_different_weights_are_different(make: Any) -> None:  # noqa: ANN401 (a test parameter)
    """A weight that was set for a client yet to come is part of the canonical state."""
    first: VTC | DLPM = make(weights={"b": 10})
    second: VTC | DLPM = make(weights={"b": 10})
    first.reweigh("a", 5)
    assert first.canonical() != second.canonical()


def test_a_cache_that_answers_nonsense_leaves_the_policy_as_it_was() -> None:
    """When the view of the cache raises, the request has not arrived and no account counts it."""
    policy = dlpm(AskedPrefixes(lambda _: 99))
    before = policy.snapshot()
    with pytest.raises(HostError):
        arrive(policy, "a1", prompt=4)
    policy.validate()
    assert policy.snapshot() == before


def test_the_turn_of_the_oldest_is_not_used_up_by_another() -> None:
    """When a host takes another request although it is the oldest one's turn, it stays the oldest one's turn."""
    policy = lpm(hot(1), bounded_wait=2)
    arrive(policy, "a1", prompt=4)
    arrive(policy, "a2", "a3", prompt=4, path=(1,))
    assert admit(policy) == "a2"
    assert offered(policy) == "a1"
    policy.take("a3", extend=1, reserve=1)
    arrive(policy, "a4", prompt=4, path=(1,))
    assert offered(policy) == "a1"


def test_charges_are_integers() -> None:
    """A fraction of a token is refused like a negative number of tokens."""
    policy = dlpm(quantum=10)
    arrive(policy, "a1", prompt=4)
    fraction: Any = 1.5
    with pytest.raises(ConfigError, match=r"extend = 1\.5 is not valid: expected an integer >= 0"):
        policy.take("a1", extend=fraction, reserve=1)


def test_rounds_that_nobody_stands_in_any_more_are_dropped() -> None:
    """A client that sinks into debt leaves no empty buckets behind, for overdraft to look through each time."""
    policy = dlpm(quantum=1, overdraft=5)
    arrive(policy, "a1", "b1", "b2")
    policy.take("b1", extend=1, reserve=1000)
    policy.defer("a1", Refusal.NO_ROOM)
    for _ in range(1000):
        policy.produced({"b": 1})
    assert len(policy._schedule._later) <= 2


@pytest.mark.parametrize("make", [vtc, dlpm])
def test_a_snapshot_is_the_callers_own(make: Any) -> None:  # noqa: ANN401 (a test parameter)
    """Changing a snapshot changes nothing in the policy that it was taken of."""
    policy: VTC | DLPM = make(weights={"a": 2})
    taken = policy.snapshot()
    taken["state"]["weights"]["a"] = 99
    assert policy.snapshot()["state"]["weights"] == {"a": 2}


def test_a_resume_under_vtc_is_charged_by_the_weight_of_its_day() -> None:
    """A held request that is computed again after its client's weight has changed pays by the new weight."""
    policy = vtc(weights={"a": 2}, recompute="charged")
    arrive(policy, "a1", prompt=8)
    policy.take("a1", extend=8, reserve=1)
    assert policy.counter("a") == 4
    policy.preempt("a1", output=0, keep_hold=True)
    policy.reweigh("a", 1)
    policy.take("a1", extend=8, reserve=1)
    assert policy.counter("a") == 4 + 8
