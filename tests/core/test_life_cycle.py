"""The life cycle of a request, the same under every policy: what a host may call when."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fairprefix.core.base import BasePolicy
from fairprefix.core.errors import ConfigError, HostError
from fairprefix.core.policy import Policy, Refusal
from tests.support import admit, arrive, dlpm, fcfs, lpm, offered, planned, request, run, vtc

every_policy = pytest.mark.parametrize("make", [fcfs, lpm, vtc, dlpm])
Make = Callable[..., BasePolicy]


@every_policy
def test_a_policy_of_ours_fits_the_interface(make: Make) -> None:
    """Each policy is a `Policy`, as the type checker sees it, and has a name."""
    policy: Policy = make()
    assert isinstance(policy, BasePolicy)
    assert policy.name == policy.config.policy


@every_policy
def test_an_id_arrives_once(make: Make) -> None:
    """An id is taken until its request is finished; then it may come again."""
    policy = make()
    arrive(policy, "a1")
    with pytest.raises(HostError, match="request 'a1' has arrived already and is not finished"):
        arrive(policy, "a1")
    policy.finish("a1", output=0)
    arrive(policy, "a1")
    assert offered(policy) == "a1"


@every_policy
def test_an_unknown_request_is_an_error(make: Make) -> None:
    """Whatever a host reports about a request that never arrived is an error that says so."""
    policy = make()
    calls: list[Callable[[], object]] = [
        lambda: policy.take("a1", extend=1, reserve=1),
        lambda: policy.defer("a1", Refusal.NO_ROOM),
        lambda: policy.unblock("a1"),
        lambda: policy.preempt("a1", output=0, keep_hold=True),
        lambda: policy.finish("a1", output=0),
    ]
    for call in calls:
        with pytest.raises(HostError, match="request 'a1' is unknown: it never arrived, or is finished already"):
            call()


@every_policy
def test_a_call_in_the_wrong_stage_is_an_error_and_changes_nothing(make: Make) -> None:
    """An error names the stage that the request is in and those that the call needs; nothing has changed."""
    policy = make()
    arrive(policy, "a1", "b1")
    policy.defer("b1", Refusal.BLOCKED)
    admit(policy, reserve=3)
    before = policy.snapshot()
    for call, message in (
        (
            lambda: policy.take("a1", extend=1, reserve=1),
            "'a1' is running; this call needs: queued, deferred, held",
        ),
        (
            lambda: policy.take("b1", extend=1, reserve=1),
            "'b1' is blocked; this call needs: queued, deferred, held",
        ),
        (lambda: policy.defer("a1", Refusal.BLOCKED), "'a1' is running; this call needs: queued, deferred"),
        (lambda: policy.unblock("a1"), "'a1' is running; this call needs: blocked"),
        (lambda: policy.preempt("b1", output=0, keep_hold=True), "'b1' is blocked; this call needs: running"),
    ):
        with pytest.raises(HostError, match=message):
            call()
    assert policy.snapshot() == before


@every_policy
def test_a_bad_figure_is_an_error_and_changes_nothing(make: Make) -> None:
    """Negative tokens, and output that shrinks, are refused before anything is charged."""
    policy = make()
    arrive(policy, "a1")
    run(policy, "b1", reserve=5)
    policy.preempt("b1", output=2, keep_hold=True)
    receipt = policy.take("b1", extend=1, reserve=3)
    before = policy.snapshot()
    with pytest.raises(ConfigError, match="extend = -1 is not valid"):
        policy.take("a1", extend=-1, reserve=1)
    with pytest.raises(ConfigError, match="reserve = -1 is not valid"):
        policy.take("a1", extend=1, reserve=-1)
    with pytest.raises(ConfigError, match="extend = -1 is not valid"):
        policy.amend(receipt, extend=-1)
    with pytest.raises(ConfigError, match="reserve = -1 is not valid"):
        policy.amend(receipt, reserve=-1)
    with pytest.raises(ConfigError, match="output = -1 is not valid"):
        policy.finish("b1", output=-1)
    with pytest.raises(HostError, match="request 'b1' has produced 2 tokens already, not 1"):
        policy.finish("b1", output=1)
    with pytest.raises(HostError, match="has produced 2 tokens already"):
        policy.preempt("b1", output=0, keep_hold=False)
    with pytest.raises(ConfigError, match="limit = -1 is not valid"):
        policy.plan(-1)
    with pytest.raises(ConfigError, match="budget = -1 is not valid"):
        policy.plan(1, budget=-1)
    assert policy.snapshot() == before


@pytest.mark.parametrize("make", [vtc, dlpm])
def test_a_report_of_output_counts_as_a_whole_or_not_at_all(make: Make) -> None:
    """When one client of a step's report cannot have produced anything, nobody is charged."""
    policy = make()
    run(policy, "a1", reserve=5)
    before = policy.snapshot()
    with pytest.raises(HostError, match="client 'b' has no request that could have produced 1 tokens"):
        policy.produced({"a": 1, "b": 1})
    assert policy.snapshot() == before


