"""A plan of DLPM is found without admitting anybody; admitting whom it names must come to the same."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fairprefix import DLPM, AskedPrefixes, NoPrefixes, PolicyConfig, PrefixIndex, make_policy
from fairprefix.core.base import BasePolicy
from fairprefix.core.errors import HostError
from fairprefix.core.policy import Refusal
from fairprefix.core.request import Request

PROMPT = 40

ANSWERS = st.lists(st.integers(0, PROMPT - 1), min_size=24, max_size=24)


@st.composite
def queues(draw: st.DrawFn) -> tuple[PolicyConfig, list[int], list[int], list[int], set[int], int]:
    """Return settings, whose requests wait, what is cached of them before and after, who has no room, who runs."""
    config = PolicyConfig(
        gate=draw(st.sampled_from(["deficit", "credit"])),
        slack=draw(st.sampled_from([0, 30, 10_000])),
        quantum=draw(st.integers(1, 100)),
        bounded_wait=draw(st.sampled_from([None, 1, 3])),
    )
    clients = draw(st.lists(st.integers(0, 4), min_size=24, max_size=24))
    without_room = draw(st.sets(st.integers(0, 23), max_size=12))
    return config, clients, draw(ANSWERS), draw(ANSWERS), without_room, draw(st.integers(0, 8))


def policy_of(queue: tuple[PolicyConfig, list[int], list[int], list[int], set[int], int]) -> DLPM:
    """Return a policy with such a queue, right after the cache has changed."""
    config, clients, before, after, without_room, running = queue
    cached = dict(enumerate(before))
    view = AskedPrefixes(lambda request: cached[int(request.id)], per_pass=0)
    policy = DLPM(config, view)
    for number, client in enumerate(clients):
        policy.arrive(Request(str(number), f"c{client}", PROMPT, 9))
    waiting = set(range(24))
    for _ in range(running):
        if offered := policy.peek():
            policy.take(offered.id, extend=PROMPT - before[int(offered.id)], reserve=9)
            waiting.remove(int(offered.id))
    for number in sorted(without_room & waiting):
        policy.defer(str(number), Refusal.NO_ROOM)
    cached.update(enumerate(after))
    view.refresh()
    return policy


@given(queues())
def test_what_is_foreseen_is_what_is_admitted(
    queue: tuple[PolicyConfig, list[int], list[int], list[int], set[int], int],
) -> None:
    """Also when the cache has changed without a word, some have found no room, and some gates stay shut."""
    policy, admitting = policy_of(queue), policy_of(queue)
    before = policy.snapshot()
    planned = [request.id for request in policy.plan(24)]
    assert policy.snapshot() == before
    policy.validate()
    assert [request.id for request in BasePolicy.plan(policy_of(queue), 24)] == planned
    admitted = []
    while request := admitting.peek():
        admitted.append(request.id)
        admitting.take(request.id, extend=PROMPT - queue[3][int(request.id)], reserve=9)
    assert admitted == planned


def test_a_cache_that_gives_no_answer_changes_nothing() -> None:
    """If the cache fails in the middle of a plan, everybody waits as before."""
    answers = {"1": 5, "2": 4, "3": 3}
    view = AskedPrefixes(lambda request: answers[request.id], per_pass=0)
    policy = DLPM(PolicyConfig(), view)
    for id in answers:
        policy.arrive(Request(id, f"c{id}", PROMPT, 9))
    before = policy.snapshot()
    answers["3"] = PROMPT
    view.refresh()
    with pytest.raises(HostError, match="the cache answered 40 cached tokens"):
        policy.plan(3)
    assert policy.snapshot() == before
    answers["3"] = 3
    assert [request.id for request in policy.plan(3)] == ["1", "2", "3"]


def test_a_round_that_was_left_and_came_back_is_looked_at_once() -> None:
    """Accounts that leave a round's bucket empty and return to it are planned from as if they had never left."""
    policy = make_policy(PolicyConfig(policy="dlpm", quantum=20), NoPrefixes())
    for number in range(6):
        policy.arrive(Request(f"r{number}", f"c{number % 2}", PROMPT, 9))
    for number in range(6):
        policy.defer(f"r{number}", Refusal.BLOCKED)
    for number in range(6):
        policy.unblock(f"r{number}")
    assert [request.id for request in policy.plan(6)] == [f"r{number}" for number in range(6)]


def test_a_round_with_one_due_and_one_stuck_offers_the_one() -> None:
    """Somebody whose hold keeps the gate shut in a round to come hides nobody else of that round."""
    policy = make_policy(PolicyConfig(policy="dlpm", gate="credit", slack=0, quantum=20), NoPrefixes())
    for client, extend in (("a", 45), ("b", 25)):
        policy.arrive(Request(f"{client}1", client, extend, 50))
        policy.take(f"{client}1", extend=extend, reserve=50)
    policy.finish("b1", output=0)
    for client in "ab":
        policy.arrive(Request(f"{client}2", client, 25, 50))
    assert [request.id for request in policy.plan(2)] == ["b2"]
    assert [request.id for request in BasePolicy.plan(policy, 2)] == ["b2"]


def test_a_plan_hears_of_as_many_changes_as_it_is_long() -> None:
    """Each look at the cache brings news of one request here: a plan looks once for each that it is to name."""
    index = PrefixIndex(4, per_look=1)
    policy = make_policy(PolicyConfig(policy="dlpm", quantum=1000), index)
    chains = [(1,), (2,), (3,)]
    for number, chain in enumerate(chains):
        policy.arrive(Request(f"r{number}", "alice", 8, 9, chain))
    for chain in reversed(chains[1:]):
        index.cached(chain)
    assert [request.id for request in policy.plan(3)] == ["r1", "r2", "r0"]
