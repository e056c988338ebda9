"""The queue that stands in for vLLM's, with a real policy behind it and a small engine in front of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fairprefix import FCFS, PolicyConfig
from fairprefix.adapters.vllm.guard import Shield
from fairprefix.adapters.vllm.queue import NoQueue, PolicyQueue
from fairprefix.adapters.vllm.shapes import EngineRequest
from fairprefix.adapters.vllm.shieldedqueue import ShieldedQueue
from fairprefix.core.request import Request

from .fakes import Desk, FakeRequest, Status


def crowd() -> list[FakeRequest]:
    """A flood of one client, and then one request of another."""
    return [*(FakeRequest(f"flood {n}") for n in range(6)), FakeRequest("light", "b")]


def test_the_policy_chooses() -> None:
    """A client that comes late is admitted before the rest of a flood."""
    desk = Desk()
    requests = crowd()
    desk.add(*requests)
    order = desk.step()
    assert sorted(order) == sorted(request.request_id for request in requests)
    assert order.index("light") < 4
    for request in requests:
        desk.deliver(request, 5, finished=True)
    assert desk.service() == {"a": 6 * (10 + 2 * 5), "b": 10 + 2 * 5}
    desk.close()


def test_what_is_cached_is_not_charged() -> None:
    """An admission is charged for its prompt less what was cached then."""
    desk = Desk()
    request = FakeRequest("r")
    desk.add(request)
    desk.step(cached=8)
    assert desk.service() == {"a": 2}


def test_the_last_admission_of_a_step_is_charged_for_what_was_cached() -> None:
    """Also the one that no later look follows, though vLLM has counted the step in by then."""
    desk = Desk()
    desk.add(FakeRequest("1"), FakeRequest("2"))
    desk.step(most=2, cached=4)
    assert desk.service() == {"a": 12}


def test_the_preempted_resume_first_and_are_charged_once() -> None:
    """Before anybody else, whatever the policy thinks of their client."""
    desk = Desk(quantum=1)
    first, second = FakeRequest("1"), FakeRequest("2")
    desk.add(first, second)
    desk.step(most=2)
    desk.deliver(first, 2)
    desk.preempt(second)
    desk.preempt(first)
    desk.add(FakeRequest("light", "b"))
    paid = desk.service()["a"]
    assert desk.step(most=2) == ["1", "2"]
    assert desk.service()["a"] == paid
    for request in (first, second):
        desk.deliver(request, 3, finished=True)
    assert desk.step() == ["light"]


def test_output_that_arrives_after_a_preemption_is_charged_once() -> None:
    """A step that was in flight still delivers."""
    desk = Desk()
    request = FakeRequest("r")
    desk.add(request)
    desk.step()
    desk.deliver(request, 1)
    desk.preempt(request)
    desk.deliver(request, 1)
    desk.step()
    desk.deliver(request, 3, finished=True)
    assert desk.service() == {"a": 10 + 2 * 5}
    desk.close()


def test_who_is_set_aside_is_offered_again_in_the_next_step() -> None:
    """An adapter limit, say: the request keeps its place, and others pass in the meantime."""
    desk = Desk()
    requests = [FakeRequest("1"), FakeRequest("2")]
    desk.add(*requests)
    assert desk.step(skip=["1"]) == ["2"]
    assert len(desk.queue) == 1
    assert desk.step() == ["1"]
    assert desk.service() == {"a": 20}


def test_who_is_not_ready_is_not_offered() -> None:
    """A grammar that is being compiled holds nobody up, counts as waiting, and its request is admitted later."""
    desk = Desk()
    strict = FakeRequest("strict", status=Status.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR)
    desk.not_ready.add("strict")
    desk.add(strict)
    assert desk.step() == []
    assert len(desk.queue) == 1
    assert bool(desk.queue), "outside of a step it does not look empty"
    desk.add(FakeRequest("plain"))
    assert desk.step() == ["plain"]
    desk.not_ready.clear()
    assert desk.step() == ["strict"]


def test_a_request_that_loads_its_cache_from_elsewhere_is_charged_when_it_gets_its_memory() -> None:
    """And goes first when the load is done."""
    desk = Desk()
    remote = FakeRequest("remote", num_prompt_tokens=100)
    desk.add(remote)
    desk.queue.begin_pass()
    desk.queue.peek_request()
    desk.queue.pop_request()
    remote.status, remote.num_computed_tokens = Status.WAITING_FOR_REMOTE_KVS, 64
    desk.queue.prepend_requests([remote])
    desk.queue.end_pass(lambda _request: 0)
    assert desk.service() == {"a": 36}
    desk.not_ready.add("remote")
    desk.add(FakeRequest("other"))
    assert desk.step() == ["other"]
    desk.not_ready.clear()
    desk.add(FakeRequest("third"))
    assert desk.step()[0] == "remote"
    assert desk.service() == {"a": 36 + 10 + 10}


@pytest.mark.parametrize("when", ["waiting", "parked", "running", "preempted"])
def test_aborting_leaves_nothing_behind(when: str) -> None:
    """Wherever a request stands."""
    desk = Desk()
    request = FakeRequest("r")
    if when == "parked":
        request.status = Status.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR
    desk.add(request)
    if when in ("running", "preempted"):
        desk.step()
    if when == "preempted":
        desk.preempt(request)
    desk.abort(request)
    desk.queue.remove_requests([request, FakeRequest("never heard of")])
    assert desk.step() == []
    desk.close()


def test_turns_of_a_session_are_charged_one_by_one() -> None:
    """The next turn is queued before the last output of the one before it is seen."""
    desk = Desk()
    session = FakeRequest("s")
    desk.add(session)
    desk.step()
    desk.deliver(session, 1)
    session.status, session.num_prompt_tokens, session.output = Status.WAITING, 20, 0
    desk.add(session)
    desk.deliver(session, 1, finished=True)
    session.output = 0
    assert desk.service() == {"a": 10 + 4}
    assert desk.step(cached=11) == ["s"]
    assert desk.service() == {"a": 10 + 4 + 9}
    desk.deliver(session, 2, finished=True)
    desk.close()


class Silent(FCFS):
    """Never offers anybody."""

    def peek(self) -> Request | None:
        """Offer nobody."""
        return None


def test_a_policy_cannot_stall_an_idle_engine() -> None:
    """When nothing runs, somebody is taken all the same; when something runs, the policy has its way."""
    desk = Desk(Silent(PolicyConfig(policy="fcfs")))
    desk.add(FakeRequest("1"), FakeRequest("2"))
    assert desk.step() == ["1"]
    assert desk.queue.stalls == 1
    assert desk.step() == []


def test_without_a_seat_the_policy_is_not_asked() -> None:
    """Most steps of a busy server end there: somebody waits, and nobody can be admitted."""
    desk = Desk()
    desk.add(*crowd())
    desk.step(most=1)
    desk.seats = 1
    asked = desk.policy.figures._picks
    desk.queue.begin_pass()
    assert desk.queue
    desk.queue.end_pass(lambda _request: 0)
    assert desk.policy.figures._picks == asked


def test_peeking_into_an_empty_queue_is_an_error() -> None:
    """As it is with vLLM's own queues."""
    with pytest.raises(IndexError, match="nobody"):
        Desk().queue.peek_request()


