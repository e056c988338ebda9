"""Deployments to try routers on: the virtual engine on the wall clock in each replica."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from zlib import crc32

import ray
from ray import serve

from fairprefix.adapters.ray import FairReplica, RouteKey, fair_options
from fairprefix.adapters.ray.lookup import ledger_actor
from fairprefix.core.request import Request
from fairprefix.sim.engine import EngineConfig
from fairprefix.sim.paced import PacedEngine
from fairprefix.sim.steptime import step_time_model
from tests import closed_loop
from tests.closed_loop import Answer, Outcome, Stream, varied

BLOCK = 16
WINDOW = 8


def prompt(stream: Stream, family: int, number: int) -> list[int]:
    """Return a prompt of a family, unlike any other one in its last tokens."""
    base = crc32(f"{stream.client} {family}".encode()) & 0xFFFFF
    end = [number * 131 + place for place in range(stream.own_tokens)]
    return [(base + place) & 0x7FFFFFF for place in range(stream.prefix_tokens)] + end


class Paced:
    """A replica: an engine in arrival order, as engines are, that takes as long as a real one."""

    def __init__(self, kv_tokens: int, speed: float) -> None:
        step_time = step_time_model("llama-3.1-8b", "a10g")
        self.engine = PacedEngine(EngineConfig(kv_tokens=kv_tokens, max_batch=WINDOW), step_time, speed=speed)

    async def generate(self, key: RouteKey, output: int) -> tuple[int, int, int]:
        """Return the process, and the prompt tokens that were cached and computed."""
        request = key.request(uuid.uuid4().hex)
        cached = [0]
        async for _tokens in self.engine.generate(request, output):
            cached.append(self._cached(request))  # noqa: PERF401 (what it is at that moment)
        return os.getpid(), max(cached), output

    def _cached(self, request: Request) -> int:
        return self.engine.found(request.id) if request.id in self.engine.live else 0

    async def ask_pid(self) -> int:
        """Return the process."""
        return os.getpid()


class FairPaced(FairReplica, Paced):
    """The same, with our gate in front."""

    def __init__(self, kv_tokens: int, speed: float, settings: Mapping[str, Any]) -> None:
        super().__init__(kv_tokens, speed)
        self.fair(settings, cached=self.engine.cached)

    async def generate(self, key: RouteKey, output: int) -> tuple[int, int, int]:
        """Likewise."""
        cached = 0
        async with self.turn(key) as turn:
            async for tokens in self.engine.generate(turn.request, output):
                turn.produced(tokens)
                if turn.request.id in self.engine.live:
                    cached = self.engine.found(turn.request.id)
                    turn.found(key.input_tokens - cached)
        return os.getpid(), cached, turn.output


@contextmanager
def deployed(
    settings: Mapping[str, Any] | None,
    *,
    kv_tokens: int = 24_000,
    speed: float = 1.0,
    app: str = "app",
    **options: Any,  # noqa: ANN401 (whatever serve.deployment takes)
) -> Iterator[Any]:
    """Serve three replicas, fairly or, without settings, as Ray does; yield the handle."""
    common = {
        "num_replicas": 3,
        "ray_actor_options": {"num_cpus": 1},
        "logging_config": {"enable_access_log": False},
        **options,
    }
    if settings is None:
        plain = serve.deployment(name="LLM", max_ongoing_requests=1000, **common)(Paced)
        bound = plain.bind(kv_tokens, speed)
    else:
        ours = serve.deployment(name="LLM", **fair_options(settings, **common))(FairPaced)
        bound = ours.bind(kv_tokens, speed, settings)
    try:
        yield serve.run(bound, name=app, route_prefix=None)
    finally:
        serve.delete(app)


def figures(app: str = "app", deployment: str = "LLM") -> dict[str, Any]:
    """Return what the ledger of a deployment knows."""
    found: dict[str, Any] = ray.get(ledger_actor(app, deployment, "fairprefix").figures.remote())
    return found


def settled(app: str, picks: int, within_s: float = 10.0, deployment: str = "LLM") -> dict[str, Any]:
    """Return what the ledger knows once nothing is out and it has decided so often."""
    until = time.monotonic() + within_s
    while (found := figures(app, deployment))["out"] or found["picks"] < picks:
        assert time.monotonic() < until, found
        time.sleep(0.1)
    return found


async def load(handle: Any, streams: Sequence[Stream], seconds: float) -> list[Answer]:  # noqa: ANN401
    """Let clients ask for so long; return their answers, those that come later included."""

    async def ask(stream: Stream, family: int, number: int) -> Outcome:
        tokens = prompt(stream, family, number)
        output = varied(stream.output_tokens, number)
        key = RouteKey.of(stream.client, tokens, max_output=output, block_size=BLOCK)
        try:
            pid, cached, produced = await handle.generate.remote(key, output)
        except Exception as problem:  # noqa: BLE001 (what is lost is counted)
            return Outcome(input_tokens=len(tokens), problem=type(problem).__name__)
        return Outcome(produced, len(tokens), cached, pid)

    return await closed_loop.load(streams, seconds, ask)
