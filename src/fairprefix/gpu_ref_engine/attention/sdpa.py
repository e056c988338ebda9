"""Attention with torch alone: pages are gathered, then scaled_dot_product_attention computes; made for CPUs.

Decoding sequences of similar length are gathered into one rectangular batch, and the query heads that share a key
head become the rows of one product, so that nothing is expanded. Chunks of prefill go one by one. In bfloat16 two
plain products take half the time of torch's kernel for so few queries; in float32 they gain nothing.
"""

from __future__ import annotations

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as attend

from fairprefix.gpu_ref_engine.attention.base import KvMemory
from fairprefix.gpu_ref_engine.batch import Ints, StepBatch

_WASTE = 2
"""Sequences share a rectangle as long as the longest has at most so many times the pages of the shortest."""


@frozen(eq=False)
class _Rectangle:
    """Sequences with one query each."""

    rows: Tensor | None
    """[b] of their queries; None: all, in order."""
    pages: Tensor
    """[b * kv_heads * p] (page, head) pairs in the order of gathering, padded with those of page 0."""
    mask: Tensor
    """[b, 1, 1, n]: 0 for a key of the sequence, -inf for padding."""


@frozen(eq=False)
class _Chunk:
    """Several queries of one sequence."""

    start: int
    stop: int
    pages: Tensor
    """[kv_heads * p] likewise."""
    keys: int
    mask: Tensor | None
    """[queries, keys]: 0 where a query sees a key, else -inf; None: nothing is cached, plain causal."""


class SdpaAttention:
    """See `Attention`."""

    def __init__(self, memory: KvMemory) -> None:
        shape = memory.shape
        self._memory = memory
        self._groups = shape.heads // shape.kv_heads
        flat = (shape.layers, (memory.pages + 1) * shape.kv_heads, -1)
        self._keys, self._values = memory.keys.view(flat), memory.values.view(flat)
        self._rectangles: list[_Rectangle] = []
        self._chunks: list[_Chunk] = []
        self._gathered: dict[str, Tensor] = {}
        """Memory for what is gathered, kept from layer to layer and from step to step."""

    def plan(self, batch: StepBatch) -> None:
        """Sort the sequences into rectangles and chunks."""
        starts = np.cumsum(batch.query_lens) - batch.query_lens
        pages = -(-batch.context_lens // self._memory.page_size)
        single = np.flatnonzero(batch.query_lens == 1)
        self._rectangles = []
        order = single[np.argsort(-pages[single], kind="stable")]
        while len(order):
            fitting = int(np.count_nonzero(pages[order] * _WASTE >= pages[order[0]]))
            members = np.sort(order[:fitting])
            self._rectangles.append(self._rectangle(batch, members, starts[members], int(pages[order[0]])))
            order = order[fitting:]
        self._chunks = [
            self._chunk(batch, int(at), int(starts[at]), int(pages[at]))
            for at in np.flatnonzero(batch.query_lens > 1)
        ]

    def _rectangle(self, batch: StepBatch, members: Ints, rows: Ints, pages: int) -> _Rectangle:
        whole = len(rows) == len(batch.tokens)
        table = batch.page_table[members, :pages]
        return _Rectangle(
            None if whole else self._tensor(rows),
            self._pairs(table),
            self._mask(np.arange(pages * self._memory.page_size) < batch.context_lens[members, None])[
                :, None, None
            ],
        )

    def _chunk(self, batch: StepBatch, at: int, start: int, pages: int) -> _Chunk:
        queries, keys = int(batch.query_lens[at]), int(batch.context_lens[at])
        seen = np.arange(keys - queries, keys)[:, None] >= np.arange(keys)
        return _Chunk(
            start,
            start + queries,
            self._pairs(batch.page_table[at : at + 1, :pages]),
            keys,
            None if queries == keys else self._mask(seen),
        )

    def _pairs(self, table: NDArray[np.int32]) -> Tensor:
        heads = np.arange(self._memory.shape.kv_heads)
        return self._tensor((table[:, None] * np.int64(len(heads)) + heads[:, None]).reshape(-1))

    def _tensor(self, values: NDArray[np.integer]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, np.int64)).to(self._memory.device)

    def _mask(self, seen: NDArray[np.bool_]) -> Tensor:
        mask = torch.zeros(seen.shape, dtype=self._memory.dtype, device=self._memory.device)
        return mask.masked_fill_(torch.from_numpy(~seen).to(self._memory.device), float("-inf"))

    def run(self, layer: int, query: Tensor) -> Tensor:
        """Return [T, heads * head_dim]; see `Attention.run`."""
        if len(self._rectangles) == 1 and self._rectangles[0].rows is None:
            return self._decode(layer, query, self._rectangles[0])
        out = torch.empty_like(query.reshape(len(query), -1))
        for rectangle in self._rectangles:
            out[rectangle.rows] = self._decode(layer, query[rectangle.rows], rectangle)
        for chunk in self._chunks:
            out[chunk.start : chunk.stop] = self._extend(layer, query[chunk.start : chunk.stop], chunk)
        return out

    def _decode(self, layer: int, query: Tensor, rectangle: _Rectangle) -> Tensor:
        shape, count = self._memory.shape, len(query)
        keys, values = self._gather(layer, rectangle.pages, count)
        grouped = query.reshape(count, shape.kv_heads, self._groups, shape.head_dim)
        if query.dtype == torch.float32:
            return attend(grouped, keys, values, attn_mask=rectangle.mask).reshape(count, -1)
        scores = grouped @ keys.transpose(-1, -2)
        shares = scores.mul_(shape.head_dim**-0.5).add_(rectangle.mask).softmax(-1)
        return (shares @ values).reshape(count, -1)

    def _extend(self, layer: int, query: Tensor, chunk: _Chunk) -> Tensor:
        keys, values = (one[:, :, : chunk.keys] for one in self._gather(layer, chunk.pages, 1))
        heads = query.transpose(0, 1)[None]
        found = attend(
            heads, keys, values, attn_mask=chunk.mask, is_causal=chunk.mask is None, enable_gqa=self._groups > 1
        )
        return found[0].transpose(0, 1).reshape(len(query), -1)

    def _gather(self, layer: int, pages: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return keys and values of these pages, [count, kv_heads, tokens, head_dim]."""
        shape = self._memory.shape
        found = []
        for name, cache in (("keys", self._keys[layer]), ("values", self._values[layer])):
            needed = len(pages) * cache.shape[1]
            if name not in self._gathered or self._gathered[name].numel() < needed:
                self._gathered[name] = cache.new_empty(needed)
            buffer = self._gathered[name][:needed].view(len(pages), -1)
            torch.index_select(cache, 0, pages, out=buffer)
            found.append(buffer.view(count, shape.kv_heads, -1, shape.head_dim))
        return found[0], found[1]
