"""What one ledger actor of Ray can take: questions a second, and how long one takes, by callers.

    .venv-ray/bin/python benchmarks/ray_ledger.py [--seconds 4]

The same questions are put to the ledger in this process first: the difference is Ray's.
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
from fairprefix.adapters.ray.settings import LedgerSettings

REPLICAS = [f"r{number}" for number in range(64)]
Ask = Callable[..., Awaitable[Any]]


async def rate(hello: Ask, exchange: Ask, tell: Ask, callers: int, seconds: float) -> tuple[float, float]:
    """Return questions per second, and the median time of one in ms; each is settled as a replica would."""
    keys = [RouteKey.of(f"c{n % 50}", range(n, n + 2048), max_output=64) for n in range(200)]
    epoch = await hello("router", REPLICAS, [], None)
    number = itertools.count()
    times: list[float] = []
    until = time.perf_counter() + seconds

    async def caller() -> None:
        while (began := time.perf_counter()) < until:
            id = next(number)
            asked: tuple[str, RouteKey, list[str]] = (str(id), keys[id % len(keys)], [])
            _, worker = await exchange(epoch, "router", [], asked)
            times.append(time.perf_counter() - began)
            await tell(worker, [(str(id), 100, 10)], None)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return len(times) / seconds, 1e3 * statistics.median(times)


async def measure(seconds: float) -> None:
    """Measure and print."""
    settings = LedgerSettings().to_mapping()
    here = Ledger(settings)
    alone, _ = await rate(here.hello, here.exchange, here.replica, 1, seconds)
    print(f"in this process: {alone:,.0f} requests/s (a question and a report each)")
    for callers in (1, 16, 64):
        actor = ray.remote(max_concurrency=1000)(Ledger).remote(settings)
        remote = (actor.hello.remote, actor.exchange.remote, actor.replica.remote)
        found, median_ms = await rate(*remote, callers, seconds)
        print(
            f"actor, {callers:>3} callers: {found:,.0f} requests/s, {median_ms:.2f} ms; ratio {found / alone:.3f}"
        )
        ray.kill(actor)


def main() -> None:
    """Start Ray, measure, and stop it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0)
    given = parser.parse_args()
    ray.init("local", object_store_memory=100 << 20, include_dashboard=False, log_to_driver=False)
    try:
        asyncio.run(measure(given.seconds))
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