def test_both_queues_of_older_versions_are_one() -> None:
    """What is put into the second queue waits in the first, and is counted there alone."""
    desk = Desk()
    second = NoQueue(desk.queue)
    request = FakeRequest("r")
    second.add_request(request)
    assert not second
    assert len(second) == 0
    assert list(second) == [request]
    second.remove_requests([request])
    assert list(desk.queue) == list(reversed(desk.queue)) == [request]
    assert desk.step() == ["r"]


CALLS: dict[str, Callable[[ShieldedQueue, FakeRequest], object]] = {
    "add": lambda queue, _request: queue.add_request(FakeRequest("new")),
    "peek": lambda queue, _request: queue.peek_request(),
    "pop": lambda queue, _request: queue.pop_request(),
    "prepend": lambda queue, request: queue.prepend_requests([request]),
    "remove": lambda queue, request: queue.remove_requests([request]),
    "bool": lambda queue, _request: bool(queue),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_failure_of_ours_leaves_a_queue_in_arrival_order(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever call it happens in: nobody is lost, and it is told once."""
    desk, told = Desk(), list[Exception]()
    shield = Shield(told.append)
    queue = ShieldedQueue(desk.queue, shield)
    requests = [FakeRequest("1"), FakeRequest("2", "b"), FakeRequest("3")]
    for request in requests:
        queue.add_request(request)

    def fail(*_args: object) -> object:
        raise RuntimeError("a mistake of ours")

    for name in ("add_request", "peek_request", "pop_request", "prepend_request", "remove_request", "__bool__"):
        monkeypatch.setattr(PolicyQueue, name, fail)
    CALLS[call](queue, requests[1])
    assert shield.down
    left: list[str] = []
    while queue:
        head: EngineRequest = queue.peek_request()
        assert queue.pop_request() is head
        left.append(head.request_id)
    assert left == {
        "add": ["1", "2", "3", "new"],
        "peek": ["1", "2", "3"],
        "pop": ["2", "3"],
        "prepend": ["2", "1", "3"],
        "remove": ["1", "3"],
        "bool": ["1", "2", "3"],
    }[call]  # fmt: skip
    assert len(told) == shield.errors == 1
    shield.run(fail)
    assert shield.errors == 1, "after a failure nothing of ours is run"
    assert len(queue) == 0
    assert list(reversed(queue)) == []


def test_a_failure_between_look_and_admission_admits_whom_vllm_looked_at() -> None:
    """Memory was given to that one, whatever order takes over in between."""
    desk, told = Desk(), list[Exception]()
    shield = Shield(told.append)
    queue = ShieldedQueue(desk.queue, shield)
    requests = crowd()
    for request in requests:
        queue.add_request(request)
    desk.queue.begin_pass()
    while (head := queue.peek_request()).request_id != "light":
        assert queue.pop_request() is head
        next(request for request in requests if request is head).status = Status.RUNNING
    shield.fail(RuntimeError("a mistake of ours, while memory was given"))
    assert queue.pop_request() is head
    left = [request.request_id for request in queue]
    assert "light" not in left
    assert left == sorted(left)
