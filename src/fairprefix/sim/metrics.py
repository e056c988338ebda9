"""From a record to the numbers that users expect, under the names that vLLM's benchmark gives them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from fairprefix.core.ledger import View
from fairprefix.core.request import Client
from fairprefix.sim.engine import Job
from fairprefix.sim.record import RunRecord

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the percentile of sorted values, interpolated linearly between neighbours; `share` in 0..1."""
    if not ordered:
        return 0.0
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def latency_summary(name: str, values_ns: Sequence[float]) -> dict[str, float]:
    """Return mean, median, p50, p90 and p99 in milliseconds under vLLM's key names."""
    ordered = sorted(value / NS_PER_MS for value in values_ns)
    mean = sum(ordered) / len(ordered) if ordered else 0.0
    shares = {"median": 0.5, "p50": 0.5, "p90": 0.9, "p99": 0.99}
    quantiles = {f"{key}_{name}_ms": round(percentile(ordered, share), 3) for key, share in shares.items()}
    return {f"mean_{name}_ms": round(mean, 3), **quantiles}


def latencies(jobs: Sequence[Job]) -> dict[str, float]:
    """Return the summaries of TTFT, TPOT (end to end less TTFT, over output tokens but the first) and E2EL."""
    ttft = [job.first_token_ns - job.trace.arrival_ns for job in jobs]
    e2el = [job.finished_ns - job.trace.arrival_ns for job in jobs]
    tpot = [(job.finished_ns - job.first_token_ns) / (job.produced - 1) for job in jobs if job.produced > 1]
    return latency_summary("ttft", ttft) | latency_summary("tpot", tpot) | latency_summary("e2el", e2el)


def hit_rate(jobs: Sequence[Job]) -> float:
    """Return the cached share of all prompt tokens, as found at the first admission."""
    tokens = sum(job.request.input_tokens for job in jobs)
    return round(sum(job.cached_tokens for job in jobs) / tokens, 6) if tokens else 0.0


def totals(record: RunRecord, duration_ns: int) -> dict[str, Any]:
    """Return counts, throughput and rates over a run of `duration_ns`."""
    jobs = record.finished_jobs
    seconds = duration_ns / NS_PER_S or 1.0
    total_input = sum(job.request.input_tokens for job in jobs)
    total_output = sum(job.produced for job in jobs)
    ledger = record.ledger
    service = sum(ledger.service(client).units(View.ACTUAL, ledger.cost) for client in ledger.clients())
    return {
        "completed": len(jobs),
        "rejected": len(record.rejected_requests),
        "duration": round(duration_ns / NS_PER_S, 6),
        "total_input": total_input,
        "total_output": total_output,
        "request_throughput": round(len(jobs) / seconds, 6),
        "output_throughput": round(total_output / seconds, 3),
        "total_token_throughput": round((total_input + total_output) / seconds, 3),
        "service_rate": round(service / seconds, 3),
        "prefix_hit_rate": hit_rate(jobs),
        "recomputed_tokens": record.recomputed_tokens,
        **latencies(jobs),
    }


def fairness(record: RunRecord) -> dict[str, Any]:
    """Return Jain's indices and the largest gap, both over the time in which clients are backlogged together."""
    ledger = record.ledger
    gap = ledger.largest_gap()
    return {
        "jain_index": _ratio(ledger.jain(View.ACTUAL)),
        "jain_index_client_view": _ratio(ledger.jain(View.CLIENT)),
        "all_backlogged_s": round(ledger.all_backlogged_time() / NS_PER_S, 3),
        "max_gap": gap.value,
        "max_gap_clients": [gap.first, gap.second],
        "max_gap_others_at_most": gap.others_at_most,
    }


def per_client(record: RunRecord) -> dict[Client, dict[str, Any]]:
    """Return the figures of each client, in the order of their names."""
    ledger = record.ledger
    services = {client: ledger.service(client) for client in sorted(ledger.clients())}
    total = sum(service.units(View.ACTUAL, ledger.cost) for service in services.values())
    contended = ledger.all_backlogged_services(View.ACTUAL)
    jobs: dict[Client, list[Job]] = {client: [] for client in services}
    for job in record.finished_jobs:
        jobs[job.request.client].append(job)
    return {
        client: {
            "completed": len(jobs[client]),
            "weight": ledger.weights.get(client, ledger.default_weight),
            "service": service.units(View.ACTUAL, ledger.cost),
            "share": _share(service.units(View.ACTUAL, ledger.cost), total),
            "contended_share": _share(contended[client], sum(contended.values())),
            "extend_tokens": service.extend,
            "output_tokens": service.output,
            "recomputed_tokens": service.recomputed,
            "prefix_hit_rate": hit_rate(jobs[client]),
            **latencies(jobs[client]),
        }
        for client, service in services.items()
    }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _ratio(value: Fraction | None) -> float | None:
    return None if value is None else round(float(value), 6)
