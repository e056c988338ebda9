"""Preble's global scheduler: when it exploits what is cached, when it explores, and what a worker's load is.

A prompt token takes 10 ns, an output token 1 ns: a prompt of n tokens with one output token is a load of 10 n + 1.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from fairprefix.core.errors import ConfigError
from fairprefix.core.preble import Preble
from fairprefix.core.request import Request
from fairprefix.core.router_catalog import restore_router
from tests.core.test_routers import router, sent


def preble(*workers: str, blocks: int | None = None, **settings: Any) -> Preble:  # noqa: ANN401
    """Return a router where a prompt token takes 10 ns and an output token 1 ns."""
    made = router("preble", *workers, blocks=blocks, **{"prefill_ns": 10, "decode_ns": 1, **settings})
    assert isinstance(made, Preble)
    return made


def test_a_prompt_that_is_cached_for_the_larger_part_is_exploited() -> None:
    """More cached than missed: the holder; no more: the least cost."""
    made = preble("u", "v", balance_rel_percent=10_000)
    assert sent(made, "a1", 1, 2, 3, 4) == "u"
    assert sent(made, "b1", 9, prompt=7) == "v"
    assert sent(made, "a2", 1, 2, 3, 5) == "u"
    assert sent(made, "a3", 1, 2, 7, 8) == "u", "2 of 4 is not the larger part, but the cost is least at u"
    assert sent(made, "a4", 50) == "v", "u has 73 ns to do, v has 71"


def test_the_heaviest_worker_is_relieved() -> None:
    """Beyond 150 % of the smallest load an exploiting request is redirected."""
    made = preble("u", "v")
    path = tuple(range(10))
    assert sent(made, "a1", *path) == "u"
    assert sent(made, "a2", *path) == "v", "v has nothing to do"
    assert sent(made, "a3", *path) == "u"


def test_loads_are_forgotten_after_the_window() -> None:
    """What was sent longer than H ago does not count, and a refund after that takes back nothing."""
    made = preble("u", "v", window=100)
    sent(made, "a1", prompt=50)
    assert made._history[0].load == 501
    assert sent(made, "b1", prompt=9, now=100) == "v"
    assert sent(made, "b2", prompt=9, now=101) == "u"
    assert made._history[0].load == 91
    made.refund("a1")
    assert made._history[0].load == 91
    made.validate()


def test_how_many_use_a_block_is_counted_down_as_well() -> None:
    """What two requests share is used by one when the other is taken back, and by nobody after that."""
    made = preble("u")
    for id, own in (("a1", 4), ("a2", 5)):
        sent(made, id, 1, 2, 3, own, namespace="lora")
    assert sorted(made._history[0].users.values()) == [1, 1, 2, 2, 2]
    for left, id in (([1, 1, 1, 1], "a1"), ([], "a2")):
        made.refund(id)
        assert sorted(made._history[0].users.values()) == left
        made.validate()


def test_time_does_not_go_back() -> None:
    """The host's clock is checked."""
    made = preble("u")
    sent(made, "a1", now=7)
    with pytest.raises(ConfigError, match=r"now = 6 .* integer >= 7"):
        sent(made, "a2", now=6)


def test_time_begins_at_0() -> None:
    """Who has no clock need not tell the time."""
    made = preble("u")
    made.pick(Request("a1", "a", 4, 1))
    assert sent(made, "a2", now=0) == "u"


def test_refunds_and_departures_leave_the_window() -> None:
    """Neither counts for the load any more."""
    made = preble("u", "v")
    assert (sent(made, "a1", 1, 2), sent(made, "b1", 3, 4)) == ("u", "v")
    made.refund("a1")
    assert made._history[0].load == 0
    assert made.worker_left("v") == ("b1",)
    made.worker_joined("v")
    assert sent(made, "b1", 3, 4, now=10**15) == "u"
    made.validate()


def test_the_usual_output_is_expected() -> None:
    """Decode time is that of the average output so far; before that of the longest one."""
    made = preble("u")
    sent(made, "a1", prompt=1, output=100)
    assert made._history[0].load == 10 + 100
    made.settle("a1", output=30)
    sent(made, "a2", prompt=1, output=100)
    assert made._history[0].load == 10 + 100 + 10 + 30


