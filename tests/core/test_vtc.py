"""VTC, rule by rule; tests/property compares whole histories with Algorithm 2."""

from __future__ import annotations

import pytest

from fairprefix.core.errors import ConfigError, HostError
from fairprefix.core.policy import Refusal
from tests.core import rules
from tests.support import admit, arrive, hot, offered, planned, run, vtc


def test_a_returning_client_is_lifted_to_the_lowest_counter() -> None:
    """A client that comes back is lifted to the smallest counter of those with a request queued."""
    rules.check_lift_to_the_lowest(vtc)


def test_a_client_that_finds_the_queue_empty_is_lifted_to_the_last_that_left() -> None:
    """When nobody is queued, a client that comes back is lifted to the counter of the one that left last."""
    rules.check_lift_to_the_last_that_left(vtc)


def test_a_client_with_a_request_queued_is_not_lifted() -> None:
    """Only the first request of a client in the queue lifts its counter."""
    policy = vtc()
    arrive(policy, "a1", "a2", "b1", prompt=50)
    policy.take("a1", extend=50, reserve=1)
    arrive(policy, "b2")
    assert (policy.counter("a"), policy.counter("b")) == (50, 0)


def test_the_lift_never_lowers_a_counter() -> None:
    """A client whose counter is above the others keeps it."""
    policy = vtc()
    arrive(policy, "a1", prompt=50)
    arrive(policy, "b1")
    policy.take("a1", extend=50, reserve=1)
    arrive(policy, "a2")
    assert policy.counter("a") == 50
    assert offered(policy) == "b1"


def test_a_blocked_request_does_not_count_for_the_lift() -> None:
    """A client whose only request is blocked is not backlogged: its low counter lifts nobody down."""
    policy = vtc()
    arrive(policy, "a1")
    arrive(policy, "b1", "b2", prompt=30)
    policy.take("b1", extend=30, reserve=1)
    policy.defer("a1", Refusal.BLOCKED)
    arrive(policy, "c1")
    assert policy.counter("c") == 30
    policy.unblock("a1")
    assert policy.counter("a") == 30, "to be unblocked is to arrive"


def test_a_refusal_ends_the_pass() -> None:
    """After a refusal for lack of room VTC offers nobody until the next pass."""
    rules.check_head_of_line(vtc)


def test_a_blocked_request_does_not_end_the_pass() -> None:
    """When the next request is blocked, the one after it is offered in the same pass."""
    policy = vtc()
    arrive(policy, "a1", "b1")
    policy.defer("a1", Refusal.BLOCKED)
    assert offered(policy) == "b1"


def test_the_pass_goes_on_when_the_refused_request_is_gone() -> None:
    """Once the request that had no room is aborted, the others are offered in the same pass."""
    policy = vtc()
    arrive(policy, "a1", "b1")
    policy.defer("a1", Refusal.NO_ROOM)
    policy.finish("a1", output=0)
    assert offered(policy) == "b1"


def test_the_whole_prompt_is_charged() -> None:
    """VTC charges the whole prompt when it is selected, and every output token."""
    rules.check_vtc_charges(vtc)


def test_only_what_is_computed_is_charged_on_demand() -> None:
    """With vtc_charge = extend, cached tokens cost nothing."""
    policy = vtc(vtc_charge="extend")
    arrive(policy, "a1", prompt=100)
    assert policy.take("a1", extend=3, reserve=5).charged == 3
    assert policy.counter("a") == 3


def test_weights_slow_the_counter_down() -> None:
    """A counter advances the slower the larger the client's weight."""
    rules.check_vtc_weights(vtc)


def test_weights_lose_nothing_to_rounding() -> None:
    """A client of weight 3 that is charged 1 three times stands exactly at 1."""
    policy = vtc(weights={"a": 3, "b": 7}, cost_output=1)
    arrive(policy, "b0")
    run(policy, "a1", extend=0, reserve=9)
    assert policy.counter("a") == 0
    policy.produced({"a": 1})
    policy.produced({"a": 1})
    assert policy.counter("a") == 1
    assert policy._table["a"].balance == policy._scale


@pytest.mark.parametrize("weight", [2, 3, 5])
def test_a_new_weight_counts_for_the_service_to_come(weight: int) -> None:
    """A new weight leaves the counters and their order as they are, also one that has to be made divisible."""
    policy = vtc(weights={"b": 2})
    arrive(policy, "a1", "a2", "b1", "b2", prompt=30)
    for id in ("a1", "b1"):
        policy.take(id, extend=30, reserve=1)
    before = policy.counter("a"), policy.counter("b")
    policy.reweigh("a", weight)
    assert (policy.counter("a"), policy.counter("b")) == before == (30, 15)
    assert offered(policy) == "b2"
    policy.produced({"a": 15})
    assert policy.counter("a") == 30 + 2 * 15 // weight
    policy.validate()


