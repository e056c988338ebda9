"""What happens from 1 to 1,000 workers with 10,000 clients: cost of a decision, gap and bound, cache, messages.

    python benchmarks/scale.py [--quick] [--workers 1,8,64]

The simulator runs the same kind of load on every fleet: requests per worker and second stay as they are, more than
the workers can serve, so that clients do wait. Decisions are timed in the run (process time, median); everything
else is virtual and reproducible. The second table is about the one thing that all routers share, the ledger: how
many messages a second it gets, and how many it could decide about if it did nothing but decide.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Collection
from typing import Any

from fairprefix import Request, RouterConfig, make_router
from fairprefix.core.config import PolicyConfig
from fairprefix.core.d2lpm import D2LPM
from fairprefix.core.routing import Choice, WorkerName
from fairprefix.core.shared_ledger import SharedLedger
from fairprefix.sim import fleet as simulator
from fairprefix.sim.engine import EngineConfig
from fairprefix.sim.fleet import Fleet, WorkerSpec, simulate_fleet
from fairprefix.sim.steptime import step_time_model
from fairprefix.sim.trace import Trace, TraceRequest

CLIENTS = 10_000
FLEETS = (1, 8, 64, 512, 1000)
BLOCK = 16
PREFIX, OWN, OUTPUT = 512, 64, 32
PER_WORKER_S = 10.0
"""Requests per worker and second; how many there are is the same for every fleet."""
REQUESTS = 12_000
WORKERS_PER_ROUTER = 32
QUANTUM, ROUTER_QUANTUM = 2048, 20_000


def make_trace(workers: int, scale: int, seed: int = 0) -> Trace:
    """Return requests of 10,000 clients: the n-th most eager one sends as 1/n, each with a prefix of its own."""
    rng = random.Random(seed)  # noqa: S311 (a workload)
    count = REQUESTS // scale
    weights = [1 / (rank + 10) for rank in range(CLIENTS)]
    gap_ns = int(1e9 / (PER_WORKER_S * workers))
    requests = []
    for number, client in enumerate(rng.choices(range(CLIENTS), weights, k=count)):
        prefix = tuple(client << 32 | place for place in range(PREFIX // BLOCK))
        own = tuple(1 << 62 | number << 16 | place for place in range(OWN // BLOCK))
        requests.append(TraceRequest(number * gap_ns, f"c{client}", PREFIX + OWN, OUTPUT, OUTPUT, prefix + own))
    return Trace(f"{workers} workers", tuple(requests), BLOCK, has_clients=True)


class Timed(D2LPM):
    """The dispatcher, with a clock."""

    times: list[float] = []  # noqa: RUF012 (one run at a time)

    def pick(self, request: Request, *, now: int = 0, avoid: Collection[WorkerName] = ()) -> Choice | None:
        """Time a decision."""
        began = time.process_time()
        found = super().pick(request, now=now, avoid=avoid)
        self.times.append(time.process_time() - began)
        return found


def timed_router(config: RouterConfig) -> Any:  # noqa: ANN401 (a router)
    """Return the timed dispatcher, or any other router as it is."""
    return Timed(config) if config.router == "d2lpm" else make_router(config)


def run(workers: int, arrangement: str, scale: int) -> dict[str, Any]:
    """Simulate a fleet; return its figures."""
    step_time = step_time_model("llama-3.1-8b", "a10g")
    spec = WorkerSpec(EngineConfig(kv_tokens=step_time.kv_tokens, max_batch=32), step_time)
    policy = PolicyConfig(policy="dlpm", quantum=QUANTUM)
    fleet = Fleet(
        workers=(spec,) * workers,
        arrangement=arrangement,
        router=RouterConfig(quantum=ROUTER_QUANTUM, output_charge="average"),
    )
    Timed.times = []
    began = time.process_time()
    result = simulate_fleet(make_trace(workers, scale), policy, fleet)
    return result.figures | {
        "cpu_s": time.process_time() - began,
        "pick_us": 1e6 * statistics.median(Timed.times) if Timed.times else None,
        "p99_us": 1e6 * sorted(Timed.times)[int(0.99 * len(Timed.times))] if Timed.times else None,
    }


def messages(workers: int, requests_s: float) -> tuple[float, float, float]:
    """Return messages a second to a ledger: questions, and what routers and workers tell it in batches.

    With the batches that `fairprefix.adapters.ray` makes: a router's news at most 50 times a second, a worker's
    finished requests at most 20 times, its counters twice.
    """
    routers = -(-workers // WORKERS_PER_ROUTER)
    each = requests_s / workers
    return requests_s, routers * min(50.0, requests_s / routers), workers * (min(20.0, each) + 2)


def count_reports() -> list[int]:
    """Count the reports to shared ledgers from now on."""
    counted = [0]
    report = SharedLedger.report

    def counting(self: SharedLedger, worker: WorkerName) -> None:
        counted[0] += 1
        report(self, worker)

    SharedLedger.report = counting  # type: ignore[method-assign]
    return counted


def main() -> None:
    """Simulate everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the requests")
    parser.add_argument("--workers", default=",".join(map(str, FLEETS)), help="sizes of the fleets")
    parser.add_argument("--late", type=int, default=8, help="largest fleet that is tried with a shared ledger too")
    given = parser.parse_args()
    scale = 10 if given.quick else 1
    simulator.make_router = timed_router  # type: ignore[assignment, attr-defined]
    reports = count_reports()
    print(f"D2LPM and DLPM, {CLIENTS:,} clients, {PREFIX + OWN} tokens in, {OUTPUT} out, quantum {QUANTUM:,}")
    print(
        f"{'workers':>8} {'requests':>9} {'pick us':>8} {'p99 us':>7} {'gap':>8} {'bound':>10} {'ratio':>6} "
        f"{'others':>7} "
        f"{'missed':>7} {'hit rate':>8} {'of one':>7} {'requests/s':>10} {'cpu s':>6}"
    )
    alone = None
    shared = []
    for workers in map(int, given.workers.split(",")):
        got = run(workers, "d2lpm", scale)
        alone = alone or got["prefix_hit_rate"]
        print(
            f"{workers:>8,} {got['completed']:>9,} {got['pick_us']:>8.1f} {got['p99_us']:>7.1f} "
            f"{got['charged_gap']:>8,.0f} {got['bound']:>10,} {got['charged_gap'] / got['bound']:>6.3f} "
            f"{got['max_gap_others_at_most']:>7,.0f} "
            f"{got['missed_refills']:>7,} {got['prefix_hit_rate']:>8.3f} {got['prefix_hit_rate'] / alone:>7.2f} "
            f"{got['request_throughput']:>10,.1f} {got['cpu_s']:>6.0f}",
            flush=True,
        )
        shared.append((workers, *messages(workers, got["request_throughput"]), got["pick_us"]))
    print(
        f"\nthe ledger of all dispatchers, one of them for {WORKERS_PER_ROUTER} workers: messages a second, and "
        "the share of a core that decisions take"
    )
    print(
        f"{'workers':>8} {'questions':>9} {'of routers':>10} {'of workers':>10} {'together':>9} {'decisions':>9}"
    )
    for workers, asked, routers, told, pick_us in shared:
        counts = (asked, routers, told, asked + routers + told)
        print(f"{workers:>8,} " + " ".join(f"{n:>10,.0f}" for n in counts) + f" {asked * pick_us / 1e6:>10.3f}")
    print("\none deficit per client for all workers, late binding, charges settled every 100 ms")
    for workers in map(int, given.workers.split(",")):
        if workers <= given.late:
            reports[0] = 0
            got = run(workers, "shared_ledger", scale)
            seconds = got["completed"] / got["request_throughput"]
            print(
                f"{workers:>8,} workers: {reports[0] / seconds:,.1f} reports/s, gap {got['charged_gap']:,.0f}, "
                f"bound {got['bound']:,}, unsettled {got['unsettled']:,}, hit rate {got['prefix_hit_rate']:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
