"""Is a worker alive, and how much does it bear? Asked at intervals."""

from __future__ import annotations

import asyncio
import re

from fairprefix.gateway.config import GatewayConfig
from fairprefix.gateway.fleet import Fleet
from fairprefix.gateway.upstream import Upstream, UpstreamError
from fairprefix.gateway.worker import Worker

_MISSES = 2
"""Unanswered questions in a row after which a worker counts as dead."""
_SERVER_ERRORS = 500
_GROWTH = 8
"""One more place in the window for so many."""
_FIGURE = re.compile(rb"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{[^}]*\})? ([0-9.eE+-]+)", re.MULTILINE)
_RUNNING = (b"vllm:num_requests_running", b"sglang:num_running_reqs", b"fairprefix_requests_running")
_WAITING = (b"vllm:num_requests_waiting", b"sglang:num_queue_reqs", b"fairprefix_requests_waiting")


class Checkup:
    """Looks after one worker until it is cancelled.

    Args:
        fleet: all workers.
        worker: this one.
        upstream: how to reach it.
        limits: the gateway's.
    """

    def __init__(self, fleet: Fleet, worker: Worker, upstream: Upstream, limits: GatewayConfig) -> None:
        self._fleet = fleet
        self._worker = worker
        self._upstream = upstream
        self._limits = limits
        self._misses = 0

    async def run(self) -> None:
        """Ask, and ask again."""
        while True:
            await self.look()
            # Who is out of rotation is looked after more often.
            pause = self._limits.health_interval_s * (1 if self._worker.alive else 0.25)
            await asyncio.sleep(pause)

    async def look(self) -> None:
        """Ask once, and draw the conclusions."""
        worker = self._worker
        problem = await self._ask()
        if problem is None:
            self._misses = 0
            if not worker.alive and not worker.resting:
                self._fleet.resume(worker)
            if worker.learns_window:
                await self._learn()
            return
        self._misses += 1
        if self._misses >= _MISSES or problem.gone:
            self._fleet.suspend(worker, f"its health check fails: {problem}")

    async def _ask(self) -> UpstreamError | None:
        try:
            status, _ = await self._get(self._limits.health_path)
        except UpstreamError as problem:
            return problem
        return UpstreamError(f"status {status}") if status >= _SERVER_ERRORS else None

    async def _learn(self) -> None:
        try:
            status, text = await self._get("/metrics")
        except UpstreamError:
            return
        load = read_load(text) if status < 300 else None  # noqa: PLR2004 (success)
        if load is not None:
            queue = self._worker.queue
            assert queue.window is not None
            window = next_window(
                queue.window, inside=queue.taken, queued=bool(queue.waiting), load=load,
                most=self._limits.window_max,
            )  # fmt: skip
            if window != queue.window:
                queue.rewindow(window)

    async def _get(self, path: str) -> tuple[int, bytes]:
        try:
            return await asyncio.wait_for(self._exchange(path), self._limits.connect_timeout_s)
        except asyncio.TimeoutError:
            raise UpstreamError("it did not answer in time") from None

    async def _exchange(self, path: str) -> tuple[int, bytes]:
        answer = await self._upstream.send("GET", path, [], None)
        try:
            return answer.status, await answer.whole()
        finally:
            answer.close()


def read_load(text: bytes) -> tuple[int, int] | None:
    """Return the requests that run and that wait at a worker, over its ranks; None if its figures do not say."""
    figures: dict[bytes, float] = {}
    for name, value in _FIGURE.findall(text):
        if name in _RUNNING or name in _WAITING:
            figures[name] = figures.get(name, 0.0) + float(value)
    running = next((figures[name] for name in _RUNNING if name in figures), None)
    waiting = next((figures[name] for name in _WAITING if name in figures), None)
    return None if running is None or waiting is None else (int(running), int(waiting))


def next_window(window: int, *, inside: int, queued: bool, load: tuple[int, int], most: int) -> int:
    """Return the window to use from now on.

    A worker that lets requests wait has more of them than it can run: the window becomes what runs, and one more,
    so that a place that gets free is filled at once. One whose window is full while others queue here, and which
    runs all it has, bears more.
    """
    running, waiting = load
    if waiting > 1 and running:
        return min(running + 1, window)
    if not waiting and queued and inside >= window:
        return min(window + max(window // _GROWTH, 1), most)
    return window
