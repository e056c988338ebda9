"""The forward pass of a dense decoder-only transformer over paged keys and values."""

from __future__ import annotations

import torch
from attrs import frozen
from torch import Tensor
from torch.nn.functional import embedding

from fairprefix.gpu_ref_engine.attention.base import Attention, KvMemory
from fairprefix.gpu_ref_engine.ops import Ops
from fairprefix.gpu_ref_engine.weights import LayerWeights, Weights


@frozen(eq=False, kw_only=True)
class StepTensors:
    """What a step feeds into the model, on its device."""

    tokens: Tensor
    """[T]"""
    positions: Tensor
    """[T]"""
    slots: Tensor
    """[T]"""
    sample_at: Tensor
    """[S] rows of T whose logits are wanted."""


@frozen(eq=False, kw_only=True)
class Model:
    """Weights, and what computes with them."""

    weights: Weights
    ops: Ops
    memory: KvMemory

    def forward(self, step: StepTensors, attention: Attention) -> Tensor:
        """Return the logits [S, vocabulary] of a step that `attention` has been planned for."""
        residual = embedding(step.tokens, self.weights.embedding)
        layers, rows = self.weights.layers, self.memory.rows(step.slots)
        normed = self.ops.norm(residual, layers[0].input_norm)
        for index, layer in enumerate(layers):
            mixed = self._attend(index, layer, normed, step.positions, rows, attention)
            last = index + 1 == len(layers)
            if last:  # from here on only the rows that are sampled matter
                mixed, residual = mixed[step.sample_at], residual[step.sample_at]
            normed, residual = self.ops.add_norm(mixed, residual, layer.mlp_norm)
            gated = self.ops.gate(layer.gate_up(normed))
            following = self.weights.norm if last else layers[index + 1].input_norm
            normed, residual = self.ops.add_norm(layer.down(gated), residual, following)
        return self.weights.head(normed)

    def _attend(
        self,
        index: int,
        layer: LayerWeights,
        normed: Tensor,
        positions: Tensor,
        rows: Tensor,
        attention: Attention,
    ) -> Tensor:
        query = self.ops.rotate_and_store(
            layer.qkv(normed), layer.qk_norm, positions, rows, self.memory.keys[index], self.memory.values[index]
        )
        return layer.output(attention.run(index, query))

    @property
    def dtype(self) -> torch.dtype:
        """Return the type of the weights."""
        return self.weights.embedding.dtype
