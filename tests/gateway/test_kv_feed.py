"""A worker's event stream over real sockets: gaps, replays, restarts, garbage; the index is never wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fairprefix.core.errors import ConfigError
from fairprefix.core.request import Request
from fairprefix.core.router_catalog import make_router
from fairprefix.core.router_config import RouterConfig
from fairprefix.gateway.kv_events.chain import names_of
from fairprefix.gateway.kv_events.feed import FeedConfig, KvEventFeed
from tests.gateway.kv_following import following
from tests.gateway.kv_publisher import CLEARED, Cache, Form, Publisher, removed, stored
from tests.gateway.waiting import soon

PROMPT = list(range(100, 112))
NAMES = names_of(PROMPT, 4)


@asynccontextmanager
async def followed(publisher: Publisher, **settings: Any) -> AsyncIterator[tuple[KvEventFeed, Cache]]:  # noqa: ANN401
    """Follow a publisher; both are gone afterwards."""
    cache = Cache()
    feed = publisher.feed(**settings)
    try:
        async with following([feed], [cache]):
            await soon(lambda: feed.figures.connected and publisher.asked)
            await asyncio.sleep(0.05)  # the publisher has to learn of the subscription
            yield feed, cache
    finally:
        await publisher.close()


def play(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a story."""
    asyncio.run(story())


@pytest.mark.parametrize("form", ["map", "array", "all-map"])
def test_what_a_worker_stores_and_removes_is_known_by_its_tokens(form: Form) -> None:
    """Both wire forms, and the newest one, name the blocks that a prompt of the same tokens has."""

    async def story() -> None:
        publisher = Publisher(form)
        async with followed(publisher) as (feed, cache):
            await publisher.publish(stored([11, 12], PROMPT[:8]), stored([13], PROMPT[8:], parent=12))
            await soon(lambda: cache.held == set(NAMES))
            await publisher.publish(removed([13]))
            await soon(lambda: cache.held == set(NAMES[:2]))
            await publisher.publish(CLEARED)
            await soon(lambda: not cache.held)
            assert (feed.figures.batches, feed.figures.resets, feed.figures.malformed) == (3, 0, 0)

    play(story)


def test_who_connects_late_learns_what_was_stored_before() -> None:
    """A gateway that is restarted in front of an idle worker knows its cache at once."""

    async def story() -> None:
        publisher = Publisher()
        publisher.keep(stored([11], PROMPT[:4]))
        publisher.keep(stored([12], PROMPT[4:8], parent=11))
        async with followed(publisher) as (feed, cache):
            await soon(lambda: cache.held == set(NAMES[:2]))
            assert feed.figures.replayed == 2
            assert publisher.asked == [0]

    play(story)


@pytest.mark.parametrize("names_topic", [False, True])
def test_a_gap_is_filled_by_the_replay(*, names_topic: bool) -> None:
    """What was lost on the way is asked for again, from the first missing batch on; nothing is dropped."""

    async def story() -> None:
        publisher = Publisher()
        publisher.names_topic = names_topic
        async with followed(publisher) as (feed, cache):
            await publisher.publish(stored([11], PROMPT[:4]))
            await soon(lambda: cache.held)
            publisher.keep(stored([12], PROMPT[4:8], parent=11))
            publisher.keep(removed([12]))
            await publisher.publish(stored([12, 13], PROMPT[4:], parent=11))
            await soon(lambda: cache.held == set(NAMES))
            assert (feed.figures.gaps, feed.figures.replayed, feed.figures.resets) == (1, 2, 0)
            assert publisher.asked == [0, 1]

    play(story)


def test_what_is_lost_for_good_leaves_nothing_wrong_behind() -> None:
    """A removal among what the publisher has forgotten: the worker's blocks are dropped, not believed."""

    async def story() -> None:
        publisher = Publisher(buffer=2)
        troubles: list[str] = []
        async with followed(publisher) as (feed, cache):
            feed.on_trouble = troubles.append
            await publisher.publish(stored([11, 12], PROMPT[:8]))
            await soon(lambda: len(cache.held) == 2)
            publisher.keep(removed([12]))
            publisher.keep(removed([11]))
            publisher.keep(stored([21], [7, 7, 7, 7]))
            await publisher.publish(stored([22], [8, 8, 8, 8]))
            await soon(lambda: cache.held == {*names_of([7] * 4, 4), *names_of([8] * 4, 4)})
            assert feed.figures.resets == 1
        assert troubles == ["worker 'w': batches from 1 on are lost; what was known of its cache is dropped"]

    play(story)


def test_without_a_replay_socket_a_gap_drops_what_was_known() -> None:
    """Nobody can be asked: what came after the gap is all that is known."""

    async def story() -> None:
        publisher = Publisher()
        publisher.asked.append(-1)
        async with followed(publisher, replay="") as (feed, cache):
            await publisher.publish(stored([11], PROMPT[:4]))
            await soon(lambda: cache.held)
            publisher.keep(removed([11]))
            await publisher.publish(stored([21], [7] * 4))
            await soon(lambda: cache.held == set(names_of([7] * 4, 4)))
            assert (feed.figures.gaps, feed.figures.resets) == (1, 1)

    play(story)


