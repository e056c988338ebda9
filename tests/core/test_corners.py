"""Corners that no other test went round: mutation testing found them."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fairprefix import DLPM, AskedPrefixes, PolicyConfig, PrefixIndex
from fairprefix.core.base import BasePolicy
from fairprefix.core.errors import ConfigError
from fairprefix.core.policy import Refusal
from fairprefix.core.request import Request
from tests.support import arrive, dlpm, hot, lpm, offered, request, run, vtc

PROMPT = 40


def test_a_preempted_client_with_nothing_queued_is_lifted_like_one_that_arrives() -> None:
    """Under VTC its only request comes back to a queue that it had left: what it saved up is forgotten."""
    policy = vtc()
    run(policy, "a1", extend=10, reserve=5)
    for number in range(3):
        run(policy, f"b{number}", extend=100)
    arrive(policy, "b3")
    assert policy.counter("a") < policy.counter("b")
    policy.preempt("a1", output=0, keep_hold=False)
    assert policy.counter("a") == policy.counter("b")


@pytest.mark.parametrize("wrong", [-1, 1.0, True])
def test_wrong_output_is_refused_by_the_name_of_its_client(wrong: int) -> None:
    """Whoever else is in the step."""
    policy = dlpm()
    with pytest.raises(ConfigError, match=r"^produced\['c'\]"):
        policy.produced({"a": 0, "b": 5, "c": wrong, "d": 1})


def test_states_with_other_matches_are_not_the_same() -> None:
    """Two queues of the same requests behave differently when other prefixes are cached."""
    states = set()
    for cached in ((), (1,), (1, 2)):
        policy = lpm(hot(*cached))
        arrive(policy, "a1", prompt=9, path=(1, 2))
        states.add(policy.canonical())
    assert len(states) == 3


def test_a_plan_with_overdraft_ends_with_the_budget() -> None:
    """The budget counts however the plan is found."""
    policy = dlpm(overdraft=5, quantum=1000)
    arrive(policy, "a1", "a2", "a3", prompt=10)
    assert [one.id for one in policy.plan(3, budget=15)] == ["a1", "a2"]


@st.composite
def queues_with_preempted(draw: st.DrawFn) -> tuple[PolicyConfig, list[int], list[int], dict[int, int]]:
    """Return settings, whose requests wait, what is cached of them, and who was preempted after which output."""
    config = PolicyConfig(
        gate=draw(st.sampled_from(["deficit", "credit"])),
        slack=draw(st.sampled_from([0, 30, 10_000])),
        quantum=draw(st.integers(1, 100)),
        bounded_wait=draw(st.sampled_from([None, 3])),
        recompute=draw(st.sampled_from(["free", "charged"])),
    )
    clients = draw(st.lists(st.integers(0, 2), min_size=10, max_size=10))
    cached = draw(st.lists(st.integers(0, PROMPT - 1), min_size=10, max_size=10))
    preempted = draw(st.dictionaries(st.integers(0, 9), st.integers(0, 9), min_size=2, max_size=6))
    return config, clients, cached, preempted


def policy_with_preempted(queue: tuple[PolicyConfig, list[int], list[int], dict[int, int]]) -> DLPM:
    """Return a policy some of whose waiting requests have run before."""
    config, clients, cached, preempted = queue
    policy = DLPM(config, AskedPrefixes(lambda request: cached[int(request.id)], per_pass=0))
    for number, client in enumerate(clients):
        policy.arrive(Request(str(number), f"c{client}", PROMPT, 9))
    for number, output in preempted.items():
        policy.take(str(number), extend=PROMPT - cached[number], reserve=9)
        policy.produced({f"c{clients[number]}": output})
    for number, output in preempted.items():
        policy.preempt(str(number), output=output, keep_hold=False)
    return policy


@given(queues_with_preempted())
def test_what_ran_before_is_foreseen_at_its_price(
    queue: tuple[PolicyConfig, list[int], list[int], dict[int, int]],
) -> None:
    """A plan knows what a request that comes back costs, and how much it may still produce."""
    planned = [one.id for one in policy_with_preempted(queue).plan(10)]
    assert [one.id for one in BasePolicy.plan(policy_with_preempted(queue), 10)] == planned
    admitting, admitted = policy_with_preempted(queue), []
    while one := admitting.peek():
        admitted.append(one.id)
        done = queue[3].get(int(one.id), 0)
        admitting.take(one.id, extend=PROMPT + done - queue[2][int(one.id)], reserve=9 - done)
    assert admitted == planned


@pytest.mark.parametrize(("gate", "extend", "output"), [("deficit", 99, 0), ("credit", 81, 9)])
def test_what_comes_back_for_nothing_is_foreseen_to_cost_nothing(gate: str, extend: int, output: int) -> None:
    """Neither one unit nor the hold of one token: a single unit of credit is enough for the next one as well."""
    policy = dlpm(gate=gate, quantum=100)
    run(policy, "b0", extend=50, reserve=0)
    run(policy, "a1", extend=extend, reserve=max(output, 1))
    policy.produced({"a": output})
    assert policy.deficit("a") == 1
    policy.preempt("a1", output=output, keep_hold=False)
    arrive(policy, "a2", "b1")
    assert [one.id for one in policy.plan(3)] == ["a1", "a2", "b1"]
    assert [one.id for one in BasePolicy.plan(policy, 3)] == ["a1", "a2", "b1"]


def test_credit_of_the_shared_account_is_nobodys_gift() -> None:
    """Who gets an account of its own while the shared one has credit begins at zero."""
    policy = dlpm(max_clients=1, quantum=100)
    run(policy, "a1")
    run(policy, "b1", extend=10)  # there is no room for b: the shared account pays
    arrive(policy, "b2")
    assert offered(policy) == "b2"
    policy.take("b2", extend=1, reserve=1)  # after a refill of 100
    assert policy.deficit("b") == 89
    arrive(policy, "a2")  # a is refilled as well
    policy.take("a2", extend=0, reserve=1)
    for id in ("a1", "a2"):
        policy.finish(id, output=0)
    arrive(policy, "c1")
    assert policy.deficit("c") == 0


@pytest.mark.parametrize("how", ["output", "amendment"])
def test_a_refill_that_has_passed_comes_before_the_charge(how: str) -> None:
    """Of many rounds a client that owes 40 gets one; what it is charged afterwards earns it no other."""
    policy = dlpm(quantum=100)
    receipt = run(policy, "a1", extend=140, reserve=1000)
    assert policy.deficit("a") == -40
    run(policy, "b1", extend=500)
    arrive(policy, "b2")
    assert offered(policy) == "b2"
    policy.take("b2", extend=1, reserve=1)
    assert policy.rounds > 5
    if how == "output":
        policy.produced({"a": 50})
    else:
        policy.amend(receipt, extend=240)
    assert policy.deficit("a") == 60 - 100


def test_a_charge_given_back_brings_a_client_with_outstanding_output_forward() -> None:
    """Under the published gate what is outstanding does not count: the client is due in the next round."""
    policy = dlpm(quantum=100)
    receipt = run(policy, "a1", extend=1050, reserve=450)
    arrive(policy, "a2")
    policy.validate()
    policy.amend(receipt, extend=150)
    policy.validate()
    arrive(policy, "b1")
    assert policy.deficit("a") == -50
    assert offered(policy) == "a2"


def test_a_client_that_a_refill_lifts_above_the_slack_is_due_no_longer() -> None:
    """One refill is enough for that, though what it may still produce keeps its gate shut for longer."""
    policy = dlpm(gate="credit", slack=0, quantum=100)
    receipt = run(policy, "a1", extend=250, reserve=0)
    arrive(policy, "a2")
    policy.amend(receipt, extend=150, reserve=50)
    assert policy.deficit("a") == -50
    policy.validate()


def test_with_no_credit_left_exactly_a_round_more_is_waited_for() -> None:
    """A debt that refills bring to nothing, not above it, needs one more."""
    policy = dlpm(quantum=100)
    receipt = run(policy, "a1", extend=250)
    arrive(policy, "a2")
    policy.amend(receipt, extend=300)
    policy.validate()
    assert policy.deficit("a") == -200
    assert offered(policy) == "a2"
    policy.take("a2", extend=0, reserve=0)
    assert policy.deficit("a") == 100


def test_a_plan_waits_for_whoever_has_credit_beside_somebody_whose_hold_shuts_the_gate() -> None:
    """One deferred and one stuck in the present round are two who hold back the refill, not none."""
    policy = dlpm(gate="credit", slack=0, quantum=100)
    run(policy, "s1", extend=10, reserve=200)  # stuck: q = 90 is above the slack, and 400 units are outstanding
    run(policy, "c1", extend=500)
    policy.finish("c1", output=0)
    arrive(policy, "r1", "r2")
    policy.take("r1", extend=1, reserve=0)
    arrive(policy, "s2", "c2")
    policy.defer("r2", Refusal.NO_ROOM)
    assert policy.plan(3) == []
    assert BasePolicy.plan(policy, 3) == []


def test_whoever_is_forgotten_is_missed_by_no_block() -> None:
    """The only request that lacks a block leaves nothing behind."""
    index = hot(1)
    index.watch(Request("r1", "a", 4, 1, (1, 2)))
    index.forget("r1")
    index.validate()
    assert not index._trees[""].missing


def test_a_namespace_that_nobody_uses_any_more_is_forgotten() -> None:
    """Its last request is forgotten while nothing is cached there: no tree is left."""
    index = PrefixIndex(1)
    index.watch(Request("r1", "a", 4, 1, (1, 2), "adapter"))
    index.forget("r1")
    assert not index._trees


def test_nothing_of_nothing_may_be_evicted() -> None:
    """An empty chain has no last block."""
    index = hot(1)
    index.evicted(())
    index.cached(())
    assert index.cached_blocks() == 1


def test_the_last_block_before_a_fork_goes_alone() -> None:
    """Evicting one of two ways to go on leaves the other where it was."""
    index = hot(1, 2)
    index.cached((1, 3))
    index.evicted((1, 2), start=1)
    assert index.cached_blocks() == 2
    assert index.matched_blocks((1, 3)) == 2
    index.validate()


@given(shared=st.integers(0, 9), length=st.integers(1, 9))
def test_two_chains_agree_as_far_as_they_do(shared: int, length: int) -> None:
    """Wherever a prompt leaves a cached run, the match ends there."""
    cached = tuple(range(1, length + 1))
    asked = (*cached[:shared], *range(101, 110))
    assert hot(*cached).matched_blocks(asked) == min(shared, length)


def test_somebody_set_aside_may_lack_what_others_have_come_to_lack() -> None:
    """A block was cached and evicted again before a request heard of it; two that came later lack it as well."""
    index = PrefixIndex(1, per_look=1)
    first, second, third = (Request(id, "a", 4, 1, (1,)) for id in ("r1", "r2", "r3"))
    index.watch(first)
    index.cached((1,))
    index.evicted((1,))
    index.watch(second)
    index.watch(third)
    assert index.confirm("r1") == 0
    assert index.changes() == []
    index.validate()


def test_the_check_of_the_index_sees_a_wrong_place_behind_one_set_aside() -> None:
    """That somebody's place is about to be found anew is no reason to look at nobody else's."""
    index = hot(2)
    index.watch(Request("r1", "a", 4, 1, (1,)))
    index.watch(Request("r2", "a", 4, 1, (2, 3)))
    index.cached((1,))
    index.validate()
    stop = index._followers["r2"].stop
    assert stop is not None
    stop.depth = 0
    with pytest.raises(AssertionError):
        index.validate()


def test_the_check_of_the_index_sees_a_place_in_the_wrong_run() -> None:
    """A place at a fork belongs to the run above it."""
    index = hot(1, 2)
    index.cached((1, 3))
    index.watch(Request("r1", "a", 4, 1, (1, 4)))
    index.validate()
    stop = index._followers["r1"].stop
    assert stop is not None
    assert stop.run is not None
    below = next(iter(stop.run.children.values()))
    del stop.run.stops[1]
    below.stops[1], stop.run = stop, below
    with pytest.raises(AssertionError):
        index.validate()


def test_the_check_of_the_index_sees_whom_it_has_forgotten() -> None:
    """Nobody may stand in a place, or be noted as lacking a block, who is not followed any more."""
    for stays in ("stop", "group"):
        index = hot(1)
        for id in ("r1", "r2"):
            index.watch(Request(id, "a", 4, 1, (1, 2)))
        gone = index._followers["r1"]
        stop, group = gone.stop, index._trees[""].missing[2]
        assert stop is not None
        index.forget("r1")
        index.validate()
        if stays == "stop":
            stop.members["r1"] = gone
        else:
            assert isinstance(group, dict)
            group["r1"] = gone
        with pytest.raises(AssertionError):
            index.validate()


def test_the_first_request_of_all_loses_its_place_with_its_prefix() -> None:
    """Also number 0, of which nothing is cached any more, is offered by what is cached now."""
    index = hot(1, 2)
    index.cached((3,))
    policy = dlpm(index)
    policy.arrive(request("a1", prompt=9, path=(1, 2)))
    policy.arrive(request("b1", prompt=9, path=(3, 4)))
    assert offered(policy) == "a1"
    index.evicted((1, 2))
    assert offered(policy) == "b1"


def test_somebody_who_stands_elsewhere_is_no_member() -> None:
    """Also when it is followed, and only in the wrong place."""
    index = hot(1)
    index.watch(Request("r1", "a", 4, 1, (1, 2)))
    index.watch(Request("r2", "a", 4, 1, (3,)))
    stop = index._followers["r1"].stop
    assert stop is not None
    stop.members["r2"] = index._followers["r2"]
    with pytest.raises(AssertionError):
        index.validate()


def test_a_chain_goes_on_behind_a_block_that_hung_in_the_air() -> None:
    """Its parent is cached later; what follows it is not."""
    index = PrefixIndex(1)
    index.cached((1, 2, 3), start=1, end=2)
    index.cached((1,))
    assert index.matched_blocks((1, 2, 3)) == 2


def test_the_number_of_looks_is_named_when_it_is_wrong() -> None:
    """The message says which argument is meant."""
    with pytest.raises(ConfigError, match="per_look = 0 is not valid"):
        PrefixIndex(1, per_look=0)
