"""The bounded table of accounts: names are invented by clients, so neither memory nor debt may hang on them."""

from __future__ import annotations

import json

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fairprefix.core.accounts import OVERFLOW
from fairprefix.core.dlpm import DLPM
from fairprefix.core.policy import Refusal
from fairprefix.core.vtc import VTC
from tests.support import admit, arrive, dlpm, offered, request, run, sized, vtc

MANY = sized(100_000, nightly=1_000_000, mutation=1_000)


def invent(policy: DLPM | VTC, names: int) -> None:
    """Let a request of each of many invented names arrive and be aborted."""
    for n in range(names):
        id = f"x{n}"
        policy.arrive(request(id, client=id))
        policy.finish(id, output=0)


@pytest.mark.parametrize("capacity", [1, 100])
def test_invented_names_neither_grow_the_table_nor_erase_a_debt_under_dlpm(capacity: int) -> None:
    """DLPM keeps at most `max_clients` accounts and the shared one, and a debtor's account among them."""
    policy = dlpm(quantum=10, max_clients=capacity)
    run(policy, "a1", extend=500)
    policy.finish("a1", output=0)
    invent(policy, MANY)
    assert len(policy._table) <= capacity + 1
    assert len(policy._table._idle) <= capacity + 1
    assert not policy._table._sharing
    assert policy.deficit("a") == 10 - 500
    policy.validate()


def test_invented_names_neither_grow_the_table_nor_erase_a_debt_under_vtc() -> None:
    """VTC keeps at most `max_clients` accounts and the shared one, and among them who is ahead of the others."""
    policy = vtc(max_clients=100)
    arrive(policy, "b1")
    run(policy, "a1", extend=500)
    policy.finish("a1", output=0)
    invent(policy, MANY)
    assert len(policy._table) <= 101
    assert policy.counter("a") == 500
    policy.validate()


def test_names_beyond_the_table_share_the_worst_debt() -> None:
    """Whoever finds the table full pays from one account together with all others who do."""
    policy = dlpm(quantum=10, max_clients=1)
    arrive(policy, "a1")
    run(policy, "x1", extend=60)
    run(policy, "y1", extend=60)
    assert policy.deficit("x") == policy.deficit("y") == -110
    assert policy._table["a"].key == "a"
    assert offered(policy) == "a1"
    arrive(policy, "z1")
    assert policy.deficit("z") == -110
    policy.validate()


def test_a_debtor_without_an_account_comes_back_in_debt() -> None:
    """A client that ran up its debt in the shared account starts its own account from it."""
    policy = dlpm(quantum=10, max_clients=1)
    arrive(policy, "a1")
    run(policy, "x1", extend=60)
    policy.finish("x1", output=0)
    assert OVERFLOW in policy._table
    policy.finish("a1", output=0)
    arrive(policy, "x2")
    assert "x" in policy._table
    assert "a" not in policy._table
    assert policy.deficit("x") == -50
    assert policy._table[OVERFLOW].balance == -50, "others who shared it still owe it"


def test_a_client_in_the_shared_account_stays_there_while_it_has_requests() -> None:
    """The requests of a client are charged to one account, also when an account of its own becomes free."""
    policy = dlpm(quantum=10, max_clients=1)
    arrive(policy, "a1", "x1")
    policy.finish("a1", output=0)
    arrive(policy, "x2")
    policy.produced({"x": 1})
    assert "x" not in policy._table
    assert policy._table[OVERFLOW].live == 2
    policy.finish("x1", output=1)
    policy.finish("x2", output=0)
    policy.validate()
    assert not policy._table._sharing


def test_the_shared_account_is_closed_when_it_owes_nothing() -> None:
    """Once nobody uses the shared account and it has no debt, it goes with the next new name."""
    policy = dlpm(quantum=10, max_clients=1)
    arrive(policy, "a1", "x1")
    for id in ("x1", "a1"):
        policy.finish(id, output=0)
    arrive(policy, "b1")
    assert [account.key for account in policy._table] == ["b"]


def test_a_shared_account_has_no_weight_of_its_users() -> None:
    """A weight set for a client that shares an account waits until it has one of its own."""
    policy = dlpm(quantum=10, max_clients=1)
    arrive(policy, "a1", "x1")
    policy.reweigh("x", 7)
    assert policy._table[OVERFLOW].weight == 1
    for id in ("x1", "a1"):
        policy.finish(id, output=0)
    arrive(policy, "x2")
    assert policy._table["x"].weight == 7
    counter = vtc(max_clients=1)
    arrive(counter, "a1", "x1")
    counter.reweigh("x", 7)
    assert counter._table[OVERFLOW].weight == 1


