"""What one ledger actor of Ray can take: messages a second, how long one takes, and what it costs the actor.

    .venv-ray/bin/python benchmarks/ray_ledger.py [--seconds 4]

One router asks, with so many requests out at a time, and replicas report, both in batches as in a deployment. The
same is done with a ledger in this process first: the difference is Ray's. Callers and actor share this machine;
the processor time that the actor itself used says how much it could take on a core of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_raylet_start_wait_time_s", "150")

import ray

from fairprefix.adapters.ray import RouteKey
from fairprefix.adapters.ray.ledger import Ledger
from fairprefix.adapters.ray.link import LedgerLink
from fairprefix.adapters.ray.settings import LedgerSettings

Ask = Callable[..., Awaitable[Any]]


class Timed(Ledger):
    """The ledger, which says how much processor time its process has used."""

    async def cpu_s(self) -> float:
        """Return it, all threads together."""
        return time.process_time()


class Replicas:
    """Reports of replicas, in batches as they send them."""

    def __init__(self, tell: Ask) -> None:
        self._tell = tell
        self._finished: dict[str, list[tuple[str, int, int]]] = {}

    def finished(self, worker: str, id: str) -> None:
        """Note that a request is done."""
        self._finished.setdefault(worker, []).append((id, 100, 10))

    async def report(self) -> None:
        """Tell the ledger 20 times a second."""
        while True:
            await asyncio.sleep(0.05)
            batches, self._finished = self._finished, {}
            await asyncio.gather(*(self._tell(worker, batch, None) for worker, batch in batches.items()))


async def rate(ledger: Any, callers: int, seconds: float, replicas: int) -> tuple[float, float, float]:  # noqa: ANN401
    """Return requests and messages per second, and the median time of a decision in ms, through one router."""
    keys = [RouteKey.of(f"c{n % 50}", range(n, n + 2048), max_output=64) for n in range(200)]

    async def find() -> Any:  # noqa: ANN401 (a ledger)
        return ledger

    link = LedgerLink("router", find)
    link.members([f"r{number}" for number in range(replicas)])
    link.start()
    told = Replicas(ledger.replica)
    reporting = asyncio.create_task(told.report())
    await link.pick("first", keys[0], ())
    before = (await ledger.figures())["messages"]
    number = itertools.count()
    times: list[float] = []
    until = time.perf_counter() + seconds

    async def caller() -> None:
        while (began := time.perf_counter()) < until:
            id = next(number)
            worker = await link.pick(str(id), keys[id % len(keys)], ())
            times.append(time.perf_counter() - began)
            assert worker is not None
            link.ended(str(id), worker, accepted=True)
            told.finished(worker, str(id))
            await asyncio.sleep(0)

    await asyncio.gather(*(caller() for _ in range(callers)))
    messages = (await ledger.figures())["messages"] - before
    assert not link.alone
    link.stop()
    reporting.cancel()
    return len(times) / seconds, messages / seconds, 1e3 * statistics.median(times)


class Remote:
    """An actor's methods as coroutines."""

    def __init__(self, actor: Any) -> None:  # noqa: ANN401 (Ray's handles are not typed)
        self._actor = actor

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._actor, name).remote


async def measure(seconds: float, replicas: int) -> None:
    """Measure and print."""
    settings = LedgerSettings().to_mapping()
    for callers in (1, 16, 64, 256):
        alone, _, _ = await rate(Ledger(settings), callers, seconds, replicas)
        actor = ray.remote(max_concurrency=1000)(Timed).remote(settings)
        ledger = Remote(actor)
        before = await ledger.cpu_s()
        found, messages, median_ms = await rate(ledger, callers, seconds, replicas)
        cost_s = (await ledger.cpu_s() - before) / (found * seconds)
        print(
            f"{callers:>3} requests out: in this process {alone:,.0f} requests/s; actor {found:,.0f} (ratio "
            f"{found / alone:.3f}), {messages:,.0f} messages/s, a decision {median_ms:.1f} ms, "
            f"{1e6 * cost_s:,.0f} us of the actor's time for a request: {1 / cost_s:,.0f} on a core of its own",
            flush=True,
        )
        ray.kill(actor)


def main() -> None:
    """Start Ray, measure, and stop it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--replicas", type=int, default=16)
    given = parser.parse_args()
    ray.init("local", object_store_memory=100 << 20, include_dashboard=False, log_to_driver=False)
    try:
        asyncio.run(measure(given.seconds, given.replicas))
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
