"""The other routers, each against the rule of its source."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fairprefix.core.errors import ConfigError
from fairprefix.core.hashing import Ring, drawn, hash64, prefix_key
from fairprefix.core.request import Request
from fairprefix.core.round_robin import ClientRoundRobin
from fairprefix.core.router_base import BaseRouter
from fairprefix.core.router_catalog import make_router, restore_router
from fairprefix.core.router_config import ROUTERS, RouterConfig
from fairprefix.core.worker_index import ExactIndex


def router(name: str, *workers: str, blocks: int | None = None, **settings: Any) -> BaseRouter:  # noqa: ANN401
    """Return a router for some workers, with blocks of one token."""
    made = make_router(RouterConfig(router=name, **{"block_size": 1, **settings}))
    for worker in workers:
        made.worker_joined(worker, blocks=blocks)
    return made


def sent(
    to: BaseRouter, id: str, *path: int, prompt: int = 4, output: int = 1, now: int = 0, namespace: str = ""
) -> str:
    """Pick a worker for a request of the client that its id begins with; return the worker's name."""
    choice = to.pick(Request(id, id[0], max(prompt, len(path)), output, path, namespace), now=now)
    assert choice is not None
    return choice.worker


def test_round_robin_takes_one_worker_after_the_other() -> None:
    """Whoever asks; suspended workers are passed over, and the turn goes on behind them."""
    made = router("rr", "u", "v", "w")
    assert [sent(made, f"{client}1") for client in "abcd"] == ["u", "v", "w", "u"]
    made.worker_suspended("v")
    assert [sent(made, f"{client}2") for client in "abc"] == ["w", "u", "w"]


def test_each_client_goes_round_by_itself() -> None:
    """A client's requests are spread evenly, whatever the others send."""
    made = router("client_rr", "u", "v")
    assert [sent(made, id) for id in ("a1", "b1", "b2", "a2", "b3", "a3")] == ["u", "u", "v", "v", "u", "u"]


def test_every_new_client_begins_with_the_first_worker() -> None:
    """Whatever others have been sent before."""
    made = router("client_rr", "u", "v", "w")
    assert [sent(made, id) for id in ("a1", "a2", "b1", "c1")] == ["u", "v", "u", "u"]


def test_clients_that_have_been_away_longest_begin_anew() -> None:
    """The table of turns is bounded."""
    made = router("client_rr", "u", "v", max_clients=2)
    assert [sent(made, id) for id in ("a1", "b1", "c1", "a2")] == ["u"] * 4
    assert isinstance(made, ClientRoundRobin)
    assert list(made._last) == ["c", "a"]


def test_the_fewest_requests_win() -> None:
    """Finished requests do not count."""
    made = router("least_loaded", "u", "v")
    assert [sent(made, f"a{i}") for i in range(3)] == ["u", "v", "u"]
    made.settle("a0", output=1)
    made.settle("a2", output=1)
    assert sent(made, "a3") == "u"


def test_two_are_drawn_and_the_less_loaded_one_is_taken() -> None:
    """No draw ever takes the most loaded of three; the same seed draws alike, another one does not."""
    picks = []
    for seed in (0, 0, 1):
        made = router("power_of_two", "u", "v", "w", seed=seed)
        made.worker_suspended("v")
        made.worker_suspended("w")
        for number in range(5):
            sent(made, f"x{number}")
        made.worker_resumed("v")
        made.worker_resumed("w")
        picks.append([sent(made, f"a{number}") for number in range(6)])
    assert picks[0] == picks[1] != picks[2]
    assert "u" not in picks[0]


def test_draws_are_two_different_workers_unless_there_is_one() -> None:
    """Every pair can be drawn."""
    assert drawn("x", 1) == (0, 0)
    pairs = {drawn(str(number), 4) for number in range(500)}
    assert pairs == {(first, second) for first in range(4) for second in range(4) if first != second}


def test_equal_beginnings_go_to_the_same_worker() -> None:
    """Only the hashed blocks count, and most of them stay when a worker leaves."""
    made = router("consistent_hash", *"uvwx", hash_blocks=2, load_percent=10_000)
    homes = {number: sent(made, f"a{number}", number, 100 + number) for number in range(60)}
    assert {sent(made, f"b{number}", number, 100 + number, 7, 8) == homes[number] for number in homes} == {True}
    assert len(set(homes.values())) == 4
    made.worker_left("w")
    moved = {number for number, home in homes.items() if sent(made, f"c{number}", number, 100 + number) != home}
    assert moved == {number for number, home in homes.items() if home == "w"}


