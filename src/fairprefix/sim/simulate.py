"""One trace through one policy: the run, its figures, and the bound that they are held against."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from attrs import frozen

from fairprefix.core.bounds import Engine
from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.ledger import Ledger
from fairprefix.core.request import Client
from fairprefix.sim.engine import EngineConfig, VirtualEngine
from fairprefix.sim.guarantee import Guarantee, guarantee
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

    def to_mapping(self) -> dict[str, Any]:
        """Return the result as JSON-serialisable data."""
        return {"policy": self.policy, **self.figures}


def simulate(
    trace: Trace,
    config: PolicyConfig,
    engine_config: EngineConfig,
    step_time: StepTimeModel,
    on_finish: Callable[[int], None] = lambda _count: None,
) -> RunResult:
    """Run a trace through a policy in virtual time.

    Args:
        trace: the requests.
        config: the policy and its parameters.
        engine_config: the engine's parameters; its reservation mode must be the one that `config` declares.
        step_time: how long a step takes.
        on_finish: called with the number of requests done so far, whenever it has changed.

    Raises:
        OversizeError: a request can never fit and oversized ones are not rejected.
    """
    cache = KVCache(engine_config.kv_tokens, trace.block_size)
    policy = make_policy(config, cache.index)
    record = RunRecord(Ledger(config.cost, config.weights, config.default_weight))
    engine = VirtualEngine(engine_config, step_time, cache, policy, record)
    engine.run(trace.requests, on_finish)
    start = trace.requests[0].arrival_ns
    promised = guarantee(config, describe_engine(trace, engine_config), record.ledger.clients())
    figures = (
        totals(record, engine.clock_ns - start)
        | fairness(record)
        | _held_against(record, promised)
        | {
            "preemptions": engine.preemptions,
            "evicted_blocks": cache.evicted_blocks,
            "steps": engine.steps,
            "refill_rounds": getattr(policy, "rounds", None),
            "clients": per_client(record),
        }
    )
    return RunResult(config.policy, figures, record.timeline)


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


def _held_against(record: RunRecord, promised: Guarantee | None) -> dict[str, Any]:
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
