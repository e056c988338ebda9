"""The queue in front of a worker: a bounded window, one entry and one exit for each, true sizes at the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.contract import HostContract
from fairprefix.core.policy import Policy
from fairprefix.core.request import Request
from fairprefix.gateway.queue import WorkerQueue
from fairprefix.gateway.turn import Place, Turn
from fairprefix.hosting import HostedPolicy


def turn(id: str, client: str = "a", tokens: int = 10, reserve: int = 5, places: int = 1) -> Turn:
    """Return a request that is about to come."""
    return Turn(Request(id=id, client=client, input_tokens=tokens, max_output=10_000), reserve, 0, places)


def queue(window: int | None = 2, *, checked: bool = True, **config: object) -> WorkerQueue:
    """Return a queue whose policy checks that we keep our side of the contract, or can be asked for deficits."""
    made = PolicyConfig.from_mapping({"gate": "credit", **config})

    def make(settings: PolicyConfig, prefixes: object) -> Policy:
        del prefixes
        policy = make_policy(settings)
        return HostContract(policy) if checked else policy

    def fail(problem: Exception) -> None:
        raise problem

    return WorkerQueue(
        HostedPolicy(made, make=make, on_error=fail), window, lambda _request: 0, lambda _turn: None
    )


def test_no_more_are_inside_than_the_window_holds() -> None:
    """The third of three waits until one of two leaves."""
    held = queue(window=2)
    turns = [turn(str(k)) for k in range(3)]
    for one in turns:
        held.enter(one)
    assert [one.place for one in turns] == [Place.INSIDE, Place.INSIDE, Place.WAITING]
    held.settle(turns[0], extend=10, output=3)
    assert turns[2].place is Place.INSIDE
    assert (len(held.inside), len(held.waiting)) == (2, 0)


def test_a_request_takes_a_place_for_each_of_its_answers() -> None:
    """With three of four places taken one more is let in, whatever it takes; then nobody until one is free."""
    held = queue(window=4)
    turns = [turn("three", places=3), turn("two", places=2), turn("one")]
    for one in turns:
        held.enter(one)
    assert (held.taken, [one.place for one in turns]) == (5, [Place.INSIDE, Place.INSIDE, Place.WAITING])
    held.settle(turns[1], extend=10, output=3)
    assert (held.taken, turns[2].place) == (4, Place.INSIDE)
    held.withdraw(turns[0])
    held.withdraw(turns[2])
    assert held.taken == 0


def test_a_light_client_does_not_wait_for_the_whole_queue_of_another() -> None:
    """Of fifty requests that wait, the newcomer's is the next but few: that is what the queue is for."""
    held = queue(window=1, quantum=20)
    heavy = [turn(f"h{k}", "heavy") for k in range(50)]
    for one in heavy:
        held.enter(one)
    light = turn("l", "light")
    held.enter(light)
    served = 0
    while light.place is not Place.INSIDE:
        inside = next(iter(held.inside.values()))
        held.settle(inside, extend=10, output=5)
        served += 1
    assert served <= 3


def test_a_request_is_charged_what_it_really_took() -> None:
    """The estimate of its admission is corrected by what the worker reports, upwards and downwards."""
    held = queue(window=4, checked=False, quantum=1000)
    for id, output, extend in (("long", 50, 30), ("short", 0, 2)):
        one = turn(id, "a", tokens=10, reserve=5)
        held.enter(one)
        held.settle(one, extend=extend, output=output)
    held.enter(turn("next", "a", tokens=1))
    spent = 30 + 2 * 50 + 2 + 1
    assert (held.policy.deficit("a") or 0) % 1000 == -spent % 1000


def test_output_that_was_counted_too_high_is_given_back() -> None:
    """A stream in more pieces than tokens costs what its tokens cost."""
    held = queue(window=4, checked=False, quantum=1000)
    one = turn("one", "a", tokens=10)
    held.enter(one)
    held.produced(one, 8)
    held.settle(one, extend=10, output=5)
    held.enter(turn("next", "a", tokens=1))
    assert (held.policy.deficit("a") or 0) % 1000 == -(10 + 2 * 5 + 1) % 1000


def test_who_is_taken_back_has_paid_nothing() -> None:
    """Inside or waiting: a request that is withdrawn leaves no trace in its client's account."""
    held = queue(window=1, checked=False, quantum=1000)
    inside, waiting = turn("i", "a"), turn("w", "a")
    held.enter(inside)
    held.enter(waiting)
    held.withdraw(waiting)
    held.withdraw(inside)
    held.enter(turn("next", "a", tokens=1))
    assert (held.policy.deficit("a") or 0) % 1000 == -1 % 1000
    assert list(held.inside) == ["next"]


def test_a_policy_that_offers_nobody_does_not_stop_the_worker() -> None:
    """When nothing is inside, whoever has waited longest goes in, and it is counted."""
    held = queue(window=1)

    def nobody() -> None:
        return None

    held.policy.peek = nobody  # type: ignore[method-assign]  # a policy that is broken
    one = turn("one")
    held.enter(one)
    assert one.place is Place.INSIDE
    assert held.stalls == 1


def test_a_closed_queue_lets_nobody_in_and_opens_again() -> None:
    """A worker that is out of rotation gets nothing, not even when a place becomes free."""
    held = queue(window=1)
    held.open = False
    one = turn("one")
    held.enter(one)
    assert list(held.waiting) == ["one"]
    held.open = True
    held.pump()
    assert list(held.inside) == ["one"]


@pytest.mark.parametrize("policy", ["fcfs", "lpm", "vtc", "dlpm"])
def test_any_history_keeps_the_contract_and_empties_the_queue(policy: str) -> None:
    """Whatever comes and goes: every policy is told of a lawful history, and nothing is left."""

    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 30), st.integers(0, 9)), max_size=60))
    def run(moves: list[tuple[int, int, int]]) -> None:
        held = queue(window=3, policy=policy, quantum=16)
        live: list[Turn] = []
        for number, (kind, size, which) in enumerate(moves):
            inside = [one for one in live if one.place is Place.INSIDE]
            if kind <= 1:
                live.append(turn(str(number), f"c{which % 3}", tokens=size + 1, reserve=which + 1))
                held.enter(live[-1])
            elif kind == 2 and inside:
                held.produced(inside[which % len(inside)], size)
            elif kind == 3 and inside:
                held.settle(inside[which % len(inside)], extend=size, output=size + which)
            elif kind == 4 and live:
                held.withdraw(live[which % len(live)])
            elif kind == 5:
                held.rewindow(which + 1)
            live = [one for one in live if one.place in (Place.INSIDE, Place.WAITING)]
            held.policy.validate()
        for one in list(live):
            held.withdraw(one)
        assert not held.inside
        assert not held.waiting
        assert held.policy.live == 0

    run()
