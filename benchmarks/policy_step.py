"""Time of the policy and the prefix index in a serving step, by queue length.

    python benchmarks/policy_step.py

Steady state: N requests wait (prompts of 512 to 4,096 tokens in blocks of 16, hashes packed as `chain_hashes`
returns them; a prefix of 256 tokens that all share, and one for each client, are in use and so stay cached);
each step charges 256 output tokens, finishes 8 requests, admits 8, reports what became cached and what was
evicted, and then 8 new requests arrive, which is timed apart. Process time, medians over the steps (least: what
a tenth of them stay below); the ratio compares each queue length with the shortest of this run.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
from array import array
from collections import deque

from attrs import frozen

from fairprefix import PolicyConfig, PrefixIndex, Request, make_policy

BLOCK = 16
BATCH = 8
RUNNING = 256
CACHED_BLOCKS = 32_000


@frozen
class Timing:
    """Microseconds of process time."""

    step: float
    step_least: float
    """What a tenth of the steps stay below: it hardly depends on who else wants the processor."""
    step_p99: float
    arrival: float


class Load:
    """Makes requests whose prompts share a prefix with all others, and a longer one with those of their client."""

    def __init__(self, clients: int, seed: int = 0) -> None:
        self._random = random.Random(seed)  # noqa: S311 (no secret)
        self._made = 0
        shared = tuple(range(16))
        self.prefixes = [
            shared + tuple(10**6 * (client + 1) + place for place in range(self._random.randint(8, 32)))
            for client in range(clients)
        ]

    def request(self) -> Request:
        """Return a new request."""
        self._made += 1
        client = self._random.randrange(len(self.prefixes))
        tokens = self._random.randint(512, 4096)
        prefix = self.prefixes[client][: tokens // BLOCK]
        own = tuple(10**12 + 1000 * self._made + place for place in range(tokens // BLOCK - len(prefix)))
        return Request(f"r{self._made}", f"c{client}", tokens, 256, array("Q", prefix + own))


class Host:
    """Just enough of an engine: a running batch, and a cache that evicts whole tails of prompts, oldest first."""

    def __init__(self, policy_name: str, load: Load, *, single_blocks: bool = False) -> None:
        self._single_blocks = single_blocks
        self._index = PrefixIndex(BLOCK)
        self.policy = make_policy(PolicyConfig(policy=policy_name, bounded_wait=8), self._index)
        self._cached: deque[tuple[Request, int]] = deque()
        self._running: deque[Request] = deque()
        self._tokens: dict[str, int] = {}
        self._blocks = 0
        self._prefix_of = {f"c{client}": prefix for client, prefix in enumerate(load.prefixes)}
        for prefix in load.prefixes:
            self._index.cached(prefix)

    def step(self) -> None:
        """Charge a token of each running request, finish some, admit as many."""
        self.policy.produced(self._tokens)
        for _ in range(BATCH):
            self._finish()
        self.policy.begin_pass()
        for _ in range(BATCH):
            self.admit()

    def admit(self) -> None:
        """Admit whom the policy offers; evict what no longer fits."""
        request = self.policy.peek()
        assert request is not None
        # What an engine's own cache tells it: the prefixes are cached, and what follows them is nobody else's.
        matched = min(len(self._prefix_of[request.client]), len(request.blocks))
        self.policy.take(request.id, extend=max(request.input_tokens - matched * BLOCK, 1), reserve=256)
        if self._single_blocks:
            for place in range(matched, len(request.blocks)):
                self._index.cached(request.blocks, start=place, end=place + 1)
        else:
            self._index.cached(request.blocks, start=matched)
        self._cached.append((request, matched))
        self._blocks += len(request.blocks) - matched
        self._running.append(request)
        self._tokens[request.client] = self._tokens.get(request.client, 0) + 1
        while self._blocks > CACHED_BLOCKS:
            oldest, start = self._cached.popleft()
            if self._single_blocks:
                for place in range(len(oldest.blocks) - 1, start - 1, -1):
                    self._index.evicted(oldest.blocks, start=place, end=place + 1)
            else:
                self._index.evicted(oldest.blocks, start=start)
            self._blocks -= len(oldest.blocks) - start

    def _finish(self) -> None:
        request = self._running.popleft()
        self.policy.finish(request.id, output=1)
        self._tokens[request.client] -= 1
        if not self._tokens[request.client]:
            del self._tokens[request.client]


def measure(policy_name: str, waiting: int, clients: int, steps: int, *, single_blocks: bool = False) -> Timing:
    """Run a steady state and return its medians."""
    load = Load(clients)
    host = Host(policy_name, load, single_blocks=single_blocks)
    for _ in range(waiting + RUNNING):
        host.policy.arrive(load.request())
    for _ in range(RUNNING):
        host.admit()
    gc.freeze()
    step_ns: list[int] = []
    arrival_ns: list[int] = []
    for _ in range(steps):
        arrivals = [load.request() for _ in range(BATCH)]
        begin = time.process_time_ns()
        host.step()
        middle = time.process_time_ns()
        for request in arrivals:
            host.policy.arrive(request)
        arrival_ns.append((time.process_time_ns() - middle) // BATCH)
        step_ns.append(middle - begin)
    step_ns.sort()
    return Timing(
        statistics.median(step_ns) / 1000,
        step_ns[len(step_ns) // 10] / 1000,
        step_ns[int(0.99 * len(step_ns))] / 1000,
        statistics.median(arrival_ns) / 1000,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--policies", default="dlpm,lpm,vtc")
    parser.add_argument("--waiting", default="100,1000,10000,100000")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument(
        "--single-blocks", action="store_true", help="report block by block: some 1,700 reports a step"
    )
    args = parser.parse_args()
    print(f"{'policy':8}{'waiting':>9}{'step us':>9}{'least us':>10}{'p99 us':>9}{'arrival us':>12}{'ratio':>7}")
    for policy in args.policies.split(","):
        first: float | None = None
        for waiting in map(int, args.waiting.split(",")):
            timing = measure(policy, waiting, args.clients, args.steps, single_blocks=args.single_blocks)
            first = first or timing.step
            print(
                f"{policy:8}{waiting:9,}{timing.step:9.0f}{timing.step_least:10.0f}{timing.step_p99:9.0f}"
                f"{timing.arrival:12.1f}{timing.step / first:7.2f}"
            )


if __name__ == "__main__":
    main()
