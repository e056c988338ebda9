"""How long one step of an engine takes: the interface, and the models by name.

    model = step_time_model("llama-3.1-8b", "a10g")
    model.step_ps(prefills=[(512, 0)], decodes=16, context=8192)      # one mixed step
    model.decode_run(16, 8192).total_ps(100)                          # a hundred decode steps at once

Times are whole picoseconds, so that runs of decode steps add up without rounding
(`fairprefix.sim.decoderun`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fairprefix.core.errors import one_of
from fairprefix.sim.decoderun import DecodeCurve, DecodeRun, HostTime
from fairprefix.sim.hardware import GPUS, MODELS, kv_capacity
from fairprefix.sim.roofline import RooflineModel
from fairprefix.sim.steptable import TableModel

__all__ = [
    "DecodeCurve",
    "DecodeRun",
    "HostTime",
    "RooflineModel",
    "StepTimeModel",
    "TableModel",
    "step_time_model",
]


class StepTimeModel(Protocol):
    """Predicts the duration of a step from what is in its batch. Deterministic."""

    @property
    def name(self) -> str:
        """Return what the output calls this model."""
        ...

    @property
    def kv_tokens(self) -> int:
        """Return the default size of the KV cache, in tokens."""
        ...

    def step_ps(self, *, prefills: Sequence[tuple[int, int]], decodes: int, context: int) -> int:
        """Return the time of one step in ps; a step without any work takes none.

        Args:
            prefills: chunks of prompts as (new tokens, at least 1; tokens of it already in the KV cache).
            decodes: sequences that decode one token each.
            context: tokens in the KV cache of those sequences, summed.
        """
        ...

    def decode_run(self, decodes: int, context: int) -> DecodeRun:
        """Return the run of pure decode steps of `decodes` >= 1 sequences, over `context` tokens at first.

        `decode_run(b, n).total_ps(k)` equals the sum of `step_ps(prefills=(), decodes=b, context=n + b * s)`
        over s = 0..k-1, exactly.
        """
        ...


def step_time_model(model: str, gpu: str, *, cpu_ms: float = 2.0, overlap: bool = True) -> StepTimeModel:
    """Return the roofline model of a language model on a GPU.

    Args:
        model: one of `fairprefix.sim.hardware.MODELS`, such as "llama-3.1-8b".
        gpu: one of `fairprefix.sim.hardware.GPUS`, such as "a10g".
        cpu_ms: time in milliseconds that the CPU needs for a step (1-4 ms in today's engines).
        overlap: whether the CPU's time hides behind the GPU's.

    Raises:
        ConfigError: an unknown name (with the nearest known one), or an invalid `cpu_ms`.
    """
    shape = MODELS[one_of("model", model, MODELS)]
    device = GPUS[one_of("gpu", gpu, GPUS)]
    return RooflineModel(
        name=f"{model} on {gpu}",
        kv_tokens=kv_capacity(shape, device),
        model=shape,
        gpu=device,
        host=HostTime.of(cpu_ms, overlap=overlap),
    )
