"""A step-time model against a real engine: the same requests at the same times, how far are the means apart?"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.ledger import Ledger
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.sim.engine import EngineConfig, VirtualEngine
from fairprefix.sim.kvcache import KVCache
from fairprefix.sim.metrics import NS_PER_S
from fairprefix.sim.record import RunRecord
from fairprefix.sim.reqlog import LogError, Measured
from fairprefix.sim.steptime import StepTimeModel
from fairprefix.sim.trace import Trace, TraceRequest

METRICS = ("ttft_s", "tpot_s", "latency_s")


@frozen
class Comparison:
    """A mean, measured and simulated, in seconds."""

    metric: str
    measured_s: float
    simulated_s: float

    @property
    def error(self) -> float:
        """Return the relative error of the simulation."""
        return self.simulated_s / self.measured_s - 1 if self.measured_s else 0.0


def replay(trace: Trace, engine: EngineConfig, step_time: StepTimeModel) -> list[Measured]:
    """Return how the virtual engine serves a trace in order of arrival, request by request in that order."""
    config = PolicyConfig(policy="fcfs", reservation=engine.reservation)
    cache = KVCache(engine.kv_tokens, PrefixIndex(trace.block_size))
    record = RunRecord(Ledger(config.cost))
    VirtualEngine(engine, step_time, cache, make_policy(config, cache.index), record).run(trace.requests)
    jobs = sorted(record.finished_jobs, key=lambda job: int(job.request.id))
    return [
        Measured(
            _seconds(job.trace.arrival_ns),
            job.request.input_tokens,
            job.produced,
            _seconds(job.first_token_ns),
            _seconds(job.finished_ns),
        )
        for job in jobs
    ]


def with_prefixes(trace: Trace, prefixes: Trace) -> Trace:
    """Return a trace with the blocks of another one, whose requests have the same order and lengths.

    Raises:
        LogError: they do not.
    """
    if [_size(request) for request in trace.requests] != [_size(request) for request in prefixes.requests]:
        raise LogError(
            f"{prefixes.name}: its requests have other lengths, or another order, than those of {trace.name}"
        )
    requests = [
        TraceRequest(a.arrival_ns, a.client, a.input_tokens, a.output_tokens, blocks=b.blocks)
        for a, b in zip(trace.requests, prefixes.requests, strict=True)
    ]
    return Trace(trace.name, requests, prefixes.block_size, has_clients=False)


def _size(request: TraceRequest) -> tuple[int, int]:
    return request.input_tokens, request.output_tokens


def compare(measured: Sequence[Measured], simulated: Sequence[Measured]) -> list[Comparison]:
    """Return the means of both, per metric: TTFT, time per output token (where there are two), and latency."""
    found = []
    for metric in METRICS:
        pairs = [
            (getattr(a, metric), getattr(b, metric))
            for a, b in zip(measured, simulated, strict=True)
            if metric != "tpot_s" or a.output_tokens > 1
        ]
        count = max(len(pairs), 1)
        found.append(Comparison(metric, sum(a for a, _ in pairs) / count, sum(b for _, b in pairs) / count))
    return found


def _seconds(ns: int) -> float:
    return ns / NS_PER_S
