"""D2LPM's dispatcher: how much it remembers, and what survives a restart."""

from __future__ import annotations

import json

import pytest

from fairprefix.core.d2lpm import D2LPM
from fairprefix.core.errors import SnapshotError
from fairprefix.core.request import Request
from fairprefix.core.router_catalog import restore_router
from tests.core.test_d2lpm import router, sent


def test_counters_are_sparse() -> None:
    """10,000 clients and 1,000 workers: there is a counter per dispatch, not per pair."""
    made = router(*(f"w{i}" for i in range(1000)), quantum=1000, max_clients=10_000)
    for number in range(10_000):
        made.pick(Request(f"r{number}", f"c{number}", 4, 1))
    assert sum(len(account.spent) for account in made._accounts.values()) == 10_000


def test_idle_clients_are_forgotten_beyond_the_limit_and_busy_ones_never() -> None:
    """The table is bounded by its limit and by what is out; the client idle for longest goes first."""
    made = router("u", max_clients=2)
    for id in ("a1", "b1", "c1"):
        sent(made, id)
    assert set(made._accounts) == {"a", "b", "c"}, "all three are busy"
    for id in ("b1", "a1"):
        made.settle(id, output=1)
    sent(made, "d1")
    assert set(made._accounts) == {"a", "c", "d"}
    assert made.deficit("b", "u") == 0
    made.validate()


def test_the_table_of_clients_grows_no_larger_than_its_limit() -> None:
    """With as many as fit, a new one takes the place of the one that has been idle for longest."""
    made = router("u", max_clients=2)
    for id in ("a1", "b1", "c1"):
        sent(made, id)
        made.settle(id, output=1)
    assert set(made._accounts) == {"b", "c"}
    assert made.rounds == 3, "a client's first request is refilled"


def test_counters_are_whole_numbers_under_any_weight() -> None:
    """And exact, however large."""
    made = router("u", weights={"a": 3}, quantum=2**60 + 1)
    sent(made, "a1", prompt=3 * (2**60 + 1) + 2)
    sent(made, "a2", prompt=1)
    assert (made.rounds, made.deficit("a", "u")) == (2, 3 * (2**60 + 1) - 2 - 1)


def test_a_restored_dispatcher_goes_on_as_if_nothing_had_happened() -> None:
    """Counters, loads, suspensions and requests that are out survive a JSON round trip."""
    made = router("u", "v", "w", output_charge="max", weights={"a": 2})
    for id in ("a1", "b1", "a2", "a3", "b2"):
        sent(made, id, 1)
    made.settle("b1", output=2)
    made.refund("a2")
    made.worker_suspended("w")
    index = type(made.index)()
    index.load(made.index.dump())
    restored = restore_router(json.loads(json.dumps(made.snapshot())), index)
    assert isinstance(restored, D2LPM)
    assert restored.canonical() == made.canonical()
    restored.validate()
    for id in ("a1", "a4", "b3", "c1"):
        assert sent(restored, id, 1) == sent(made, id, 1)


def test_a_restored_router_without_an_index_has_an_empty_one() -> None:
    """With room for what each worker can cache, in that worker's slot."""
    made = router("u")
    made.worker_joined("v", blocks=7)
    sent(made, "a1", 1, 2)
    made.worker_left("u")
    restored = restore_router(made.snapshot())
    slot = restored.workers.named("v").slot
    assert (slot, restored.index.capacity_of(slot), restored.index.blocks_of(slot)) == (1, 7, 0)


def test_dispatchers_with_different_counters_are_in_different_states() -> None:
    """`canonical` tells apart what will behave differently, and takes for equal what will not."""
    states = []
    for prompt in (4, 4, 5):
        made = router("u")
        sent(made, "a1", prompt=prompt)
        made.refund("a1")
        sent(made, "a2", prompt=prompt)
        made.settle("a2", output=0)
        states.append(made.canonical())
    assert states[0] == states[1] != states[2]


def test_a_snapshot_of_something_else_is_refused() -> None:
    """Schema version, kind and router are checked."""
    snapshot = router("u").snapshot()
    for change, message in (
        ({"format": "x"}, "format = 'x'"),
        ({"schema": 99}, "schema = 99"),
        ({"router": "rr"}, "router = 'rr', expected 'd2lpm'"),
    ):
        with pytest.raises(SnapshotError, match=message):
            D2LPM.restore({**snapshot, **change})
    with pytest.raises(SnapshotError, match="router = 'nope'"):
        restore_router({"router": "nope"})


def test_every_dispatch_has_a_number_of_its_own() -> None:
    """That of the last one is the worker's turn; a snapshot keeps them."""
    made = router("u")
    for id in ("a1", "a2", "b1"):
        sent(made, id)
    serials = [one["serial"] for one in made.snapshot()["dispatched"]]
    assert serials == sorted(set(serials))
    assert serials[-1] == made.workers.named("u").turn
