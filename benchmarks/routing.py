"""What a routing decision costs: by router, number of workers and cached blocks; and what the index weighs.

    python benchmarks/routing.py [--quick]

Times are medians of process time, in microseconds. A decision is a `pick`: match, choice, charge, and entering the
prompt into the index, which makes room for it where the worker's cache is full. Hashing is measured apart.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial

from fairprefix import Request, RouterConfig, chain_hashes, make_router
from fairprefix.core.router_base import BaseRouter
from fairprefix.core.router_config import ROUTERS
from fairprefix.core.run_index import ApproximateIndex

BLOCK = 16
PROMPT = 2048
SHARED, FAMILIES = 16, 200
"""Blocks that all prompts of a family begin with, and how many families there are."""
CLIENTS = 20
DECISIONS = 3000


def prompts(seed: int) -> Iterator[Request]:
    """Yield requests of 2048 tokens: a beginning that its family shares, and an end of its own."""
    rng = random.Random(seed)  # noqa: S311 (a workload)
    families = [tuple(rng.getrandbits(64) for _ in range(SHARED)) for _ in range(FAMILIES)]
    number = 0
    while True:
        number += 1
        own = tuple(rng.getrandbits(64) for _ in range(PROMPT // BLOCK - SHARED))
        yield Request(str(number), f"c{rng.randrange(CLIENTS)}", PROMPT, 256, rng.choice(families) + own)


def median_us(calls: list[float]) -> float:
    """Return the median in microseconds."""
    return statistics.median(calls) * 1e6


def filled(name: str, workers: int, blocks: int) -> tuple[BaseRouter, Iterator[Request]]:
    """Return a router whose index holds `blocks` blocks, and the requests that follow."""
    router = make_router(RouterConfig(router=name, block_size=BLOCK, quantum=40_000))
    for number in range(workers):
        router.worker_joined(f"w{number}", blocks=max(blocks // workers, 1))
    stream = prompts(workers)
    for number in range(int(1.3 * blocks) // (PROMPT // BLOCK - SHARED)):
        router.index.sent(number % workers, next(stream).blocks)
    return router, stream


def decisions(name: str, workers: int, blocks: int, count: int) -> tuple[float, float, int]:
    """Return median and 99th percentile of a decision in microseconds, and the blocks in the index."""
    router, stream = filled(name, workers, blocks)
    out: list[str] = []
    times = []
    gc.collect()
    gc.disable()
    for number in range(count):
        request = next(stream)
        begin = time.process_time()
        router.pick(request, now=10**9 + number * 10**7)
        times.append(time.process_time() - begin)
        out.append(request.id)
        if len(out) > 4 * workers:
            router.settle(out.pop(0), output=100)
    gc.enable()
    held = sum(router.index.blocks_of(worker.slot) for worker in router.workers)
    return median_us(times), sorted(times)[int(0.99 * len(times))] * 1e6, held


def index_bytes(workers: int, blocks: int) -> float:
    """Return bytes per cached block: the index alone, its hashes included."""
    rng = random.Random(0)  # noqa: S311 (a workload)
    gc.collect()
    tracemalloc.start()
    index = ApproximateIndex()
    for slot in range(workers):
        index.open(slot, blocks // workers)
    length = PROMPT // BLOCK
    for number in range(int(1.5 * blocks) // length):
        index.sent(number % workers, tuple(rng.getrandbits(64) for _ in range(length)))
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size / sum(index.blocks_of(slot) for slot in range(workers))


def counters_bytes(clients: int, workers: int) -> float:
    """Return bytes per client of D2LPM's counters, each client having sent two requests."""
    router = make_router(RouterConfig(max_clients=clients, index="exact"))
    for number in range(workers):
        router.worker_joined(f"w{number}")
    gc.collect()
    tracemalloc.start()
    for number in range(2 * clients):
        request = Request(str(number), f"c{number % clients}", 100, 10)
        router.pick(request)
        router.settle(request.id, output=5)
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size / clients


def hashing_us(of: Callable[[], object], count: int = 200) -> float:
    """Return the median time of hashing a prompt."""
    times = []
    for _ in range(count):
        begin = time.process_time()
        of()
        times.append(time.process_time() - begin)
    return median_us(times)


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the blocks and decisions")
    scale = 10 if parser.parse_args().quick else 1
    blocks, count = 1_000_000 // scale, DECISIONS // scale
    print(f"decisions on prompts of {PROMPT} tokens ({PROMPT // BLOCK} blocks), {blocks:,} cached blocks, us")
    print(f"{'router':16} {'workers':>8} {'median':>8} {'p99':>8}")
    for workers in (64, 1000):
        for name in ROUTERS:
            # Preble's cost grows with workers times evictions: fewer of its decisions are enough.
            median, p99, _held = decisions(name, workers, blocks, count // 10 if name == "preble" else count)
            target = {64: 60, 1000: 250}[workers] if name == "d2lpm" else None
            note = f"   target {target}: {median / target:.2f} of it" if target else ""
            print(f"{name:16} {workers:>8,} {median:>8.1f} {p99:>8.1f}{note}", flush=True)
    for workers in (64, 1000):
        size = index_bytes(workers, blocks)
        print(f"index of {workers:,} workers: {size:.0f} bytes per block   target 250: {size / 250:.2f} of it")
    dense = 1000 * 36
    size = counters_bytes(10_000 // scale, 1000)
    print(
        f"D2LPM's counters of 1,000 workers: {size:,.0f} bytes per client; a table: {dense / size:.0f} times that"
    )
    tokens = list(range(PROMPT))
    data = b"".join(token.to_bytes(4, "little") for token in tokens)
    of_list = hashing_us(partial(chain_hashes, tokens, BLOCK))
    of_bytes = hashing_us(partial(chain_hashes, data, BLOCK))
    print(f"hashing a prompt: {of_list:.0f} us from a list, {of_bytes:.0f} us from bytes")


if __name__ == "__main__":
    main()
