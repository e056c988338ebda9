"""One trace through one policy: the run, its figures, and the bound that they are held against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from attrs import frozen

from fairprefix.core.base import BasePolicy
from fairprefix.core.bounds import Engine
from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.guarantee import Guarantee, guarantee
from fairprefix.core.history import Emit, RecordedIndex, Recorder, opening
from fairprefix.core.ledger import Ledger
from fairprefix.core.policy import Policy
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.core.request import Client
from fairprefix.sim.engine import EngineConfig, VirtualEngine
from fairprefix.sim.kvcache import KVCache
from fairprefix.sim.metrics import fairness, per_client, totals
from fairprefix.sim.record import RunRecord
from fairprefix.sim.steptime import StepTimeModel
from fairprefix.sim.trace import Trace

Timeline = dict[Client, list[tuple[int, int]]]


@frozen
class RunResult:
    """What one policy did with a trace."""

    policy: str
    figures: dict[str, Any]
    """Everything that the JSON output holds, but the policy's name."""
    timeline: Timeline
    """Per client: (ns, cumulative service units) after each charge."""
    router: str | None = None
    """How requests came to several workers; None where there is one."""

    @property
    def label(self) -> str:
        """What tables and pictures call the run."""
        return self.policy if self.router is None else f"{self.policy}+{self.router}"

    def to_mapping(self) -> dict[str, Any]:
        """Return the result as JSON-serialisable data."""
        names = {"policy": self.policy} | ({} if self.router is None else {"router": self.router})
        return names | self.figures


def simulate(
    trace: Trace,
    config: PolicyConfig,
    engine_config: EngineConfig,
    step_time: StepTimeModel,
    on_finish: Callable[[int], None] = lambda _count: None,
    *,
    record: Emit | None = None,
) -> RunResult:
    """Run a trace through a policy in virtual time.

    Args:
        trace: the requests.
        config: the policy and its parameters.
        engine_config: the engine's parameters; its reservation mode must be the one that `config` declares.
        step_time: how long a step takes.
        on_finish: called with the number of requests done so far, whenever it has changed.
        record: called with every event of the policy's history (`fairprefix.core.history`).

    Raises:
        OversizeError: a request can never fit and oversized ones are not rejected.
    """
    policy, cache, host_policy = _assemble(trace, config, engine_config, record)
    seen = RunRecord(Ledger(config.cost, config.weights, config.default_weight))
    engine = VirtualEngine(engine_config, step_time, cache, host_policy, seen)
    engine.run(trace.requests, on_finish)
    counts = {
        "preemptions": engine.preemptions,
        "evicted_blocks": cache.evicted_blocks,
        "steps": engine.steps,
        "refill_rounds": getattr(policy, "rounds", None),
    }
    duration_ns = engine.clock_ns - trace.requests[0].arrival_ns
    return summarise(seen, config, describe_engine(trace, engine_config), duration_ns, counts)


def summarise(
    seen: RunRecord, config: PolicyConfig, engine: Engine, duration_ns: int, counts: Mapping[str, Any]
) -> RunResult:
    """Return the figures of a run, of this engine or of any other one that kept such a record.

    Args:
        seen: the record.
        config: the policy and its parameters.
        engine: what a bound needs to know of the engine.
        duration_ns: from the first arrival to the end.
        counts: figures that the engine has counted itself.
    """
    promised = guarantee(config, engine, seen.ledger.clients())
    figures = (
        totals(seen, duration_ns)
        | fairness(seen)
        | held_against(seen, promised)
        | dict(counts)
        | {"clients": per_client(seen)}
    )
    return RunResult(config.policy, figures, seen.timeline)


def _assemble(
    trace: Trace, config: PolicyConfig, engine_config: EngineConfig, record: Emit | None
) -> tuple[BasePolicy, KVCache, Policy]:
    """Return the policy, the memory that it looks at, and what the engine talks to."""
    if record is None:
        cache = KVCache(engine_config.kv_tokens, PrefixIndex(trace.block_size))
        policy = make_policy(config, cache.index)
        return policy, cache, policy
    record(opening(config, trace.block_size))
    cache = KVCache(engine_config.kv_tokens, RecordedIndex(trace.block_size, record))
    policy = make_policy(config, cache.index)
    return policy, cache, Recorder(policy, record)


def describe_engine(trace: Trace, config: EngineConfig) -> Engine:
    """Return what a bound needs to know of the engine, for the requests of a trace that fit.

    Preempted requests wait for their turn again (gated); but as prompts are computed in chunks, requests do not
    all produce in every step, so only "at most N run, each of at most O tokens" may be assumed: that is what a
    bound assumes of an engine that holds them.
    """
    fitting = [r for r in trace.requests if r.input_tokens + r.max_output_tokens < config.kv_tokens]
    return Engine(
        reservation=config.reservation,
        kv_tokens=config.kv_tokens,
        max_running=config.max_batch,
        longest_input=max((request.input_tokens for request in fitting), default=1),
        longest_output=max((request.max_output_tokens for request in fitting), default=1),
        resume="held",
    )


def held_against(record: RunRecord, promised: Guarantee | None) -> dict[str, Any]:
    """Return the largest gap, the bound, and their ratio."""
    if promised is None:
        return {"charged_gap": None, "bound": None, "bound_ratio": None, "bound_is_claimed": False}
    gap = record.ledger.largest_gap(promised.view)
    widest = max(gap.exact_value, Fraction(gap.others_at_most))
    return {
        "charged_gap": gap.value,
        "bound": promised.bound.value,
        "bound_ratio": round(float(widest / promised.bound.exact), 6),
        "bound_is_claimed": promised.claimed,
        "bound_formula": promised.bound.formula,
        "bound_assumptions": list(promised.bound.assumptions),
    }
