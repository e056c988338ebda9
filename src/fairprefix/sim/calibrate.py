"""Fits a step-time model to a user's own engine, from nothing but the times of its requests.

Parameters are searched by simulation: the virtual engine serves the log's requests at the log's times, and what it
gets wrong is made smaller, one parameter after the other, in ever smaller steps. Every second request is fitted;
the error that is reported is that of the others, which the fit has not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs
from attrs import frozen

from fairprefix.sim.affine import AffineModel, AffineParameters
from fairprefix.sim.engine import EngineConfig
from fairprefix.sim.reqlog import Measured, as_trace
from fairprefix.sim.trace import Trace
from fairprefix.sim.validate import Comparison, compare, replay

SEARCHED = ("step_ms", "token_us", "context_ns")
FIRST_FACTOR, LAST_FACTOR = 2.0, 1.01
"""By how much a parameter is changed: at first, and at last."""


@frozen
class Fit:
    """A model and its errors."""

    model: AffineModel
    fitted: tuple[Comparison, ...]
    """On the requests that were fitted."""
    held_out: tuple[Comparison, ...]
    """On those that were not."""
    simulations: int


def calibrate(
    log: Sequence[Measured],
    engine: EngineConfig,
    *,
    name: str = "calibrated",
    trace: Trace | None = None,
    on_trial: Callable[[int, float], None] = lambda _count, _loss: None,
) -> Fit:
    """Return the affine model that fits a log best.

    Args:
        log: the measured requests.
        engine: the parameters of the engine that served them.
        name: what the model is to be called.
        trace: the same requests with prefixes, if those are known.
        on_trial: hears how many simulations have run, and the least loss so far.
    """
    requests = trace or as_trace(list(log), name)
    best, least, count = _first_guess(log[::2]), math.inf, 0

    def loss(parameters: AffineParameters) -> float:
        nonlocal count
        count += 1
        simulated = replay(requests, engine, AffineModel(name, engine.kv_tokens, parameters))
        return _loss(log[::2], simulated[::2])

    least = loss(best)
    factor = FIRST_FACTOR
    while factor > LAST_FACTOR:
        moved = False
        for field in SEARCHED:
            for change in (factor, 1 / factor):
                tried = attrs.evolve(best, **{field: getattr(best, field) * change})
                found = loss(tried)
                if found < least:
                    best, least, moved = tried, found, True
                on_trial(count, least)
        if not moved:
            factor = math.sqrt(factor)
    model = AffineModel(name, engine.kv_tokens, best)
    simulated = replay(requests, engine, model)
    fitted, held_out = compare(log[::2], simulated[::2]), compare(log[1::2], simulated[1::2])
    return Fit(model, tuple(fitted), tuple(held_out), count)


def _first_guess(log: Sequence[Measured]) -> AffineParameters:
    """Return parameters from the fastest requests: those that nothing has held up."""
    tpots = sorted(request.tpot_s for request in log if request.output_tokens > 1)
    step_s = tpots[0] if tpots else 0.01
    token_s = min(request.ttft_s / request.input_tokens for request in log)
    context = sum(request.input_tokens + request.output_tokens for request in log) / len(log)
    return AffineParameters(
        step_ms=max(step_s * 1e3, 1e-3),
        token_us=max(token_s * 1e6, 1e-3),
        # A batch of thirty sequences that look back on so much is taken to double the step.
        context_ns=max(step_s * 1e9 / (30 * context), 1e-3),
    )


def _loss(measured: Sequence[Measured], simulated: Sequence[Measured]) -> float:
    """Return how far both are apart: the squared errors of the means, and the mean error of single requests."""
    means = sum(math.log1p(max(one.error, -0.999)) ** 2 for one in compare(measured, simulated))
    single = sum(
        _apart(a.latency_s, b.latency_s) + _apart(a.tpot_s, b.tpot_s)
        for a, b in zip(measured, simulated, strict=True)
    )
    return means + 0.1 * single / len(measured)


def _apart(a: float, b: float) -> float:
    return abs(math.log(max(b, 1e-6) / max(a, 1e-6)))