@every_policy
def test_a_plan_ends_with_the_request_that_uses_up_the_budget(make: Make) -> None:
    """Of prompts of 10 tokens, a budget of 20 plans two, one of 21 three, one of 0 nobody; it commits nothing."""
    policy = make()
    arrive(policy, "a1", "a2", "b1", "b2", prompt=10)
    before = policy.canonical()
    whole = [found.id for found in policy.plan(9)]
    for budget, count in ((0, 0), (1, 1), (10, 1), (11, 2), (20, 2), (21, 3), (400, 4)):
        assert [found.id for found in policy.plan(9, budget=budget)] == whole[:count], budget
    assert len(policy.plan(1, budget=400)) == 1
    assert policy.canonical() == before


@every_policy
def test_a_held_request_is_not_offered(make: Make) -> None:
    """A request that its host resumes by itself does not stand in the queue."""
    policy = make()
    run(policy, "a1")
    policy.preempt("a1", output=0, keep_hold=True)
    assert offered(policy) is None
    policy.take("a1", extend=1, reserve=1)
    policy.finish("a1", output=1)
    policy.validate()


@every_policy
def test_a_preempted_request_keeps_its_place(make: Make) -> None:
    """A request that goes back to the queue stands where it arrived."""
    policy = make()
    arrive(policy, "a1", "a2")
    admit(policy)
    policy.preempt("a1", output=0, keep_hold=False)
    assert planned(policy, 2) == ["a1", "a2"]


@every_policy
def test_a_plan_is_no_longer_than_asked_for(make: Make) -> None:
    """A plan ends at its limit, or when nobody else is offered."""
    policy = make()
    assert planned(policy, 3) == []
    arrive(policy, "a1", "a2", "a3")
    assert planned(policy, 0) == []
    assert planned(policy, 2) == ["a1", "a2"]
    assert planned(policy, 9) == ["a1", "a2", "a3"]
    policy.validate()


@every_policy
def test_a_request_refused_twice_in_a_pass_is_offered_once_in_the_next(make: Make) -> None:
    """A request that was refused, admitted, preempted and refused again in one pass is offered again once."""
    policy = make()
    arrive(policy, "a1")
    policy.defer("a1", Refusal.NO_ROOM)
    policy.take("a1", extend=1, reserve=1)
    policy.preempt("a1", output=0, keep_hold=False)
    policy.defer("a1", Refusal.NO_ROOM)
    policy.begin_pass()
    assert planned(policy, 2) == ["a1"]
    policy.validate()


def test_every_request_costs_nothing_of_the_others() -> None:
    """Under a policy without accounts a receipt still tells what an admission would cost."""
    for policy in (fcfs(), lpm()):
        policy.arrive(request("a1", prompt=9))
        receipt = policy.take("a1", extend=7, reserve=2)
        assert (receipt.request, receipt.client, receipt.extend, receipt.charged) == ("a1", "a", 7, 7)
