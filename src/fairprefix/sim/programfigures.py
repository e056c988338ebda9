"""From a run of programs to its figures: service while all clients are active, latencies of those who behave."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from fairprefix.core.ledger import View, jain_index
from fairprefix.core.request import Client
from fairprefix.sim.fleet import FleetRun
from fairprefix.sim.metrics import hit_rate, percentile
from fairprefix.sim.programs import ProgramRecord
from fairprefix.workload import Workload

NS_PER_S = 1_000_000_000
BINS = 60
"""Bins of a timeline."""
Interval = tuple[int, int]
Points = Sequence[tuple[int, int]]


class ProgramTimes(Protocol):
    """What any engine's run of a workload has to tell; times are nanoseconds from its beginning."""

    @property
    def client_view(self) -> Mapping[Client, Points]:
        """Return per client (ns, cumulative service units as the client sees it) after each charge."""
        ...

    @property
    def timeline(self) -> Mapping[Client, Points]:
        """Return the same for actual service: what had to be computed."""
        ...

    @property
    def finished_ns(self) -> Mapping[int, int]:
        """Return when each program that is done was done, by its number."""
        ...

    @property
    def latencies_ns(self) -> Mapping[int, int]:
        """Return what each program that is done is judged by, by its number."""
        ...


def program_figures(workload: Workload, record: ProgramTimes, end: int) -> dict[str, Any]:
    """Return the figures of a run that ended at `end`: times in seconds, service in units."""
    windows = all_active(workload, record, end)
    spent = sum(stop - start for start, stop in windows) / NS_PER_S
    seen = {client: _within(record.client_view.get(client, ()), windows) for client in workload.clients}
    actual = {client: _within(record.timeline.get(client, ()), windows) for client in workload.clients}
    behaved = sorted(
        latency / NS_PER_S
        for number, latency in record.latencies_ns.items()
        if workload.programs[number].client not in workload.greedy
    )
    return {
        "virtual_s": round(end / NS_PER_S, 3),
        "all_active_s": round(spent, 3),
        "service_rate": _rate(sum(seen.values()), spent),
        "actual_rate": _rate(sum(actual.values()), spent),
        "jain": _jain(seen),
        "jain_actual": _jain(actual),
        "p50_s": round(percentile(behaved, 0.5), 3),
        "p99_s": round(percentile(behaved, 0.99), 3),
        "mean_s": round(sum(behaved) / len(behaved), 3) if behaved else None,
        "programs_done": len(record.finished_ns),
        "seen": seen,
        "actual": actual,
        "clients": {client: _of_client(workload, record, client) for client in workload.clients},
        "timeline": _timeline(workload, record, end),
    }


def measure(workload: Workload, run: FleetRun, record: ProgramRecord, *, gaps: bool = False) -> dict[str, Any]:
    """Return the figures of a virtual run, as JSON-serialisable data."""
    figures = program_figures(workload, record, run.cluster.now_ns)
    figures |= {
        "hit_rate": hit_rate(record.finished_jobs),
        "extend_tokens": sum(record.ledger.service(client).extend for client in record.ledger.clients()),
        "output_tokens": sum(record.ledger.service(client).output for client in record.ledger.clients()),
        "requests": len(record.finished_jobs),
        "evicted_blocks": run.evicted_blocks,
    }
    for client, found in figures["clients"].items():
        found["hit_rate"] = hit_rate([job for job in record.finished_jobs if job.request.client == client])
    return figures | _gaps(run, record) if gaps else figures


def all_active(workload: Workload, record: ProgramTimes, end: int) -> list[Interval]:
    """Return the intervals of time in which every client has an unfinished program."""
    common = [(0, end)]
    for client in workload.clients:
        common = _intersection(common, _active(workload, record, client, end))
    return common


def _active(workload: Workload, record: ProgramTimes, client: Client, end: int) -> list[Interval]:
    """Return the intervals in which a client has an unfinished program."""
    merged: list[Interval] = []
    for number, program in enumerate(workload.programs):
        if program.client != client or program.arrival_ns >= end:
            continue
        start, stop = program.arrival_ns, record.finished_ns.get(number, end)
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def _intersection(some: Sequence[Interval], others: Sequence[Interval]) -> list[Interval]:
    found, i, j = [], 0, 0
    while i < len(some) and j < len(others):
        start, stop = max(some[i][0], others[j][0]), min(some[i][1], others[j][1])
        if start < stop:
            found.append((start, stop))
        if some[i][1] < others[j][1]:
            i += 1
        else:
            j += 1
    return found


def _until(points: Points, at: int) -> int:
    """Return the cumulative service at an instant."""
    place = bisect_right(points, (at, float("inf")))
    return points[place - 1][1] if place else 0


def _within(points: Points, windows: Sequence[Interval]) -> int:
    return sum(_until(points, stop) - _until(points, start) for start, stop in windows)


def _rate(units: int, seconds: float) -> float | None:
    return round(units / seconds, 1) if seconds else None


def _jain(services: dict[Client, int]) -> float | None:
    index = jain_index(services.values())
    return None if index is None else round(float(index), 4)


def _of_client(workload: Workload, record: ProgramTimes, client: Client) -> dict[str, Any]:
    latencies = sorted(
        latency / NS_PER_S
        for number, latency in record.latencies_ns.items()
        if workload.programs[number].client == client
    )
    ends = [at for number, at in record.finished_ns.items() if workload.programs[number].client == client]
    return {
        "programs": len(latencies),
        "p50_s": round(percentile(latencies, 0.5), 3),
        "p99_s": round(percentile(latencies, 0.99), 3),
        "makespan_s": round(max(ends, default=0) / NS_PER_S, 3),
    }


def _timeline(workload: Workload, record: ProgramTimes, end: int) -> dict[str, Any]:
    """Return per client the rates of service in bins of time, and latencies by the time of arrival."""
    width = max(1, -(-end // BINS))
    edges = [width * place for place in range(BINS + 1)]
    return {
        "bin_s": width / NS_PER_S,
        "seen": {client: _binned(record.client_view.get(client, ()), edges, width) for client in workload.clients},
        "actual": {client: _binned(record.timeline.get(client, ()), edges, width) for client in workload.clients},
        "latency": {client: _latencies_in(workload, record, client, width) for client in workload.clients},
    }


def _binned(points: Points, edges: Sequence[int], width: int) -> list[float]:
    values = [_until(points, edge) for edge in edges]
    return [round((values[k + 1] - values[k]) * NS_PER_S / width, 1) for k in range(len(edges) - 1)]


def _latencies_in(workload: Workload, record: ProgramTimes, client: Client, width: int) -> list[float | None]:
    sums, counts = [0.0] * BINS, [0] * BINS
    for number, latency in record.latencies_ns.items():
        program = workload.programs[number]
        if program.client == client:
            place = min(program.arrival_ns // width, BINS - 1)
            sums[place] += latency / NS_PER_S
            counts[place] += 1
    return [round(total / count, 3) if count else None for total, count in zip(sums, counts, strict=True)]


def _gaps(run: FleetRun, record: ProgramRecord) -> dict[str, Any]:
    """Return the largest gap between clients that are backlogged together, and the bound it is held against."""
    held = run.held()
    gap = record.ledger.largest_gap(View.ACTUAL)
    return {"max_gap": gap.value, "bound": held["bound"], "bound_is_claimed": held["bound_is_claimed"]}
