"""Real gateways that share a ledger: two processes, one worker with an engine's timing, a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.gateway.redis_server import RedisServer
from tests.gateway.rig import Running, gateway, mock, wait_until
from tests.gateway.waiting import soon

TOKENS = 4
PROMPT = " ".join(["word"] * 40)
WEIGHTS = {"heavy": 4, "light": 1}


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of its own."""
    with RedisServer(tmp_path) as server:
        yield server


def settings(redis: RedisServer | None, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return a gateway's settings: weights 4:1, and a quantum of two requests."""
    shared = {"redis": {"url": redis.url, "timeout_ms": 300}} if redis else {}
    return {"weights": WEIGHTS, "quantum": 100, "gateway": {"trusted": ["127.0.0.1"], **more}, **shared}


async def flood(front: Running, client: str, streams: int, until: asyncio.Event, served: dict[str, int]) -> None:
    """Keep so many requests of a client under way."""
    limits = httpx.Limits(max_connections=None)
    body = {"model": "mock", "prompt": PROMPT, "max_tokens": TOKENS}

    async with httpx.AsyncClient(timeout=60, limits=limits) as http:

        async def one() -> None:
            while not until.is_set():
                answer = await http.post(f"{front.url}/v1/completions", json=body, headers={"x-tenant-id": client})
                assert answer.status_code == httpx.codes.OK, answer.text
                served[client] = served.get(client, 0) + 1

        await asyncio.gather(*(one() for _ in range(streams)))


async def skewed(one: Running, two: Running, requests: int) -> float:
    """Let nearly all of one client through each gateway; return the ratio of service once it has begun."""
    until = asyncio.Event()
    served: dict[str, int] = {}
    floods = [
        asyncio.create_task(flood(front, client, streams, until, served))
        for front, client, streams in (
            (one, "heavy", 18),
            (one, "light", 2),
            (two, "light", 18),
            (two, "heavy", 2),
        )
    ]
    await soon(lambda: sum(served.values()) > requests // 5, 120)
    before = dict(served)
    await soon(lambda: sum(served.values()) > requests, 120)
    after = dict(served)
    until.set()
    await asyncio.gather(*floods)
    return (after["heavy"] - before["heavy"]) / (after["light"] - before["light"])


def test_weights_hold_over_two_gateways(tmp_path: Path, redis: RedisServer) -> None:
    """Weights 4:1 and skewed ingress through two gateways: service is 4:1 (NVIDIA Dynamo issue 15187)."""
    with (
        mock(step_ms=10, slots=2) as worker,
        gateway(f"{worker.url},window=2", settings=settings(redis), folder=tmp_path) as one,
        gateway(f"{worker.url},window=2", settings=settings(redis), folder=tmp_path) as two,
    ):
        assert 3.6 <= asyncio.run(skewed(one, two, 500)) <= 4.4
        for front in (one, two):
            sharing = front.settled()["sharing"]
            assert (sharing["connected"], sharing["gateways"], sharing["failures"]) == (True, 2, 0)
            assert sharing["delta"] > 0
            assert front.metrics()["fairprefix_sharing_connected"] == 1


def test_without_sharing_the_weights_are_lost(tmp_path: Path) -> None:
    """The control: the same two gateways without Redis."""
    with (
        mock(step_ms=10, slots=2) as worker,
        gateway(f"{worker.url},window=2", settings=settings(None), folder=tmp_path) as one,
        gateway(f"{worker.url},window=2", settings=settings(None), folder=tmp_path) as two,
    ):
        assert asyncio.run(skewed(one, two, 300)) < 2.5


def test_redis_may_be_away(tmp_path: Path, redis: RedisServer) -> None:
    """Nobody waits for Redis: not at the start, not when it dies, and it is used again when it is back."""
    body = {"model": "mock", "prompt": PROMPT, "max_tokens": TOKENS}
    redis.kill()
    with (
        mock(step_ms=1) as worker,
        gateway(worker.url, settings=settings(redis), folder=tmp_path) as front,
    ):
        for connected in (False, True, False):
            if connected:
                redis.start()
            else:
                redis.kill()
            wait_until(lambda: front.state()["sharing"]["connected"] is connected, 20)  # noqa: B023
            for _ in range(20):
                assert (
                    httpx.post(f"{front.url}/v1/completions", json=body, timeout=20).status_code == httpx.codes.OK
                )
        front.settled()


def test_a_state_in_redis_survives_a_restart(tmp_path: Path, redis: RedisServer) -> None:
    """What clients got is known to the next gateway of the same name, and to no other one."""
    body = {"model": "mock", "prompt": PROMPT, "max_tokens": TOKENS}
    with mock(step_ms=1) as worker:
        seen = []
        for name in ("a", "a", "b"):
            given = settings(redis, state=f"redis:{name}")
            with gateway(worker.url, settings=given, folder=tmp_path) as front:
                httpx.post(f"{front.url}/v1/completions", json=body, headers={"x-tenant-id": "heavy"}, timeout=20)
                seen.append(front.settled()["clients"][0]["requests"])
                front.process.terminate()
                front.process.wait(30)
        assert seen == [1, 2, 1]
