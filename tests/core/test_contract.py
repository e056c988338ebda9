"""The host contract checker catches every way of breaking the contract, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.contract import HostContract
from fairprefix.core.errors import HostError
from fairprefix.core.history import Recorder
from fairprefix.core.policy import Policy, Refusal
from fairprefix.core.request import Request


def checked() -> HostContract:
    """Return a checked DLPM policy."""
    return HostContract(make_policy(PolicyConfig(quantum=10)))


def request(id: str = "r", client: str = "a", max_output: int = 4) -> Request:
    """Return a request of 8 tokens."""
    return Request(id, client, 8, max_output)


def running(output: int = 0) -> HostContract:
    """Return a policy with request r running, after `output` tokens."""
    policy = checked()
    policy.arrive(request())
    policy.take("r", extend=8, reserve=4)
    policy.produced({"a": output})
    return policy


def test_a_host_that_keeps_the_contract_is_left_alone() -> None:
    """A whole life with every kind of event passes, and leaves nothing over."""
    policy = checked()
    policy.arrive(request())
    policy.arrive(request("s"))
    policy.begin_pass()
    assert policy.peek() is policy.plan(1)[0]
    policy.defer("r", Refusal.NO_ROOM)
    policy.begin_pass()
    policy.defer("r", Refusal.BLOCKED)
    policy.unblock("r")
    policy.refund(policy.take("r", extend=8, reserve=4))
    policy.amend(policy.take("r", extend=8, reserve=4), extend=6)
    policy.produced({"a": 2})
    policy.preempt("r", output=2, keep_hold=True)
    policy.take("r", extend=10, reserve=2)
    policy.preempt("r", output=2, keep_hold=False)
    policy.take("r", extend=1, reserve=2)
    policy.produced({"a": 1})
    policy.finish("r", output=3)
    policy.finish("s", output=0)
    policy.reweigh("a", 2)
    policy.validate()
    assert policy.snapshot()["policy"] == "dlpm"
    assert policy.canonical()[0] == "dlpm"
    policy.close()


BREACHES: dict[str, tuple[Callable[[], HostContract], Callable[[HostContract], object], str]] = {
    "arrives twice": (running, lambda p: p.arrive(request()), "arrived a second time"),
    "takes what is unknown": (checked, lambda p: p.take("x", extend=1, reserve=1), "is unknown at: take"),
    "takes what runs": (running, lambda p: p.take("r", extend=1, reserve=1), "is running at: take"),
    "defers what runs": (running, lambda p: p.defer("r", Refusal.NO_ROOM), "is running at: defer no_room"),
    "unblocks what runs": (running, lambda p: p.unblock("r"), "is running at: unblock"),
    "produces for a stranger": (running, lambda p: p.produced({"z": 1}), "client 'z' produced 1 tokens"),
    "finishes twice": (
        lambda: _after(running(), lambda p: p.finish("r", output=0)),
        lambda p: p.finish("r", output=0),
        "is unknown at: finish",
    ),
    "finishes with uncharged output": (
        lambda: running(1),
        lambda p: p.finish("r", output=2),
        "was charged 1 tokens where its requests report 2",
    ),
    "leaves charged output unreported": (
        lambda: running(2),
        lambda p: p.finish("r", output=1),
        "was charged 2 output tokens while its requests finished with 1",
    ),
    "exceeds the longest output": (
        lambda: running(5),
        lambda p: p.finish("r", output=5),
        "has an output of 5: expected 0 to 4",
    ),
    "forgets output": (
        lambda: _after(running(2), lambda p: p.preempt("r", output=2, keep_hold=False)),
        lambda p: p.finish("r", output=1),
        "has an output of 1: expected 2 to 4",
    ),
    "preempts what waits": (
        lambda: _after(checked(), lambda p: p.arrive(request())),
        lambda p: p.preempt("r", output=0, keep_hold=False),
        "is queued at: preempt",
    ),
    "computes nothing": (
        lambda: _after(checked(), lambda p: p.arrive(request())),
        lambda p: p.take("r", extend=0, reserve=4),
        "extend=0: expected 1 to 8",
    ),
    "computes more than there is": (
        lambda: _after(checked(), lambda p: p.arrive(request())),
        lambda p: p.take("r", extend=9, reserve=4),
        "extend=9: expected 1 to 8",
    ),
    "reserves more than the longest output": (
        lambda: _after(checked(), lambda p: p.arrive(request())),
        lambda p: p.take("r", extend=8, reserve=5),
        "reserve=5: expected 0 to 4",
    ),
    "leaves a request unfinished": (running, lambda p: p.close(), "was never finished"),
}


def _after(policy: HostContract, step: Callable[[HostContract], object]) -> HostContract:
    step(policy)
    return policy


@pytest.mark.parametrize("breach", BREACHES)
def test_every_breach_is_caught(breach: str) -> None:
    """A host that breaks the contract gets an error that says how."""
    prepare, break_it, message = BREACHES[breach]
    policy = prepare()
    with pytest.raises(HostError, match=re.escape(message)) as caught:
        break_it(policy)
    assert re.match(r"(request '[rx]'|client 'z') ", str(caught.value))


def test_a_void_receipt_is_caught() -> None:
    """Handing in a receipt that an amendment has voided is a breach."""
    policy = checked()
    policy.arrive(request())
    receipt = policy.take("r", extend=8, reserve=4)
    policy.amend(receipt, extend=7)
    with pytest.raises(HostError, match="later receipt"):
        policy.refund(receipt)


def test_a_breach_tells_what_happened_before() -> None:
    """The message of a breach is the story of that request."""
    policy = running()
    with pytest.raises(HostError, match="before: arrive, client 'a'; take, extend 8, reserve 4"):
        policy.arrive(request())


def lived(policy: Any) -> None:  # noqa: ANN401 (anything that can be called like a policy)
    """Let every kind of call happen."""
    policy.arrive(request())
    policy.arrive(request("s"))
    policy.begin_pass()
    policy.defer("r", Refusal.NO_ROOM)
    policy.begin_pass()
    receipt = policy.amend(policy.take("r", extend=8, reserve=4), extend=6, reserve=3)
    receipt = policy.amend(receipt, extend=5)
    policy.refund(policy.amend(receipt, reserve=0))
    policy.take("r", extend=8, reserve=0)
    policy.produced({"a": 2})
    policy.preempt("r", output=2, keep_hold=True)
    policy.take("r", extend=10, reserve=2)
    policy.preempt("r", output=2, keep_hold=False)
    policy.defer("r", Refusal.BLOCKED)
    policy.unblock("r")
    policy.reweigh("a", 3)
    policy.finish("r", output=2)
    policy.finish("s", output=0)


def test_every_call_is_passed_on_as_it_came() -> None:
    """The wrapped policy is told just what it would have been told without the contract."""
    direct: list[dict[str, Any]] = []
    checked_log: list[dict[str, Any]] = []
    lived(Recorder(make_policy(PolicyConfig(quantum=10)), direct.append))
    wrapped = HostContract(Recorder(make_policy(PolicyConfig(quantum=10)), checked_log.append))
    lived(wrapped)
    assert checked_log == direct
    wrapped.close()


def test_a_request_may_run_to_its_longest_output() -> None:
    """All of its output, none of it reserved, and all of the prompt computed again: legal to the last token."""
    policy = checked()
    policy.arrive(request())
    policy.take("r", extend=1, reserve=0)
    policy.produced({"a": 4})
    policy.preempt("r", output=4, keep_hold=False)
    policy.take("r", extend=12, reserve=0)
    policy.finish("r", output=4)
    policy.close()


def test_what_is_left_of_the_output_limits_the_reserve() -> None:
    """After two of four output tokens, no more than two can be reserved."""
    policy = running(2)
    policy.preempt("r", output=2, keep_hold=False)
    with pytest.raises(HostError, match=r"^request 'r' was taken with reserve=3: expected 0 to 2"):
        policy.take("r", extend=8, reserve=3)


def test_a_preempted_request_stands_where_it_was_put() -> None:
    """One whose output stays held cannot be deferred; one that is queued again can."""
    held, queued = running(1), running(1)
    held.preempt("r", output=1, keep_hold=True)
    queued.preempt("r", output=1, keep_hold=False)
    queued.defer("r", Refusal.NO_ROOM)
    with pytest.raises(HostError, match=r"^request 'r' is held at: defer no_room"):
        held.defer("r", Refusal.NO_ROOM)


@pytest.mark.parametrize("call", ["amend", "refund"])
def test_a_receipt_is_worth_nothing_once_its_request_waits_again(call: str) -> None:
    """Neither amending nor refunding is possible after a preemption, and the message names the call."""
    policy = checked()
    policy.arrive(request())
    receipt = policy.take("r", extend=8, reserve=4)
    policy.preempt("r", output=0, keep_hold=False)
    with pytest.raises(HostError, match=f"^request 'r' is queued at: {call};"):
        getattr(policy, call)(receipt)


def test_a_held_request_has_no_receipt_until_it_resumes() -> None:
    """The receipt from before a preemption is void although the request holds its output."""
    policy = checked()
    policy.arrive(request())
    receipt = policy.take("r", extend=8, reserve=4)
    policy.preempt("r", output=0, keep_hold=True)
    with pytest.raises(HostError, match=r"^request 'r' has a later receipt than the one handed in at: amend"):
        policy.amend(receipt, extend=1)


def test_a_pass_leaves_what_is_blocked_alone() -> None:
    """A new pass offers again what was deferred, not what is blocked."""
    policy = checked()
    policy.arrive(request())
    policy.arrive(request("s"))
    policy.defer("r", Refusal.BLOCKED)
    policy.defer("s", Refusal.NO_ROOM)
    policy.begin_pass()
    with pytest.raises(HostError, match=r"^request 'r' is blocked at: take"):
        policy.take("r", extend=8, reserve=4)
    with pytest.raises(HostError, match=r"^request 's' is queued at: unblock"):
        policy.unblock("s")


def test_only_the_last_events_are_remembered() -> None:
    """A long run does not fill the memory: the story of a request that has been quiet for long is gone."""
    policy = checked()
    policy.arrive(request("quiet"))
    for _ in range(300):
        policy.arrive(request())
        policy.finish("r", output=0)
    with pytest.raises(HostError, match=r"before: nothing$"):
        policy.arrive(request("quiet"))


@pytest.mark.parametrize("wrap", [HostContract, lambda policy: Recorder(policy, lambda _event: None)])
def test_a_plan_is_passed_on_with_its_budget(wrap: Callable[[Policy], Policy]) -> None:
    """Whoever stands between host and policy plans no further than asked for."""
    policy = wrap(make_policy(PolicyConfig(quantum=100)))
    for id in "rst":
        policy.arrive(request(id))
    assert [len(policy.plan(2)), len(policy.plan(3)), len(policy.plan(3, budget=8))] == [2, 3, 1]