@pytest.mark.parametrize("batches_since", [0, 1, 5])
def test_a_restarted_worker_begins_with_an_empty_cache(batches_since: int) -> None:
    """However far the new process has counted when it is heard, nothing of the old one is believed."""

    async def story() -> None:
        first = Publisher()
        cache = Cache()
        feed = first.feed()
        async with following([feed], [cache]):
            await soon(lambda: first.asked)
            await asyncio.sleep(0.05)
            for number in range(3):
                await first.publish(stored([number], [number] * 4))
            await soon(lambda: len(cache.held) == 3)
            second = await first.replaced()
            try:
                for number in range(batches_since):
                    second.keep(stored([50 + number], [50 + number] * 4))
                await soon(lambda: second.asked)
                await asyncio.sleep(0.05)
                await second.publish(stored([99], [9] * 4))
                await soon(lambda: set(names_of([9] * 4, 4)) <= cache.held)
                expected = [names_of([50 + number] * 4, 4)[0] for number in range(batches_since)]
                assert cache.held == {*expected, *names_of([9] * 4, 4)}
                assert feed.figures.restarts == 1
            finally:
                await second.close()

    play(story)


def test_a_publisher_that_counts_anew_on_the_same_connection_is_a_restart() -> None:
    """A proxy may hide that the worker was replaced; its numbers tell."""

    async def story() -> None:
        publisher = Publisher()
        async with followed(publisher) as (feed, cache):
            for number in range(3):
                await publisher.publish(stored([number], [number] * 4))
            await soon(lambda: len(cache.held) == 3)
            publisher.number = 0
            publisher._buffer.clear()
            await publisher.publish(stored([70], [70] * 4))
            await soon(lambda: cache.held == set(names_of([70] * 4, 4)))
            assert feed.figures.restarts == 1

    play(story)


def test_garbage_is_counted_and_does_no_harm() -> None:
    """Wrong frames change nothing; a batch that cannot be read may hide a removal, so everything is dropped."""

    async def story() -> None:
        publisher = Publisher()
        async with followed(publisher) as (feed, cache):
            await publisher.publish(stored([11], PROMPT[:4]))
            await soon(lambda: cache.held)
            await publisher.send(b"kv")
            await publisher.send(b"kv", b"short", b"")
            await publisher.send(b"kv", bytes(8), b"", b"too many")
            await soon(lambda: feed.figures.malformed == 3)
            assert cache.held == set(NAMES[:1])
            for damaged in (b"", b"\xc1", b"\x91" * 100_000, b"\x93\x01\x91\xa1x\x00", b"\x92\x01\x05"):
                await publisher.send(b"kv", publisher.number.to_bytes(8, "big"), damaged)
                publisher.number += 1
            await soon(lambda: feed.figures.malformed == 8)
            assert not cache.held
            await publisher.publish(stored([21], [7] * 4))
            await soon(lambda: cache.held == set(names_of([7] * 4, 4)))

    play(story)


def test_what_is_remembered_is_bounded() -> None:
    """A stream of blocks that are never removed stops at the limit, and is counted."""

    async def story() -> None:
        publisher = Publisher()
        async with followed(publisher, limit=100) as (feed, cache):
            for number in range(50):
                ids = list(range(10 * number, 10 * number + 10))
                await publisher.publish(stored(ids, [id for id in ids for _ in range(4)]))
            await soon(lambda: feed.figures.batches == 50)
            assert (len(cache.held), feed.state()["over_limit"]) == (100, 400)

    play(story)


def test_a_router_sends_a_prompt_to_who_reported_it() -> None:
    """End to end: an event of one worker attracts the prompt with the same tokens, and no other."""

    async def story() -> None:
        router = make_router(RouterConfig(index="exact", block_size=4))
        router.worker_joined("u")
        router.worker_joined("w")
        publisher = Publisher()
        endpoint, replay = (f"tcp://127.0.0.1:{port}" for port in publisher.ports)
        feed = KvEventFeed("w", FeedConfig(endpoint=endpoint, replay=replay, block_size=4))
        publisher.keep(stored([11, 12, 13], PROMPT))
        async with following([feed], [router]):
            await soon(lambda: feed.figures.batches)
        await publisher.close()
        for id, prompt, worker, cached in (("r", PROMPT, "w", 11), ("s", [1, *PROMPT], "u", 0)):
            choice = router.pick(Request(id, "c", len(prompt), 9, names_of(prompt, 4)))
            assert choice
            assert (choice.worker, choice.cached_tokens) == (worker, cached)
        router.validate()

    play(story)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"endpoint": "localhost:5557"}, "endpoint"),
        ({"endpoint": ""}, "endpoint"),
        ({"endpoint": "tcp://a:1", "replay": "5558"}, "replay"),
        ({"endpoint": "tcp://a:1", "limit": 0}, "limit"),
        ({"endpoint": "tcp://a:1", "idle_s": 0}, "idle_s"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    """The error names the field."""
    with pytest.raises(ConfigError, match=message):
        FeedConfig(**settings)