def test_what_would_be_evicted_costs_as_much_as_it_is_used() -> None:
    """A full cache of hot blocks is spared, one of cold blocks is not."""
    made = preble("u", "v", blocks=4, window=1000)
    assert sent(made, "a1", 1, 2, 3, 4, output=1) == "u"
    assert sent(made, "a2", 5, 6, 7, 8, output=40) == "v"
    # v is loaded with 40 ns more, but u would have to evict what all of its requests use: 4 blocks of 10 ns.
    assert made._explore(Request("a3", "a", 4, 1, (21, 22, 23, 24)), 0b11).name == "u"
    made._history[1].users.clear()
    assert made._explore(Request("a3", "a", 4, 1, (21, 22, 23, 24)), 0b11).name == "v"


def test_a_worker_without_requests_in_the_window_evicts_for_nothing() -> None:
    """Nobody uses what it has cached."""
    made = preble("u", blocks=2, window=10)
    sent(made, "a1", 1, 2)
    made._expire(100)
    assert made._eviction_cost(0, Request("a2", "a", 4, 1, (5, 6)), 0) == 0


def test_locality_outweighs_load_within_the_limit() -> None:
    """A prompt of 3 that is cached but for its last token goes to the holder, though another one costs no more."""
    made = preble("u", "v", balance_rel_percent=10_000)
    assert sent(made, "a1", 1, 2, 3, prompt=3) == "u"
    assert sent(made, "b1", prompt=1) == "v"
    assert sent(made, "a2", 1, 2, 3, prompt=3) == "u"


def test_what_is_cached_is_counted_in_tokens() -> None:
    """Four blocks of four tokens are a prompt of 16: it is cached for the larger part, or just for half of it."""
    made = preble("u", "v", balance_rel_percent=10_000, block_size=4)
    assert sent(made, "a1", 1, 2, 3, 4, prompt=16) == "u"
    assert sent(made, "b1", prompt=1) == "v"
    assert sent(made, "a2", 1, 2, 3, 4, prompt=16) == "u"
    made = preble("u", "v", block_size=4)
    assert sent(made, "a1", 1, 2, 3, 4, prompt=16) == "u"
    assert sent(made, "b1", prompt=12) == "v"
    assert sent(made, "a2", 1, 2, 7, 8, prompt=16) == "u", "161 and 80 to compute, against 121 and 160"


def test_half_a_prompt_is_not_the_larger_part() -> None:
    """Then the least total cost decides: v has 11 and computes 40, u has 41 and computes 20."""
    made = preble("u", "v", balance_rel_percent=10_000)
    assert sent(made, "a1", 1, 2, 3, 4) == "u"
    assert sent(made, "b1", prompt=1) == "v"
    assert sent(made, "a2", 1, 2, 8, 9) == "v"


def test_the_last_token_of_a_prompt_is_never_taken_to_be_cached() -> None:
    """Of two tokens one is computed: no larger part is cached, and 21 + 10 at u is no less than 11 + 20 at v."""
    made = preble("u", "v", balance_rel_percent=10_000)
    assert sent(made, "a1", 1, 2, prompt=2) == "u"
    assert sent(made, "b1", prompt=1) == "v"
    assert sent(made, "a2", 1, 2, prompt=2) == "v"
    made = preble("u", "v", balance_rel_percent=10_000)
    assert sent(made, "a1", 1, 2, prompt=2, output=6) == "u"
    assert sent(made, "b1", prompt=2) == "v"
    assert sent(made, "a2", 1, 2, prompt=2) == "u", "26 and 10 are less than 21 and 20"


def test_of_several_holders_the_one_with_the_least_load_is_exploited() -> None:
    """Not the first one that joined."""
    made = preble("u", "v")
    path = tuple(range(10))
    assert [sent(made, id, *path) for id in ("a1", "a2")] == ["u", "v"]
    assert sent(made, "b1", prompt=2) == "u"
    assert sent(made, "a3", *path) == "v"


def test_a_load_at_the_limit_is_not_relieved_and_one_beyond_it_is() -> None:
    """150 is just 150 % of 100; with a smaller one beside it the request goes there."""
    path = tuple(range(14))
    made = preble("u", "v")
    assert sent(made, "a1", *path, prompt=14, output=10) == "u"
    assert sent(made, "b1", prompt=9, output=10) == "v"
    assert (made._history[0].load, made._history[1].load) == (150, 100)
    assert sent(made, "a2", *path, prompt=14, output=10) == "u"
    made = preble("u", "v")
    assert sent(made, "a1", *path, prompt=14, output=10) == "u"
    assert sent(made, "b1", prompt=9, output=9) == "v"
    assert sent(made, "a2", *path, prompt=14, output=10) == "v"


