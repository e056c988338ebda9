"""The runner: carries out the steps that the scheduler builds."""

from __future__ import annotations

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from fairprefix.gpu_ref_engine.attention.base import Attention
from fairprefix.gpu_ref_engine.batch import StepBatch, StepResult
from fairprefix.gpu_ref_engine.model import Model, StepTensors
from fairprefix.gpu_ref_engine.sampler import Report, SamplingPlan, choose, report, spelled_out


@frozen(eq=False)
class StepUnderWay:
    """See `Launched`."""

    tokens: Tensor
    """On the host; complete once `done` has happened."""
    found: Report | None
    plan: SamplingPlan
    done: torch.cuda.Event | None = None

    def wait(self) -> StepResult:
        """Return the result, as soon as the device has it."""
        if self.done is not None:
            self.done.synchronize()
        return StepResult(
            tokens=self.tokens.numpy(), logprobs=spelled_out(self.found, self.plan, len(self.tokens))
        )


class ModelRunner:
    """See `Runner`."""

    def __init__(self, model: Model, attention: Attention, *, longest: int, seed: int | None = None) -> None:
        self.page_size = model.memory.page_size
        self.pages = model.memory.pages
        self.vocabulary = model.memory.shape.vocabulary
        self.longest = longest
        self.model = model
        self._attention = attention
        self._fallback = np.random.default_rng(seed)
        self._previous: Tensor | None = None
        """Tokens that the last step launched has sampled, on the device."""

    @torch.inference_mode()
    def launch(self, batch: StepBatch) -> StepUnderWay:
        """Start a step; steps are carried out in the order in which they are launched."""
        plan = SamplingPlan.of(batch.samples, self._fallback)
        logits = self.logits(batch)
        tokens = choose(logits, plan) if len(batch.samples) else torch.empty(0, dtype=torch.int64)
        self._previous = tokens
        return StepUnderWay(tokens, report(logits, tokens, plan), plan)

    @torch.inference_mode()
    def logits(self, batch: StepBatch) -> Tensor:
        """Return the logits [S, vocabulary] of a step, in float32."""
        tensors = StepTensors(
            tokens=self._inputs(batch),
            positions=torch.from_numpy(batch.positions),
            slots=torch.from_numpy(batch.slots),
            sample_at=torch.from_numpy(batch.sample_at),
        )
        self._attention.plan(batch)
        return self.model.forward(tensors, self._attention).float()

    def _inputs(self, batch: StepBatch) -> Tensor:
        tokens = torch.from_numpy(batch.tokens)
        if batch.from_previous is None or self._previous is None or not len(self._previous):
            return tokens
        source = torch.from_numpy(batch.from_previous)
        return torch.where(source >= 0, self._previous[source.clamp(min=0)], tokens)