def test_the_search_for_room_is_bounded() -> None:
    """Debtors are looked at, eight at a time, and go to the end of the line: room is found in the end."""
    policy = dlpm(quantum=1, max_clients=20)
    names = [f"n{n:02}" for n in range(20)]
    for name in names:
        policy.arrive(request(name, client=name))
    for name in names:
        policy.take(name, extend=0 if name == "n19" else 50, reserve=1)
    for name in names:
        policy.finish(name, output=0)
    for id, own in (("x", False), ("y", False), ("z", True)):
        arrive(policy, id)
        assert (id in policy._table) == own
    assert "n19" not in policy._table
    policy.validate()


def test_the_account_that_left_last_is_not_forgotten_under_vtc() -> None:
    """VTC lifts to the counter of the client that left last, so that account outlives the search for room."""
    policy = vtc(max_clients=1)
    run(policy, "a1", extend=50)
    policy.finish("a1", output=0)
    arrive(policy, "b1")
    assert policy.counter("a") == 50
    assert policy.counter("b") == 50
    assert OVERFLOW in policy._table


@given(
    capacity=st.integers(1, 4),
    events=st.lists(st.tuples(st.sampled_from("cdefgh"), st.integers(0, 30), st.integers(0, 3)), max_size=40),
    counters=st.booleans(),
)
def test_a_small_table_gives_nothing_away(
    capacity: int, events: list[tuple[str, int, int]], *, counters: bool
) -> None:
    """While nobody is refilled, a client never owes less in a full table than in one with room for everybody."""
    make = vtc if counters else dlpm
    policies = make(max_clients=capacity), make(max_clients=100)
    for policy in policies:
        arrive(policy, "a1", "a2")
        admit(policy, extend=1)
        policy.defer("a2", Refusal.NO_ROOM)
    for n, (client, tokens, lasting) in enumerate(events):
        for policy in policies:
            policy.arrive(request(f"{client}{n}", prompt=tokens + 1))
        small, large = (owed(policy, client) for policy in policies)
        assert small >= large
        for policy in policies:
            policy.take(f"{client}{n}", extend=tokens + 1, reserve=1)
            policy.validate()
            if n >= lasting:
                former = f"{events[n - lasting][0]}{n - lasting}"
                if former in policy._entries:
                    policy.finish(former, output=0)
    assert len(policies[0]._table) <= capacity + 1


def owed(policy: DLPM | VTC, client: str) -> int:
    """Return how far a client is behind its fair share, by its account."""
    return policy.counter(client) if isinstance(policy, VTC) else -policy.deficit(client)


def test_an_account_in_use_is_not_dropped_for_a_newcomer() -> None:
    """A client that has come back is no longer among those whose account may go."""
    policy = dlpm(quantum=10, max_clients=1)
    arrive(policy, "a1")
    policy.finish("a1", output=0)
    arrive(policy, "a2", "b1")
    assert "a" in policy._table
    assert "b" not in policy._table
    assert policy._table.idle_keys() == []
    assert offered(policy) == "a2"
    policy.validate()


def test_a_table_survives_json_as_it_is() -> None:
    """Idle accounts are considered in the same order after a restart, and none changes its name."""
    policy = dlpm(quantum=10, max_clients=4)
    for id in ("b1", "a1", "c1"):
        arrive(policy, id)
        policy.finish(id, output=0)
    copy = DLPM.restore(json.loads(json.dumps(policy.snapshot())))
    assert isinstance(copy, DLPM)
    assert copy._table.idle_keys() == policy._table.idle_keys() == ["b", "a", "c"]
    assert [account.key for account in copy._table] == [account.key for account in policy._table]


def test_a_name_that_left_the_shared_account_keeps_its_counter_under_vtc() -> None:
    """A client that was served in the shared account starts its own one from the shared counter."""
    policy = vtc(max_clients=2)
    arrive(policy, "a1", "c1", "x1", prompt=60)
    policy.finish("c1", output=0)
    policy.take("x1", extend=60, reserve=0)
    policy.finish("x1", output=0)
    assert policy._table[OVERFLOW].balance == 60
    arrive(policy, "x2")
    assert "x" in policy._table
    assert policy.counter("a") == 0
    assert policy.counter("x") == 60


def test_an_account_at_the_floor_may_go() -> None:
    """A client whose counter is just what it would be lifted to makes room for another one."""
    policy = vtc(max_clients=2)
    arrive(policy, "a1", "b1")
    policy.finish("a1", output=0)
    policy.finish("b1", output=0)
    arrive(policy, "c1")
    assert sorted(account.key for account in policy._table) == ["b", "c"]
