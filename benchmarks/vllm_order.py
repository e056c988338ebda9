"""Where the order of admission matters to vLLM's prefix cache, and where it does not.

    make test-vllm                                        # makes the environment
    .venv-vllm/bin/python benchmarks/vllm_order.py

vLLM's real scheduler and cache, without a model: 320 requests of 8 clients arrive in random order; each client has
two groups of requests that share a prefix of 64 blocks, 1024 blocks in all. The KV cache holds less than that, a
little more, or plenty. Printed are hit rates (prompt tokens found cached at first admission), and prompt tokens
that had to be computed, as a share of those of vLLM's own order.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

os.environ |= {"VLLM_TARGET_DEVICE": "cpu", "VLLM_LOGGING_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).parents[1]))

from fairprefix.adapters.vllm import FairScheduler
from tests.vllm import rig

GROUPS, REQUESTS, PREFIX = 16, 20, 64
KV_BLOCKS = (700, 1300, 4000)
POLICIES: dict[str, dict[str, object] | None] = {
    "vLLM": None,
    "fcfs": {"policy": "fcfs"},
    "vtc": {"policy": "vtc"},
    "lpm": {"policy": "lpm"},
    "dlpm": {"policy": "dlpm", "quantum": 2048},
    "dlpm, quantum 256": {"policy": "dlpm", "quantum": 256},
}


def run(blocks: int, policy: dict[str, object] | None, seed: int = 3) -> tuple[int, int]:
    """Serve the workload; return its prompt tokens, and those that were found cached."""
    draw = random.Random(seed)  # noqa: S311 (to be repeatable is the point)
    config = rig.settings(seats=6, budget=2048, blocks=blocks, fairprefix=policy)
    scheduler = rig.make_scheduler(rig.stock(config) if policy is None else FairScheduler, config)
    runner = rig.Runner(scheduler)
    prefixes = [[draw.randrange(3, 1000) for _ in range(PREFIX * rig.BLOCK)] for _ in range(GROUPS)]
    arrivals = [group for group in range(GROUPS) for _ in range(REQUESTS)]
    draw.shuffle(arrivals)
    tokens = 0
    for number, group in enumerate(arrivals):
        prompt = prefixes[group] + [draw.randrange(3, 1000) for _ in range(48)]
        tokens += len(prompt)
        scheduler.add_request(rig.make_request(f"r{number}", prompt, 16, f"client {group // 2}"))
    runner.run()
    return tokens, sum(runner.first_cached.values())


def main() -> None:
    """Print the table."""
    print("hit rate, and computed prompt tokens as a share of vLLM's own order\n")
    print(f"{'KV blocks':<20}" + "".join(f"{blocks:>16}" for blocks in KV_BLOCKS))
    computed_by_vllm: dict[int, int] = {}
    for name, policy in POLICIES.items():
        cells = []
        for blocks in KV_BLOCKS:
            tokens, cached = run(blocks, policy)
            stock = computed_by_vllm.setdefault(blocks, tokens - cached)
            cells.append(f"{cached / tokens:>9.3f} {(tokens - cached) / stock:>6.2f}")
        print(f"{name:<20}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