def test_a_heavy_worker_does_not_hide_a_light_one_behind_it() -> None:
    """Workers are looked at in the order of their loads, not of their joining."""
    made = preble("u", "v", "w")
    assert sent(made, "a1") == "u"
    assert sent(made, "b1", prompt=100) == "v"
    assert sent(made, "c1", prompt=1) == "w"


def test_namespaces_do_not_share() -> None:
    """A salted prompt is exploited, and its cost is estimated, by what is cached under its salt."""
    made = preble("u", "v", balance_rel_percent=10_000)
    assert sent(made, "a1", 1, 2, 3, 4, namespace="salt") == "u"
    assert sent(made, "b1", prompt=1) == "v"
    assert sent(made, "a2", 1, 2, 3, 4, namespace="salt") == "u"
    made = preble("u", "v")
    assert sent(made, "a1", 1, 2, 3, 4, namespace="salt") == "u"
    assert sent(made, "b1", prompt=3) == "v"
    assert sent(made, "a2", 1, 2, 7, 8, namespace="salt") == "u", "41 and 20 to compute, against 31 and 40"


def test_the_usual_output_is_the_average_of_all_that_are_done() -> None:
    """30 and 11 tokens make 20, in whole numbers, whatever the limit of the next request is."""
    made = preble("u")
    for id, output in (("a1", 30), ("a2", 11)):
        sent(made, id, prompt=1, output=100)
        made.settle(id, output=output)
    before = made._history[0].load
    sent(made, "a3", prompt=1, output=100)
    assert made._history[0].load == before + 10 + 20


def test_a_refunded_dispatch_is_written_down_as_one_that_does_not_count() -> None:
    """It stays in the window until it is too old, and a restored router does not count it either."""
    made = preble("u")
    sent(made, "a1")
    made.refund("a1")
    snapshot = json.loads(json.dumps(made.snapshot()))
    assert [one["counts"] for one in snapshot["window"]] == [False]
    restored = restore_router(snapshot)
    assert isinstance(restored, Preble)
    assert restored._history[0].load == 0


def test_a_request_that_is_out_for_longer_than_the_window_is_written_down_as_one_that_does_not_count() -> None:
    """It may still be refunded, which takes back nothing."""
    made = preble("u", window=10)
    sent(made, "a1")
    sent(made, "b1", now=11)
    window = json.loads(json.dumps(made.snapshot()))["window"]
    assert [(one["request"], one["counts"], one["out"]) for one in window] == [
        ("a1", False, True),
        ("b1", True, True),
    ]


def test_states_that_differ_in_the_clock_alone_are_the_same() -> None:
    """What counts is how long ago a request was sent: when the clock began makes no difference, its age does."""

    def state(first: int, second: int) -> tuple[object, ...]:
        made = preble("u", "v")
        sent(made, "a1", now=first)
        sent(made, "b1", now=second)
        return made.canonical()

    assert state(0, 7) == state(1000, 1007)
    assert state(0, 7) != state(7, 7)


def eviction(made: Preble, *path: int, cached: int = 0) -> int:
    """Return what it costs the first worker to make room for a prompt of which some blocks are cached."""
    return made._eviction_cost(0, Request("x", "x", 100, 1, path), cached)


def test_only_as_much_is_evicted_as_there_is_no_room_for() -> None:
    """Each block costs the time to compute it, 40 ns, times the share of the requests that used it."""
    made = preble("u", blocks=4, block_size=4)
    sent(made, "a1", 1, 2, prompt=8)
    sent(made, "a2", 3, 4, prompt=8)
    assert eviction(made, 5, 6, 7) == 3 * 40 // 2
    assert eviction(made, 1, 8, cached=1) == 1 * 40 // 2
    assert eviction(made, 1, 2, cached=2) == 0
    sent(made, "a3", 3, 4, prompt=8)
    cost = eviction(made, 1, 8, cached=1)
    assert (cost, type(cost)) == (13, int), "40 / 3, in whole nanoseconds"


def test_blocks_of_a_namespace_are_used_by_who_asked_for_them_there() -> None:
    """Evicting salted blocks costs what they are used, like any others."""
    made = preble("u", blocks=2)
    sent(made, "a1", 1, 2, namespace="salt")
    assert eviction(made, 5, 6) == 2 * 10
