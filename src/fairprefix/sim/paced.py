"""The virtual engine on the wall clock: an engine to try dispatchers on, where there is no GPU.

Batching, chunked prefill, KV memory, prefix cache and the duration of every step are the simulator's; the only
thing that is not virtual is the time that passes. Requests in, numbers of tokens out:

    engine = PacedEngine(EngineConfig(kv_tokens=100_000, max_batch=8), step_time_model("llama-3.1-8b", "a10g"))
    async for tokens in engine.generate(request, output_tokens=64): ...
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Collection

from attrs import define, field

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import reject
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.core.request import Client, Request
from fairprefix.sim.engine import PS_PER_NS, EngineConfig, Job, VirtualEngine
from fairprefix.sim.kvcache import KVCache
from fairprefix.sim.steptime import StepTimeModel
from fairprefix.sim.trace import TraceRequest

_LONGEST_RUN_NS = 20_000_000
"""Of decode steps that are computed at once: what has arrived meanwhile waits no longer."""
_NS = 1_000_000_000


@define(eq=False)
class _Call:
    job: Job
    told: int = 0
    news: asyncio.Queue[int] = field(factory=asyncio.Queue)


class PacedEngine:
    """An engine that takes as long as the step-time model says. Within one event loop.

    Args:
        config: the engine's parameters.
        step_time: how long a step takes.
        policy: who is admitted next; arrival order, unless given.
        block_size: tokens per block of the requests' hashes.
        speed: how much faster than the model it runs.
    """

    def __init__(
        self,
        config: EngineConfig,
        step_time: StepTimeModel,
        policy: PolicyConfig | None = None,
        *,
        block_size: int = 16,
        speed: float = 1.0,
    ) -> None:
        if not speed > 0:
            raise reject("speed", speed, "a factor above 0")
        index = PrefixIndex(block_size)
        made = policy or PolicyConfig(policy="fcfs", reservation=config.reservation)
        cache = KVCache(config.kv_tokens, index)
        self.input_tokens: int = 0
        self.cached_tokens: int = 0
        self.output_tokens: int = 0
        """What was admitted, how much of it was cached, and what was produced."""
        self._speed = speed
        self._index = index
        self._engine = VirtualEngine(config, step_time, cache, make_policy(made, index), self)
        self._calls: dict[str, _Call] = {}
        self._arrived: deque[Job] = deque()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._began_s = 0.0

    def cached(self, request: Request) -> int:
        """Return how many tokens of a prompt are cached now."""
        matched = self._index.matched_blocks(request.blocks, request.namespace)
        return min(matched * self._index.block_size, request.input_tokens - 1)

    async def generate(self, request: Request, output_tokens: int) -> AsyncIterator[int]:
        """Yield how many tokens were produced, as they come. A caller that leaves ends nothing: there is no abort.

        Args:
            request: its id must be unlike that of any other that is not done.
            output_tokens: after how many it ends.
        """
        trace = TraceRequest(
            self._now_ns(), request.client, request.input_tokens, output_tokens,
            max(request.max_output, output_tokens), tuple(map(int, request.blocks)),
        )  # fmt: skip
        call = self._calls[request.id] = _Call(Job(trace, request))
        self._arrived.append(call.job)
        self._wake.set()
        if self._task is None:
            self._began_s = time.monotonic()
            self._task = asyncio.get_running_loop().create_task(self._run())
        left = output_tokens
        while left:
            tokens = await call.news.get()
            left -= tokens
            yield tokens

    @property
    def live(self) -> Collection[str]:
        """Ids of requests that are not done."""
        return self._calls.keys()

    def found(self, id: str) -> int:
        """Return how many prompt tokens were cached when a request that is not done was admitted."""
        return self._calls[id].job.cached_tokens

    # The loop.

    def _now_ns(self) -> int:
        return int((time.monotonic() - self._began_s) * self._speed * _NS) if self._task else 0

    async def _run(self) -> None:
        engine = self._engine
        while True:
            engine.wait_until(self._now_ns() * PS_PER_NS)
            while self._arrived:
                engine.add(self._arrived.popleft())
            if not engine.begin(engine.clock_ns + _LONGEST_RUN_NS):
                if engine.has_work():
                    raise engine.stalled()
                self._wake.clear()
                await self._wake.wait()
                continue
            ends = engine.ends_ps
            assert ends is not None
            await asyncio.sleep(max((ends // PS_PER_NS - self._now_ns()) / _NS / self._speed, 0))
            engine.complete()
            self._tell()

    def _tell(self) -> None:
        for id, call in list(self._calls.items()):
            fresh = call.job.produced - call.told
            if fresh:
                call.told += fresh
                call.news.put_nowait(fresh)
            if call.job.finished_ns >= 0:
                del self._calls[id]

    # What the virtual engine tells.

    def queued(self, client: Client, at: int, change: int) -> None:
        """Do nothing."""

    def admitted(self, job: Job, at: int, *, extend: int, charged: int, again: bool) -> None:  # noqa: ARG002
        """Count what was cached."""
        if not again:
            self.input_tokens += job.request.input_tokens
            self.cached_tokens += job.cached_tokens

    def produced(self, tokens: dict[Client, int], at: int) -> None:  # noqa: ARG002
        """Count it."""
        self.output_tokens += sum(tokens.values())

    def preempted(self, job: Job) -> None:
        """Do nothing."""

    def finished(self, job: Job) -> None:
        """Do nothing: `finished_ns` tells."""

    def rejected(self, request: TraceRequest) -> None:
        """Do nothing: what is too large is not sent here."""
