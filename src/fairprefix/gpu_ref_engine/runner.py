"""The runner: carries out the steps that the scheduler builds."""

from __future__ import annotations

import attrs
import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from fairprefix.gpu_ref_engine.attention.base import Attention
from fairprefix.gpu_ref_engine.batch import StepBatch, StepResult
from fairprefix.gpu_ref_engine.graphs import DecodeGraphs
from fairprefix.gpu_ref_engine.model import Model, StepTensors
from fairprefix.gpu_ref_engine.sampler import Report, SamplingPlan, choose, report, spelled_out
from fairprefix.gpu_ref_engine.transfer import all_to_device, mark, to_host

MOST_SAMPLED = 4096
"""Tokens that one step may sample."""


@frozen(eq=False)
class StepUnderWay:
    """See `Launched`."""

    tokens: Tensor
    """In host memory; complete once `done` has happened."""
    found: Report | None
    """Likewise."""
    plan: SamplingPlan
    done: torch.cuda.Event | None

    def wait(self) -> StepResult:
        """Return the result, as soon as the device has it."""
        if self.done is not None:
            self.done.synchronize()
        return StepResult(
            tokens=self.tokens.numpy(), logprobs=spelled_out(self.found, self.plan, len(self.tokens))
        )


class ModelRunner:
    """See `Runner`.

    Args:
        model: weights, key/value memory, and what computes with them.
        attention: the backend.
        seed: of requests without a seed of their own; None: a new one each time.
    """

    def __init__(self, model: Model, attention: Attention, *, seed: int | None = None) -> None:
        memory = model.memory
        self.page_size: int = memory.page_size
        self.pages: int = memory.pages
        self.vocabulary: int = memory.shape.vocabulary
        self.longest: int = memory.longest
        self.model = model
        self.device: torch.device = memory.device
        self.graphs: DecodeGraphs | None = None
        """Set by whoever has captured them."""
        self.previous: torch.Tensor = torch.zeros(MOST_SAMPLED, dtype=torch.int64, device=memory.device)
        """Tokens that the step launched last has sampled."""
        self._attention = attention
        self._fallback = np.random.default_rng(seed)

    @torch.inference_mode()
    def launch(self, batch: StepBatch) -> StepUnderWay:
        """Start a step; steps are carried out in the order in which they are launched.

        Raises:
            ValueError: the step samples more than MOST_SAMPLED tokens.
        """
        count = len(batch.samples)
        if count > MOST_SAMPLED:
            raise ValueError(f"a step samples at most {MOST_SAMPLED} tokens, not {count}")
        plan = SamplingPlan.of(batch.samples, self._fallback)
        logits = self.logits(batch)
        tokens = choose(logits, plan)
        self.previous[:count].copy_(tokens)
        found = report(logits, tokens, plan)
        if found is not None:
            found = attrs.evolve(found, **{name: to_host(value) for name, value in found.tensors().items()})
        return StepUnderWay(to_host(tokens), found, plan, mark(self.device))

    @torch.inference_mode()
    def logits(self, batch: StepBatch) -> Tensor:
        """Return the logits [S, vocabulary] of a step in float32, valid until the next step."""
        captured = None if self.graphs is None else self.graphs.logits(batch)
        if captured is not None:
            return captured
        arrays = [batch.tokens, batch.positions, batch.slots, batch.sample_at]
        if batch.from_previous is not None:
            arrays.append(batch.from_previous)
        tokens, positions, slots, sample_at, *source = all_to_device(arrays, self.device)
        if source:
            tokens = torch.where(source[0] >= 0, self.previous[source[0].clamp(min=0)], tokens)
        self._attention.plan(batch)
        step = StepTensors(tokens=tokens, positions=positions, slots=slots, sample_at=sample_at)
        return self.model.forward(step, self._attention).float()
