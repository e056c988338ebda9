"""The contract of an attention backend, and the memory that it reads."""

from __future__ import annotations

from typing import Protocol

import torch
from attrs import field, frozen
from torch import Tensor

from fairprefix.gpu_ref_engine.architecture import Architecture
from fairprefix.gpu_ref_engine.batch import StepBatch


@frozen(eq=False, kw_only=True)
class KvMemory:
    """Keys and values of every layer, in pages."""

    shape: Architecture
    pages: int
    """That a scheduler may hand out; one more, `spare`, takes what is written for padding."""
    page_size: int
    dtype: torch.dtype
    device: torch.device
    keys: Tensor = field(init=False)
    """[layers, pages + 1, kv_heads, page_size, head_dim]"""
    values: Tensor = field(init=False)
    """The same."""

    @keys.default
    def _keys(self) -> Tensor:
        # Zeros, not whatever the memory holds: what is masked out must not be NaN, since 0 * NaN is NaN.
        size = (self.shape.layers, self.pages + 1, self.shape.kv_heads, self.page_size, self.shape.head_dim)
        return torch.zeros(size, dtype=self.dtype, device=self.device)

    @values.default
    def _values(self) -> Tensor:
        return torch.zeros_like(self.keys)

    @property
    def spare(self) -> int:
        """Return the page that belongs to nobody."""
        return self.pages

    @property
    def longest(self) -> int:
        """Return the longest sequence that model and memory take, in tokens."""
        return min(self.shape.longest, self.pages * self.page_size)

    def rows(self, slots: Tensor) -> Tensor:
        """Return where the heads of a token lie, for slots [T] (page * page_size + offset).

        Returns:
            [T, kv_heads] indices into a layer's memory seen as [pages * kv_heads * page_size, head_dim].
        """
        heads = torch.arange(self.shape.kv_heads, device=slots.device)
        pages = torch.div(slots, self.page_size, rounding_mode="floor")
        return (pages[:, None] * self.shape.kv_heads + heads) * self.page_size + (slots % self.page_size)[:, None]


class Attention(Protocol):
    """Causal attention of a step's queries over the paged keys and values of their sequences."""

    def plan(self, batch: StepBatch) -> None:
        """Prepare for the layers of one step: once a step, before `run`."""
        ...

    def run(self, layer: int, query: Tensor) -> Tensor:
        """Return the attention's output of one layer, whose keys and values of this step are already stored.

        Args:
            layer: index of the layer.
            query: [T, heads, head_dim], after the rotary embedding.

        Returns:
            [T, heads * head_dim]
        """
        ...