def test_without_blocks_the_client_is_hashed() -> None:
    """A client whose prompts nobody has hashed stays in one place."""
    made = router("consistent_hash", *"uvwx", load_percent=10_000)
    assert len({sent(made, f"a{number}") for number in range(9)}) == 1


def test_a_suspended_worker_is_passed_over_on_the_ring() -> None:
    """What would go there goes to the next one."""
    made = router("consistent_hash", *"uvwx", load_percent=10_000)
    made.worker_suspended("w")
    assert {sent(made, f"a{number}", number) for number in range(60)} == set("uvx")


def test_a_share_is_exact() -> None:
    """Below 199 % of the average are 198 of 199 requests at one of two workers, 199 of 200 are not."""
    made = router("consistent_hash", "u", "v", load_percent=199)
    homes = [sent(made, f"a{number}", 1) for number in range(200)]
    assert len(set(homes[:199])) == 1
    assert homes[199] != homes[0]


def test_another_seed_sends_prompts_elsewhere() -> None:
    """The same one sends them to the same place."""
    homes = []
    for seed in (0, 0, 1):
        made = router("consistent_hash", *"uvwx", load_percent=10_000, seed=seed)
        homes.append([sent(made, f"a{number}", number) for number in range(60)])
    assert homes[0] == homes[1] != homes[2]


def test_a_worker_that_has_left_leaves_nothing_on_the_ring() -> None:
    """Whoever gets its slot has its own places alone."""
    made, fresh = router("consistent_hash", "u", "v"), router("consistent_hash", "u", "x")
    made.worker_left("v")
    made.worker_joined("x")
    for number in range(60):
        assert sent(made, f"a{number}", number) == sent(fresh, f"a{number}", number)


def test_hashes_are_those_of_every_run_and_machine() -> None:
    """BLAKE2b of eight bytes, read from the largest end; of a prompt its last block that counts."""
    assert hash64("") == 0xE4A6A0577479B2B4
    request = Request("r", "a", 9, 1, (1, 2, 3))
    assert [prefix_key(request, blocks) for blocks in (1, 2, 3, 9)] == ["/1", "/2", "/3", "/3"]


def test_draws_are_those_of_every_run_and_machine() -> None:
    """From the lower and the upper half of one hash."""
    assert [drawn(text, 1000) for text in "abcd"] == [(343, 727), (333, 178), (555, 476), (435, 280)]


def test_no_worker_has_more_than_its_share_of_the_load() -> None:
    """With loads bounded at 125 % of the average, one hot prefix spreads."""
    made = router("consistent_hash", *"uvwx")
    for number in range(80):
        sent(made, f"a{number}", 1, 2)
    assert max(worker.load for worker in made.workers) <= 25


def test_a_ring_without_a_worker_has_none_of_its_points() -> None:
    """What a worker adds is what its leaving takes away."""
    ring = Ring(8, 0)
    ring.add("u", 0)
    before = ring.from_point(0)
    ring.add("v", 1)
    ring.remove(1)
    assert ring.from_point(0) == before == [0] * 8


def test_two_candidates_share_a_prefix_until_one_is_out_of_balance() -> None:
    """The one that has it cached is taken, unless the other one has much less to do; no third one ever is."""
    made = router("dualmap", *"uvwxyz", balance_abs=3)
    homes = [sent(made, f"a{number}", 1, 2) for number in range(12)]
    assert homes[:4] == [homes[0]] * 4
    assert len(set(homes)) == 2


def test_different_beginnings_have_different_candidates() -> None:
    """dualmap: all workers are somebody's candidates."""
    made = router("dualmap", *"uvwxyz")
    assert {sent(made, f"a{number}", number) for number in range(60)} == set("uvwxyz")


def test_a_restored_ring_has_every_point_where_it_was() -> None:
    """consistent_hash: places follow from the workers' names, which a snapshot keeps."""
    made = router("consistent_hash", *"uvwx", load_percent=10_000)
    homes = [sent(made, f"a{number}", number) for number in range(60)]
    restored = restore_router(json.loads(json.dumps(made.snapshot())))
    assert [sent(restored, f"b{number}", number) for number in range(60)] == homes


def test_locality_decides_while_loads_are_in_balance() -> None:
    """cache_aware: more than the given share cached, then the best match; else the emptiest cache."""
    made = router("cache_aware", "u", "v", match_percent=50)
    assert sent(made, "a1", 1, 2, 3, 4) == "u"
    assert sent(made, "a2", 1, 2, 3, 9) == "u", "3 of 4 tokens are cached"
    assert sent(made, "a3", 1, 2, 8, 9) == "v", "2 of 4 are not more than half: v's cache is empty"


