"""What happens from 1 to 1,000 workers with 10,000 clients: cost of a decision, gap and bound, cache, messages.

    python benchmarks/scale.py [--requests 1200] [--workers 1,8,64] [--write docs/scale.md]

The simulator runs the same kind of load on every fleet: requests per worker and second stay as they are, more than
the workers can serve, so that clients do wait. Decisions are timed in the run (process time, median); everything
else is virtual and reproducible. The last table is about the one thing that all routers share, the ledger: how
many messages a second it gets, and the share of a core that its decisions take.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
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
"""Requests per worker and second."""
REQUESTS, REQUESTS_EACH, LATE_REQUESTS = 12_000, 60, 1200
"""How many there are: so many, but no fewer than 60 for each worker; and where one ledger decides late."""
WORKERS_PER_ROUTER = 32
QUANTUM, ROUTER_QUANTUM = 2048, 20_000


def make_trace(workers: int, count: int, seed: int = 0) -> Trace:
    """Return requests of 10,000 clients: the n-th most eager one sends as 1/n, each with a prefix of its own."""
    rng = random.Random(seed)  # noqa: S311 (a workload)
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


def run(workers: int, arrangement: str, count: int) -> dict[str, Any]:
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
    result = simulate_fleet(make_trace(workers, count), policy, fleet)
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


def header(columns: Sequence[str]) -> list[str]:
    """Return the first two lines of a table of numbers."""
    return [f"| {' | '.join(columns)} |", "|" + "---:|" * len(columns)]


def fleets(sizes: Sequence[int], requests: int | None) -> tuple[list[str], list[str]]:
    """Simulate each fleet; return the rows of what was decided and promised, and of what a ledger hears."""
    alone = None
    columns = ("workers", "requests", "pick, median (p99)", "gap", "bound", "others at most", "missed refills",
               "hit rate", "of one", "served/s")  # fmt: skip
    rows = header(columns)
    heard = header(
        ("workers", "questions/s", "news of routers", "of workers", "together", "core used by decisions")
    )
    for workers in sizes:
        got = run(workers, "d2lpm", requests or max(REQUESTS, REQUESTS_EACH * workers))
        alone = alone or got["prefix_hit_rate"]
        served = got["request_throughput"]
        rows.append(
            f"| {workers:,} | {got['completed']:,} | {got['pick_us']:.0f} µs ({got['p99_us']:.0f}) "
            f"| {got['charged_gap']:,.0f} | {got['bound']:,} | {got['max_gap_others_at_most']:,.0f} "
            f"| {got['missed_refills']:,} | {got['prefix_hit_rate']:.3f} | {got['prefix_hit_rate'] / alone:.2f} "
            f"| {served:,.0f} |"
        )
        counts = messages(workers, served)
        told = " | ".join(f"{count:,.0f}" for count in (*counts, sum(counts)))
        heard.append(f"| {workers:,} | {told} | {served * got['pick_us'] / 1e6:.3f} |")
        print(rows[-1], f"{got['cpu_s']:.0f} s", flush=True)
    return rows, heard


def one_deficit(sizes: Sequence[int]) -> list[str]:
    """Simulate small fleets with one deficit per client for all workers; return the rows."""
    reports = count_reports()
    rows = header(("workers", "gap", "bound", "unsettled", "reports/s", "hit rate"))
    for workers in sizes:
        reports[0] = 0
        got = run(workers, "shared_ledger", LATE_REQUESTS)
        seconds = got["completed"] / got["request_throughput"]
        rows.append(
            f"| {workers:,} | {got['charged_gap']:,.0f} | {got['bound']:,} | {got['unsettled']:,} "
            f"| {reports[0] / seconds:,.1f} | {got['prefix_hit_rate']:.3f} |"
        )
        print(rows[-1], flush=True)
    return rows


def rewrite(page: Path, tables: Mapping[str, Sequence[str]]) -> None:
    """Put tables into a page, each between the comments that have its name."""
    text = page.read_text(encoding="utf-8")
    for name, rows in tables.items():
        before, begin, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->\n")
        if not (begin and end):
            raise SystemExit(f"{page} has no place for the table {name!r}")
        text = "".join((before, begin, "\n", "\n".join(rows), "\n\n", end, after))
    page.write_text(text, encoding="utf-8")


def main() -> None:
    """Simulate everything and print it; with --write, into the page as well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=None, help="for each fleet")
    parser.add_argument("--workers", default=",".join(map(str, FLEETS)), help="sizes of the fleets")
    parser.add_argument("--late", type=int, default=8, help="largest fleet that is tried with a shared ledger too")
    parser.add_argument("--write", type=Path, default=None, help="the page whose tables are to be replaced")
    given = parser.parse_args()
    simulator.make_router = timed_router  # type: ignore[assignment, attr-defined]
    sizes = [int(size) for size in given.workers.split(",")]
    rows, heard = fleets(sizes, given.requests)
    late = one_deficit([size for size in sizes if size <= given.late])
    print("\n".join(["", *heard]))
    if given.write is not None:
        rewrite(given.write, {"fleets": rows, "one deficit": late, "messages": heard})


if __name__ == "__main__":
    main()