def test_a_weight_can_be_set_before_the_client_is_known() -> None:
    """A client that arrives later has the weight that was set for it meanwhile."""
    policy = vtc()
    policy.reweigh("a", 4)
    arrive(policy, "a1", prompt=40)
    policy.take("a1", extend=40, reserve=1)
    assert policy.counter("a") == 10
    with pytest.raises(ConfigError, match="weight = 0 is not valid"):
        policy.reweigh("a", 0)


def test_the_cache_plays_no_part() -> None:
    """Inside a client the oldest request is next, whatever is cached of the others."""
    index = hot(1)
    policy = vtc(index)
    arrive(policy, "a1", prompt=4, path=(2, 3))
    arrive(policy, "a2", prompt=4, path=(1,))
    index.cached((2,))
    assert planned(policy, 2) == ["a1", "a2"]


def test_a_refund_restores_the_counter() -> None:
    """After a refund the counter is what it was, without a lift, and the request has its old place."""
    policy = vtc()
    arrive(policy, "a1", "a2", "b1", prompt=20)
    receipt = policy.take("a1", extend=20, reserve=3)
    assert planned(policy, 3) == ["b1", "a2"]
    policy.refund(receipt)
    assert policy.counter("a") == 0
    assert planned(policy, 3) == ["a1", "b1", "a2"]


def test_a_plan_takes_turns() -> None:
    """A plan charges each request that it names before it looks for the next, and then takes it all back."""
    policy = vtc()
    arrive(policy, "a1", "a2", "b1", "b2", prompt=10)
    before = policy.canonical(), policy.snapshot()
    assert planned(policy, 9) == ["a1", "b1", "a2", "b2"]
    assert (policy.canonical(), policy.snapshot()) == before
    assert admit(policy, extend=10) == "a1"


def test_output_needs_a_request_that_could_have_produced_it() -> None:
    """Output of a client with no request is an error."""
    policy = vtc()
    with pytest.raises(HostError, match="client 'a' has no request that could have produced 3 tokens"):
        policy.produced({"a": 3})
    run(policy, "a1")
    policy.finish("a1", output=0)
    with pytest.raises(HostError, match="has no request"):
        policy.produced({"a": 3})


def test_an_unknown_client_stands_at_zero() -> None:
    """Asking for a client that never came returns 0, and so does the first one that comes."""
    policy = vtc()
    assert policy.counter("a") == 0
    arrive(policy, "a1")
    assert policy.counter("a") == 0


def test_counters_are_integers_whatever_the_weights() -> None:
    """Dividing by a weight is exact: prompts and output leave integers behind."""
    policy = vtc(weights={"a": 3, "b": 2})
    run(policy, "a1", extend=7, reserve=5)
    run(policy, "b1", extend=7, reserve=5)
    policy.produced({"a": 5, "b": 1})
    assert all(type(account.balance) is int for account in policy._table)


def test_equal_service_for_all_leaves_the_canonical_state_as_it_was() -> None:
    """Only differences of counters decide, so only these are part of the canonical state."""
    policies = [vtc(), vtc()]
    for policy, units in zip(policies, (0, 10), strict=True):
        for id in ("a1", "b1"):
            arrive(policy, id, prompt=5)
            policy.take(id, extend=5, reserve=20)
        policy.produced({"a": units, "b": units})
        for id in ("a1", "b1"):
            policy.finish(id, output=units)
    assert policies[0].counter("a") != policies[1].counter("a")
    assert policies[0].canonical() == policies[1].canonical()


def test_a_default_weight_divides_without_a_rest() -> None:
    """Clients without a weight of their own are charged by the default one, exactly."""
    policy = vtc(weights={"a": 3}, default_weight=2)
    run(policy, "b1", extend=5)
    policy.produced({"b": 1})
    assert policy._table["b"].balance * 2 == policy._scale * (5 + 2)


def test_a_counter_that_falls_brings_its_client_forward() -> None:
    """An admission that turns out cheaper moves its client ahead of one with a higher counter at once."""
    policy = vtc(vtc_charge="extend")
    arrive(policy, "b1", "a1", "b2", "a2", prompt=50)
    receipt = policy.take("a1", extend=40, reserve=0)
    policy.take("b1", extend=20, reserve=0)
    assert offered(policy) == "b2"
    policy.amend(receipt, extend=10)
    assert offered(policy) == "a2"