def test_what_is_cached_is_counted_in_tokens() -> None:
    """cache_aware: two blocks of four tokens are all of a prompt of eight."""
    made = router("cache_aware", "u", "v", match_percent=50, block_size=4)
    assert [sent(made, id, 1, 2, prompt=8) for id in ("a1", "a2")] == ["u", "u"]


@pytest.mark.parametrize("name", ["cache_aware", "dualmap", "d2lpm"])
def test_a_prompt_is_looked_for_in_its_own_namespace(name: str) -> None:
    """What is cached there attracts it; without a match the other worker would have been taken."""
    made = router(name, "u", "v", quantum=1000)
    home = sent(made, "a1", 1, 2, 3, 4, namespace="salt")
    assert sent(made, "a2", 1, 2, 3, 4, namespace="salt") == home


def test_loads_are_out_of_balance_beyond_both_thresholds() -> None:
    """The difference and the ratio have to be exceeded, both, by a request or a percent at least."""
    made = router("rr", balance_abs=10, balance_rel_percent=150)
    assert not made.unbalanced(15, 5), "a difference of ten is not more than ten"
    assert made.unbalanced(16, 5)
    assert not made.unbalanced(60, 40), "150 % is not more than 150 %"
    assert made.unbalanced(61, 40)


def test_out_of_balance_the_least_loaded_worker_is_taken() -> None:
    """cache_aware: both thresholds have to be exceeded."""
    made = router("cache_aware", "u", "v", balance_abs=3, balance_rel_percent=150)
    path = (1, 2, 3, 4)
    assert [sent(made, f"a{number}", *path) for number in range(4)] == ["u"] * 4
    assert sent(made, "a4", *path) == "v"
    assert sent(made, "a5", *path) == "v", "4 is not more than 3 above 1, and both have it cached now"


@pytest.mark.parametrize("name", ROUTERS)
def test_a_restored_router_decides_as_the_original(name: str) -> None:
    """State survives a JSON round trip; what is cached where is handed over apart."""
    made = router(name, *"uvwx", window=50)
    for number in range(30):
        sent(made, f"{'abc'[number % 3]}{number}", number % 5, 100 + number, now=3 * number)
        if number % 4 == 3 and number != 19:
            made.settle(f"{'abc'[(number - 2) % 3]}{number - 2}", output=number)
        if number % 9 == 8:
            made.refund(f"{'abc'[number % 3]}{number}")
    made.worker_left("v")
    index = type(made.index)()
    index.load(made.index.dump())
    restored = restore_router(json.loads(json.dumps(made.snapshot())), index)
    restored.validate()
    assert restored.canonical() == made.canonical()
    hash(restored.canonical())
    for number in range(30, 50):
        one, other = (sent(each, f"d{number}", number % 5, 200, now=100 + number) for each in (made, restored))
        assert one == other


@pytest.mark.parametrize("name", ROUTERS)
def test_weights_are_checked_by_every_router(name: str) -> None:
    """Also by those that do not look at them."""
    made = router(name, "u")
    made.reweigh("a", 1)
    with pytest.raises(ConfigError, match="weight = 0"):
        made.reweigh("a", 0)


@pytest.mark.parametrize("name", ROUTERS)
def test_a_choice_says_what_is_cached_in_the_prompts_own_namespace(name: str) -> None:
    """In tokens, and never the last one; whoever asks again gets the same answer."""
    made = router(name, "u", block_size=4)
    told = []
    for id, namespace in (("a1", "salt"), ("a2", "salt"), ("a3", "")):
        for prompt in (9, 8):
            request = Request(f"{id}/{prompt}", "a", prompt, 1, (1, 2), namespace)
            first, again = made.pick(request), made.pick(request)
            assert first is not None
            assert again is not None
            assert first.request == again.request == request.id
            assert (first.again, again.again) == (False, True)
            told.append((first.cached_tokens, again.cached_tokens))
    assert told == [(0, 0), (7, 7), (8, 8), (7, 7), (0, 0), (7, 7)]


@pytest.mark.parametrize("name", ROUTERS)
def test_an_index_that_is_handed_in_is_used(name: str) -> None:
    """It may be shared, or kept apart from the router's snapshots."""
    index = ExactIndex()
    made = make_router(RouterConfig(router=name, block_size=1), index)
    made.worker_joined("u")
    index.stored(0, (1, 2))
    choice = made.pick(Request("a1", "a", 4, 1, (1, 2, 3)))
    assert choice is not None
    assert choice.cached_tokens == 2
