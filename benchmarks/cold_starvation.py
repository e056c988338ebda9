"""Requests without a cached prefix beside hot ones that keep arriving: LPM against DLPM with bounded wait.

    python benchmarks/cold_starvation.py

After a report of SGLang's users (sgl-project/sglang issue 31954): prompts with hot prefixes keep arriving, 5 % of
all requests have a prompt that nobody has sent before, and under LPM those wait until the hot ones let up: the
reporter saw three quarters of all time to first token in that 5 %. Here each of 8 clients keeps 12 hot requests
outstanding at the virtual engine (Llama-3.1-8B on an A10G, 32 at once), and with every 19th of them a cold one
arrives. Hot prompts have 1,024 tokens and begin with one of 16 prefixes of 896; cold ones have 1,024 of their own.
Virtual time: the figures are the same on every machine.
"""

from __future__ import annotations

import argparse
import random
from collections import deque

from attrs import frozen

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.ledger import Ledger
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.sim.engine import EngineConfig, Job, VirtualEngine
from fairprefix.sim.kvcache import KVCache
from fairprefix.sim.metrics import NS_PER_S, hit_rate, percentile
from fairprefix.sim.record import RunRecord
from fairprefix.sim.steptime import step_time_model
from fairprefix.sim.trace import TraceRequest

BLOCK = 16
PROMPT = 1024
SHARED_BLOCKS = 896 // BLOCK
PREFIXES = 16
CLIENTS = 8
OUTPUT = 64
OUTSTANDING = 12
HOT_PER_COLD = 19


@frozen
class Outcome:
    """What one policy did."""

    cold: int
    cold_p99: float
    """p99 of the time to first token, in seconds."""
    cold_mean: float
    hot_p99: float
    cold_share: float
    """Share of the cold requests in all time to first token."""
    hit_rate: float


class Load:
    """Makes the requests of a client, one after the other, in the same order under every policy."""

    def __init__(self, client: str, seed: int) -> None:
        self._client = client
        self._random = random.Random(seed)  # noqa: S311 (no secret)
        self._seed = seed
        self._made = 0

    def next(self, now_ns: int) -> list[TraceRequest]:
        """Return the next hot request, and every 19th time a cold one as well."""
        self._made += 1
        hot = 10**6 * (1 + self._random.randrange(PREFIXES))
        found = [self._request(now_ns, [hot + place for place in range(SHARED_BLOCKS)])]
        if self._made % HOT_PER_COLD == 0:
            found.append(self._request(now_ns, []))
        return found

    def _request(self, now_ns: int, shared: list[int]) -> TraceRequest:
        start = self._random.getrandbits(50) << 10
        own = [10**9 + start + place for place in range(PROMPT // BLOCK - len(shared))]
        return TraceRequest(now_ns, self._client, PROMPT, OUTPUT, OUTPUT, (*shared, *own))


class ClosedLoop:
    """Sends a client's next request when one of its hot ones is done, until so many have been sent."""

    def __init__(self, config: PolicyConfig, hot: int) -> None:
        step_time = step_time_model("llama-3.1-8b", "a10g")
        engine = EngineConfig(kv_tokens=step_time.kv_tokens, max_batch=32, reservation="none")
        cache = KVCache(engine.kv_tokens, PrefixIndex(BLOCK))
        self.record = RunRecord(Ledger(config.cost, config.weights, config.default_weight))
        self._engine = VirtualEngine(engine, step_time, cache, make_policy(config, cache.index), self.record)
        self._left = hot
        self._seen = 0
        self._arrivals: deque[tuple[int, TraceRequest]] = deque()
        self._number = 0
        self._loads = {f"c{n}": Load(f"c{n}", n) for n in range(CLIENTS)}

    def serve(self) -> None:
        """Serve everything."""
        engine = self._engine
        for load in self._loads.values():
            for _ in range(OUTSTANDING):
                self._send(load)
        while self._arrivals or engine.has_work():
            engine.deliver(self._arrivals)
            if not engine.begin():
                raise engine.stalled()
            engine.complete()
            self._answer()

    def _answer(self) -> None:
        """Let the clients of what is done send again."""
        for job in self.record.finished_jobs[self._seen :]:
            self._seen += 1
            if self._left and not is_cold(job):
                self._left -= 1
                self._send(self._loads[job.request.client])

    def _send(self, load: Load) -> None:
        for request in load.next(self._engine.clock_ns):
            self._arrivals.append((self._number, request))
            self._number += 1


def is_cold(job: Job) -> bool:
    """Return whether a request began with no hot prefix."""
    first = job.request.blocks[0]
    return isinstance(first, int) and first >= 10**9


def run(config: PolicyConfig, hot: int) -> Outcome:
    """Serve so many hot requests, and the cold ones, under one policy."""
    engine = ClosedLoop(config, hot)
    engine.serve()
    jobs = engine.record.finished_jobs
    waits = [(is_cold(job), (job.first_token_ns - job.trace.arrival_ns) / NS_PER_S) for job in jobs]
    cold, warm = (sorted(wait for found, wait in waits if found is wanted) for wanted in (True, False))
    return Outcome(
        len(cold),
        percentile(cold, 0.99),
        sum(cold) / len(cold),
        percentile(warm, 0.99),
        sum(cold) / (sum(cold) + sum(warm)),
        hit_rate(jobs),
    )


def main() -> None:
    """Print both outcomes, the ratio of the cold requests' p99 and the difference of the hit rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hot", type=int, default=4000, help="hot requests in all")
    parser.add_argument("--wait", type=int, default=8, help="DLPM's bounded_wait")
    args = parser.parse_args()
    configs = {
        "lpm": PolicyConfig(policy="lpm", reservation="none"),
        "dlpm": PolicyConfig(gate="credit", reservation="none", bounded_wait=args.wait),
    }
    outcomes = {name: run(config, args.hot) for name, config in configs.items()}
    print("policy  cold  TTFT p99 s  mean s  hot TTFT p99 s  cold share of TTFT  hit rate")
    for name, got in outcomes.items():
        print(
            f"{name:6}  {got.cold:4} {got.cold_p99:11.2f} {got.cold_mean:7.2f} {got.hot_p99:15.2f} "
            f"{got.cold_share:19.1%} {got.hit_rate:9.3f}"
        )
    lpm, dlpm = outcomes["lpm"], outcomes["dlpm"]
    print(
        f"cold p99 {lpm.cold_p99 / dlpm.cold_p99:.1f}x lower, "
        f"hit rate {100 * (dlpm.hit_rate - lpm.hit_rate):+.1f} points"
    )


if __name__ == "__main__":
    main()
