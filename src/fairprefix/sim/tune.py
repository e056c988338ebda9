"""Recommends a quantum for a trace: the rule Q = w_e P / overhead, and what simulations around it say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
from attrs import frozen

from fairprefix.core.config import PolicyConfig
from fairprefix.sim.engine import EngineConfig
from fairprefix.sim.simulate import RunResult, simulate
from fairprefix.sim.steptime import StepTimeModel
from fairprefix.sim.trace import Trace

SMALLEST = 256
"""No smaller quantum is tried: it would be a refill for each request."""
MULTIPLES = (1 / 16, 1 / 4, 1, 4)
"""Of the rule's quantum: what is tried."""


@frozen
class Reuse:
    """How much of a trace's prompts was asked before, by the same client."""

    prefix: int
    """P: mean length of the reused prefix, over the requests that reuse one; 0 where nobody does."""
    share: float
    """Share of all prompt tokens that was seen before."""


@frozen
class Trial:
    """A quantum and its run."""

    quantum: int
    result: RunResult

    @property
    def throughput(self) -> float:
        """Tokens per second, prompts and outputs."""
        return float(self.result.figures["total_token_throughput"])


@frozen
class Advice:
    """What is recommended, and why."""

    reuse: Reuse
    rule: int
    """The rule's quantum."""
    trials: tuple[Trial, ...]
    """By rising quantum."""
    lpm: RunResult
    """What can be had without any fairness."""
    quantum: int
    """The smallest one tried that reaches (1 - overhead) of the best throughput of all these runs."""


def reuse(trace: Trace) -> Reuse:
    """Return how much of the prompts each client has asked before, as an infinite cache of its own would find."""
    seen: dict[str, set[int]] = {}
    lengths: list[int] = []
    tokens = 0
    for request in trace.requests:
        known = seen.setdefault(request.client, set())
        depth = next((place for place, block in enumerate(request.blocks) if block not in known), None)
        matched = (len(request.blocks) if depth is None else depth) * trace.block_size
        known.update(request.blocks)
        tokens += request.input_tokens
        if matched:
            lengths.append(min(matched, request.input_tokens))
    mean = round(sum(lengths) / len(lengths)) if lengths else 0
    return Reuse(mean, sum(lengths) / tokens if tokens else 0.0)


def tune(
    trace: Trace,
    config: PolicyConfig,
    engine: EngineConfig,
    step_time: StepTimeModel,
    *,
    overhead: float = 0.05,
    begin: Callable[[str], Callable[[int], None]] = lambda _name: lambda _count: None,
) -> Advice:
    """Try quanta on a trace and recommend one.

    Args:
        trace: the requests.
        config: the policy, but for its quantum.
        engine: the engine's parameters.
        step_time: how long a step takes.
        overhead: the share of throughput that fairness may cost.
        begin: told the name of each run, returns who hears of its progress.
    """
    found = reuse(trace)
    rule = rule_for(found, config, overhead)
    lpm = simulate(trace, attrs.evolve(config, policy="lpm"), engine, step_time, begin("lpm"))
    trials = tuple(
        Trial(
            quantum,
            simulate(
                trace,
                attrs.evolve(config, policy="dlpm", quantum=quantum),
                engine,
                step_time,
                begin(f"Q {quantum}"),
            ),
        )
        for quantum in quanta(rule)
    )
    best = max(float(lpm.figures["total_token_throughput"]), *(trial.throughput for trial in trials))
    good = [trial.quantum for trial in trials if trial.throughput >= (1 - overhead) * best]
    fastest = max(trials, key=lambda trial: trial.throughput).quantum
    return Advice(found, rule, trials, lpm, min(good, default=fastest))


def rule_for(found: Reuse, config: PolicyConfig, overhead: float) -> int:
    """Return the quantum of which computing the prefix anew is the share `overhead`."""
    return max(SMALLEST, round(config.cost.extend * found.prefix / overhead))


def quanta(rule: int) -> Sequence[int]:
    """Return the quanta that are tried, rising."""
    return sorted({max(SMALLEST, round(rule * multiple)) for multiple in MULTIPLES})
