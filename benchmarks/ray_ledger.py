"""What one ledger actor of Ray can take: messages a second, how long one takes, and what it costs the actor.

    .venv-ray/bin/python benchmarks/ray_ledger.py [--seconds 4]

Each request is two messages, a question and a report. They are put to the ledger in this process first: the
difference is Ray's. Callers and actor share this machine; the processor time that the actor itself used says how
much it could take on a core of its own.
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


class Timed(Ledger):
    """The ledger, which says how much processor time its process has used."""

    async def cpu_s(self) -> float:
        """Return it, all threads together."""
        return time.process_time()


async def rate(hello: Ask, exchange: Ask, tell: Ask, callers: int, seconds: float) -> tuple[float, float]:
    """Return requests per second, and the median time of a question in ms; each is settled as a replica would."""
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
    print(f"in this process: {alone:,.0f} requests/s, {2 * alone:,.0f} messages/s, {1e6 / alone:.0f} us a request")
    for callers in (1, 16, 64):
        actor = ray.remote(max_concurrency=1000)(Timed).remote(settings)
        remote = (actor.hello.remote, actor.exchange.remote, actor.replica.remote)
        before = await actor.cpu_s.remote()
        found, median_ms = await rate(*remote, callers, seconds)
        cost_s = (await actor.cpu_s.remote() - before) / (found * seconds)
        print(
            f"actor, {callers:>3} callers: {found:,.0f} requests/s, {2 * found:,.0f} messages/s, a question "
            f"{median_ms:.2f} ms; ratio {found / alone:.3f}; {1e6 * cost_s:.0f} us of the actor's time a request: "
            f"{1 / cost_s:,.0f} requests/s on a core of its own",
            flush=True,
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
