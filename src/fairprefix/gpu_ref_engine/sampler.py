"""From logits to tokens: greedy, temperature, top-k, top-p, and log-probabilities.

A token is drawn by inverting the cumulative distribution at one random number per row (see `draws`). The host
sorts the rows into those that take the maximum, those that draw from everything, and those that cut the
distribution first, so that no row pays for what another one wants.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from fairprefix.gpu_ref_engine.batch import Ints, Sample, TopLogprobs
from fairprefix.gpu_ref_engine.draws import uniforms
from fairprefix.gpu_ref_engine.transfer import to_device

_NARROW = 1024
"""Rows that keep at most so many tokens need no full sort."""
_BLOCK = 128
"""Tokens that are added up together before a draw is looked for."""


@frozen(eq=False, kw_only=True)
class SamplingPlan:
    """What the host knows before the step is launched; rows are indices into S."""

    greedy: bool
    """Every row takes the maximum."""
    drawing: Ints
    """Rows that draw from everything."""
    cutting: Ints
    """Rows with top-k or top-p."""
    temperature: NDArray[np.float32]
    """[S]"""
    uniform: NDArray[np.float32]
    """[S]"""
    top_k: Ints
    """[S]; 0: all."""
    top_p: NDArray[np.float32]
    """[S]"""
    reporting: Ints
    """Rows that want log-probabilities."""
    alternatives: Ints
    """[len(reporting)] how many beside the chosen one."""

    @classmethod
    def of(cls, samples: Sequence[Sample], fallback: np.random.Generator) -> SamplingPlan:
        """Sort the rows of a step."""
        params = [sample.params for sample in samples]
        temperature = np.array([one.temperature for one in params], np.float32)
        wanted = [(at, one.logprobs) for at, one in enumerate(params) if one.logprobs is not None]
        greedy = not temperature.any()
        nothing = np.empty(0, np.int64)
        top_k = nothing if greedy else np.array([one.top_k for one in params], np.int64)
        top_p = nothing.astype(np.float32) if greedy else np.array([one.top_p for one in params], np.float32)
        cut = (top_k > 0) | (top_p < 1)
        return cls(
            greedy=greedy,
            drawing=nothing if greedy else np.flatnonzero((temperature > 0) & ~cut),
            cutting=nothing if greedy else np.flatnonzero((temperature > 0) & cut),
            temperature=temperature,
            uniform=temperature if greedy else uniforms(samples, fallback),
            top_k=top_k,
            top_p=top_p,
            reporting=np.array([at for at, _ in wanted], np.int64),
            alternatives=np.array([count for _, count in wanted], np.int64),
        )


def choose(logits: Tensor, plan: SamplingPlan) -> Tensor:
    """Return the next tokens [S] (int64, on the device) for logits [S, vocabulary] in float32."""
    if 0 < len(plan.drawing) == len(logits):
        return _draw(logits, plan, plan.drawing)
    tokens = _likeliest(logits)
    for rows, draw in ((plan.drawing, _draw), (plan.cutting, _cut_and_draw)):
        if len(rows):
            everything = len(rows) == len(logits)
            at = to_device(rows, logits.device)
            chosen = draw(logits if everything else logits[at], plan, rows)
            tokens = chosen if everything else tokens.index_copy_(0, at, chosen)
    return tokens


def _likeliest(logits: Tensor) -> Tensor:
    # On a CPU numpy's search for the maximum is ten times as fast as torch's.
    return logits.argmax(-1) if logits.is_cuda else torch.from_numpy(logits.numpy().argmax(-1))


def _draw(logits: Tensor, plan: SamplingPlan, rows: Ints) -> Tensor:
    probabilities = torch.softmax(logits / to_device(plan.temperature[rows, None], logits.device), -1)
    return _inverted(probabilities, to_device(plan.uniform[rows, None], logits.device))


def _inverted(weights: Tensor, uniform: Tensor) -> Tensor:
    """Return, per row, the first index at which the cumulated weights exceed the share `uniform` of their sum.

    A wide row is searched block by block first, since to cumulate all of it takes a GPU longer than to add it up.
    """
    goal = uniform * weights.sum(-1, keepdim=True)
    if weights.shape[-1] % _BLOCK:
        return _exceeding(weights, goal)[0].squeeze(-1)
    blocks = weights.view(len(weights), -1, _BLOCK)
    block, rest = _exceeding(blocks.sum(-1), goal)
    chosen = blocks.gather(1, block[:, :, None].expand(-1, 1, _BLOCK)).squeeze(1)
    return (block * _BLOCK + _exceeding(chosen, rest)[0]).squeeze(-1)


def _exceeding(weights: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first index at which the cumulated weights exceed the goal, and what is left of it there."""
    cumulated = weights.cumsum(-1)
    total = cumulated[:, -1:]
    # Rounding may lift the goal to the sum itself, which nothing exceeds: the next float below is the limit.
    goal = torch.minimum(goal, torch.nextafter(total, torch.zeros_like(total)))
    index = torch.searchsorted(cumulated, goal, right=True)
    before = cumulated.gather(-1, (index - 1).clamp(min=0)).masked_fill(index == 0, 0)
    return index, (goal - before).clamp(min=0)


