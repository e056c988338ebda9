"""Memory of a queue: bytes per waiting request and per cached block, and whether anything grows for ever.

    python benchmarks/memory.py                      # all of it, a few minutes
    python benchmarks/memory.py --cycles 100000      # shorter

Prompts of 2,048 tokens in blocks of 16, half of them shared within each of 20 clients; their hashes are made here
and count. Limits that the project sets itself: 2 KB per waiting request, 120 bytes per cached block, 400 MB for
100,000 waiting requests, no growth over 100,000 life cycles (tracemalloc) or 1,000,000 (resident memory).
"""

from __future__ import annotations

import argparse
import gc
import random
import tracemalloc
from collections import deque
from pathlib import Path

from fairprefix import PolicyConfig, PrefixIndex, Request, chain_hashes, make_policy
from fairprefix.core.base import BasePolicy

BLOCK = 16
TOKENS = 2048
CLIENTS = 20
_PAGE = 4096
_SHORT = 128
_CACHED = 100


class Prompts:
    """Makes requests of a given length."""

    def __init__(self, tokens: int = TOKENS) -> None:
        self._random = random.Random(0)  # noqa: S311 (no secret)
        self._tokens = tokens
        self._prefixes = [self._random.randbytes(2 * tokens) for _ in range(CLIENTS)]
        self.made = 0

    def request(self) -> Request:
        """Return a request whose prompt is new from its middle on."""
        client = self.made % CLIENTS
        self.made += 1
        blocks = chain_hashes(self._prefixes[client] + self._random.randbytes(2 * self._tokens), BLOCK)
        return Request(f"r{self.made}", f"c{client}", self._tokens, 64, blocks)


class Host:
    """A queue; a life cycle is an arrival, an admission, blocks cached and evicted, and the end of the request."""

    def __init__(self, waiting: int, tokens: int = TOKENS) -> None:
        self.prompts = Prompts(tokens)
        self.index = PrefixIndex(BLOCK)
        self.policy: BasePolicy = make_policy(PolicyConfig(bounded_wait=8), self.index)
        self._cached: deque[tuple[Request, int]] = deque()
        for _ in range(waiting):
            self.policy.arrive(self.prompts.request())

    def cycle(self) -> None:
        """Serve one request, and let another one arrive."""
        self.policy.begin_pass()
        request = self.policy.peek()
        assert request is not None
        matched = self.index.matched_blocks(request.blocks)
        self.policy.take(request.id, extend=max(request.input_tokens - matched * BLOCK, 1), reserve=64)
        self.index.cached(request.blocks, start=matched)
        self._cached.append((request, matched))
        if len(self._cached) > _CACHED:
            oldest, start = self._cached.popleft()
            self.index.evicted(oldest.blocks, start=start)
        self.policy.produced({request.client: 64})
        self.policy.finish(request.id, output=64)
        self.policy.arrive(self.prompts.request())


def traced() -> int:
    """Return the bytes that Python objects take now."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def resident() -> int:
    """Return the resident memory of this process in bytes (Linux)."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE


def per_request(waiting: int) -> float:
    """Return bytes per waiting request."""
    tracemalloc.start()
    before = traced()
    host = Host(waiting)
    used = (traced() - before) / waiting
    tracemalloc.stop()
    del host
    return used


def per_block(prompts: int) -> float:
    """Return bytes per cached block, its hash included; nobody waits."""
    made, index = Prompts(), PrefixIndex(BLOCK)
    tracemalloc.start()
    before = traced()
    for _ in range(prompts):
        index.cached(made.request().blocks)
    used = (traced() - before) / index.cached_blocks()
    tracemalloc.stop()
    return used


def growth_traced(cycles: int) -> float:
    """Return bytes of growth per life cycle, between the first tenth and the end."""
    tracemalloc.start()
    host = Host(1000, _SHORT)
    for _ in range(cycles // 10):
        host.cycle()
    before = traced()
    for _ in range(cycles):
        host.cycle()
    grown = (traced() - before) / cycles
    tracemalloc.stop()
    return grown


def growth_resident(cycles: int) -> tuple[float, float]:
    """Return resident megabytes after a tenth of the life cycles, and after all of them."""
    host = Host(1000, _SHORT)
    for _ in range(cycles // 10):
        host.cycle()
    before = resident()
    for _ in range(cycles):
        host.cycle()
    return before / 1e6, resident() / 1e6


def main() -> None:
    """Print the figures beside their limits."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--cycles", type=int, default=1_000_000, help="life cycles for resident memory")
    options = parser.parse_args()
    before = resident()
    host = Host(100_000)
    print(f"100,000 waiting requests: {(resident() - before) / 1e6:.0f} MB resident (limit 400)", flush=True)
    del host
    print(f"per waiting request:      {per_request(20_000):.0f} bytes (limit 2,048)", flush=True)
    print(f"per cached block:         {per_block(2_000):.0f} bytes (limit 120)", flush=True)
    traced_cycles = min(options.cycles, 100_000)
    grown = growth_traced(traced_cycles)
    print(f"growth over {traced_cycles:,} life cycles: {grown:.2f} bytes each (tracemalloc)", flush=True)
    first, last = growth_resident(options.cycles)
    print(f"growth over {options.cycles:,} life cycles: {first:.0f} MB -> {last:.0f} MB (resident)")


if __name__ == "__main__":
    main()
