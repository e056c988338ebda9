"""The virtual engine on the wall clock."""

from __future__ import annotations

import asyncio
import time

import pytest

from fairprefix.core.errors import ConfigError
from fairprefix.core.request import Request
from fairprefix.sim.engine import EngineConfig
from fairprefix.sim.paced import PacedEngine
from fairprefix.sim.steptime import step_time_model

MODEL = step_time_model("llama-3.1-8b", "a10g")
SPEED = 20.0


def request(number: int, blocks: tuple[int, ...] = ()) -> Request:
    """Return a request of 100 tokens."""
    return Request(str(number), "a", 100, 40, blocks)


async def tokens(engine: PacedEngine, asked: Request, output: int) -> int:
    """Return how many tokens came."""
    return sum([count async for count in engine.generate(asked, output)])


def test_a_request_takes_at_least_as_long_as_the_model_says() -> None:
    """Time passes as the step-time model has it, divided by the speed; every token comes."""

    async def check() -> None:
        engine = PacedEngine(EngineConfig(kv_tokens=1000), MODEL, speed=SPEED)
        began = time.monotonic()
        assert await tokens(engine, request(1), 40) == 40
        decoding = MODEL.decode_run(1, 100).total_ps(39) / 1e12 / SPEED
        assert time.monotonic() - began >= 0.9 * decoding
        assert engine.output_tokens == 40
        assert not engine.live

    asyncio.run(check())


def test_a_prompt_that_was_served_is_cached() -> None:
    """The second request with the same blocks computes what is left, and the engine says so."""

    async def check() -> None:
        engine = PacedEngine(EngineConfig(kv_tokens=1000), MODEL, speed=SPEED)
        blocks = (1, 2, 3, 4, 5, 6)
        assert engine.cached(request(0, blocks)) == 0
        await tokens(engine, request(1, blocks), 2)
        assert engine.cached(request(0, blocks)) == 96
        stream = engine.generate(request(2, blocks), 20)
        await anext(aiter(stream))
        assert engine.found("2") == 96
        async for _ in stream:
            pass
        assert (engine.input_tokens, engine.cached_tokens) == (200, 96)

    asyncio.run(check())


def test_no_more_run_than_fit() -> None:
    """With room for two, the others wait their turn, and all are served."""

    async def check() -> None:
        engine = PacedEngine(EngineConfig(kv_tokens=10_000, max_batch=2), MODEL, speed=SPEED)
        order: list[int] = []

        async def one(number: int) -> None:
            await tokens(engine, request(number), 10)
            order.append(number)

        await asyncio.gather(*(one(number) for number in range(6)))
        assert sorted(order) == list(range(6))
        assert [set(order[:2]), set(order[2:4])] == [{0, 1}, {2, 3}]

    asyncio.run(check())


def test_a_speed_has_to_be_positive() -> None:
    """Zero is refused, by name."""
    with pytest.raises(ConfigError, match="speed"):
        PacedEngine(EngineConfig(kv_tokens=100), MODEL, speed=0)