def _cut_and_draw(logits: Tensor, plan: SamplingPlan, rows: Ints) -> Tensor:
    top_k, top_p = plan.top_k[rows], plan.top_p[rows]
    vocabulary = logits.shape[-1]
    limits = np.where(top_k > 0, np.minimum(top_k, vocabulary), vocabulary)
    widest = int(limits.max())
    scaled = logits / to_device(plan.temperature[rows, None], logits.device)
    if widest <= _NARROW:
        best, ids = scaled.topk(widest)
    else:
        best, ids = scaled.sort(descending=True)
    best = best.masked_fill(
        torch.arange(best.shape[-1], device=best.device) >= to_device(limits[:, None], best.device), float("-inf")
    )
    weights = torch.softmax(best, -1)
    before = weights.cumsum(-1) - weights
    weights = weights.masked_fill(
        before >= to_device(top_p[:, None], weights.device), 0
    )  # the first one always stays
    place = _inverted(weights, to_device(plan.uniform[rows, None], weights.device))
    return ids.gather(-1, place[:, None]).squeeze(-1)


@frozen(eq=False, kw_only=True)
class Report:
    """Log-probabilities on the device, of the rows that want them."""

    chosen: Tensor
    """[r]"""
    values: Tensor
    """[r, most alternatives]"""
    ids: Tensor
    """The same."""

    def tensors(self) -> dict[str, Tensor]:
        """Return everything by name."""
        return {"chosen": self.chosen, "values": self.values, "ids": self.ids}


def report(logits: Tensor, tokens: Tensor, plan: SamplingPlan) -> Report | None:
    """Return the log-probabilities that some rows want: of the model, before temperature and cuts."""
    if not len(plan.reporting):
        return None
    rows = to_device(plan.reporting, logits.device)
    logprobs = torch.log_softmax(logits[rows], -1)
    values, ids = logprobs.topk(max(int(plan.alternatives.max()), 1))
    return Report(chosen=logprobs.gather(-1, tokens[rows, None]).squeeze(-1), values=values, ids=ids)


def spelled_out(found: Report | None, plan: SamplingPlan, count: int) -> list[TopLogprobs | None]:
    """Return the log-probabilities of all `count` rows, None for those that do not want any."""
    listed: list[TopLogprobs | None] = [None] * count
    if found is None:
        return listed
    chosen, values, ids = found.chosen.tolist(), found.values.tolist(), found.ids.tolist()
    for at, (row, most) in enumerate(zip(plan.reporting.tolist(), plan.alternatives.tolist(), strict=True)):
        top = tuple(zip(ids[at][:most], values[at][:most], strict=True))
        listed[row] = TopLogprobs(chosen=chosen[at], top=top)
    return listed
