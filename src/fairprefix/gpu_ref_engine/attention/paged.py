"""Paged attention as a Triton kernel of our own: prefill and decode, on any GPU that Triton compiles for.

A program takes a tile, some consecutive queries of one sequence, and one key head with all query heads that share
it, and walks over the pages with the online softmax (Milakov and Gimelshein, 2018; Dao et al., FlashAttention,
2022). Where a step decodes too few sequences to fill a GPU, each sequence's keys are split among programs, whose
results are merged by their log-sum-exp. With TRITON_INTERPRET=1 all of it runs on a CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from fairprefix.gpu_ref_engine.attention.base import KvMemory
from fairprefix.gpu_ref_engine.batch import StepBatch
from fairprefix.gpu_ref_engine.transfer import to_device

_ROWS = 64
"""Rows (queries times heads) of a tile in prefill."""
_LEAST_ROWS = 16
"""Of any tile: what the tensor cores take."""
_KEYS = 64
"""Keys per round of a program's loop."""
_PROGRAMS = 264
"""Programs that fill a large GPU (twice the multiprocessors of an H100)."""
_INTERPRETED = 8
"""The same on a CPU, where the interpreter runs one after the other: enough for some splits."""
_MOST_SPLITS = 16


@triton.jit  # type: ignore[untyped-decorator]
def _attend(  # type: ignore[no-untyped-def]  # noqa: ANN202, PLR0917
    query, keys, values, out, weight, tiles, table, table_width, scale,  # noqa: ANN001
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, PAGE: tl.constexpr,  # noqa: N803
    BLOCK_DIM: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr, SPLITS: tl.constexpr,  # noqa: N803
):  # fmt: skip
    tile, head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    sequence = tl.load(tiles + tile * 4)
    first_row = tl.load(tiles + tile * 4 + 1)
    position = tl.load(tiles + tile * 4 + 2)
    count = tl.load(tiles + tile * 4 + 3)
    group: tl.constexpr = HEADS // KV_HEADS
    row = tl.arange(0, ROWS)
    dim = tl.arange(0, BLOCK_DIM)
    token = row // group
    real = (token < count)[:, None] & (dim < DIM)[None, :]
    place = (first_row + token).to(tl.int64) * HEADS + head * group + row % group
    q = tl.load(query + place[:, None] * DIM + dim[None, :], mask=real, other=0.0)

    best = tl.full([ROWS], -1e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    mixed = tl.zeros([ROWS, BLOCK_DIM], tl.float32)
    context = position + count
    share = tl.cdiv(tl.cdiv(context, SPLITS), KEYS) * KEYS
    begin = split * share
    end = tl.minimum(begin + share, context)
    for start in range(begin, end, KEYS):
        at = start + tl.arange(0, KEYS)
        inside = at < end
        page = tl.load(table + sequence * table_width + at // PAGE, mask=inside, other=0).to(tl.int64)
        source = ((page * KV_HEADS + head) * PAGE + at % PAGE)[:, None] * DIM + dim[None, :]
        there = inside[:, None] & (dim < DIM)[None, :]
        k = tl.load(keys + source, mask=there, other=0.0)
        v = tl.load(values + source, mask=there, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        seen = inside[None, :] & (at[None, :] <= (position + token)[:, None])
        scores = tl.where(seen, scores, -1e30)
        higher = tl.maximum(best, tl.max(scores, 1))
        shrink = tl.exp(best - higher)
        shares = tl.where(seen, tl.exp(scores - higher[:, None]), 0.0)
        total = total * shrink + tl.sum(shares, 1)
        mixed = mixed * shrink[:, None] + tl.dot(shares.to(v.dtype), v, input_precision="ieee")
        best = higher
    mixed = mixed / tl.where(total > 0, total, 1.0)[:, None]
    target = (place * SPLITS + split)[:, None] * DIM + dim[None, :]
    tl.store(out + target, mixed.to(out.dtype.element_ty), mask=real)
    if SPLITS > 1:
        amount = tl.where(total > 0, best + tl.log(tl.where(total > 0, total, 1.0)), -1e30)
        tl.store(weight + place * SPLITS + split, amount, mask=token < count)


class PagedAttention:
    """See `Attention`.

    Args:
        memory: keys and values.
        rows: None, or so many decoding sequences in every step: then nothing that the kernels read ever moves,
            and `run` can be captured in a CUDA graph.
    """

    def __init__(self, memory: KvMemory, rows: int | None = None) -> None:
        self._memory = memory
        self._group = memory.shape.heads // memory.shape.kv_heads
        self._programs = _PROGRAMS if memory.device.type == "cuda" else _INTERPRETED
        self._fixed: tuple[Tensor, Tensor] | None = None
        """Tiles and page table, where they may not move."""
        if rows is not None:
            widest = -(-memory.longest // memory.page_size)
            self._fixed = (self._ints((rows, 4)), self._ints((rows, widest)))
        self._launches: list[tuple[Tensor, int, int]] = []
        """Tiles, rows and splits of each."""
        self._table = self._ints((0, 0))

    def _ints(self, size: tuple[int, int]) -> Tensor:
        return torch.zeros(size, dtype=torch.int32, device=self._memory.device)

    def plan(self, batch: StepBatch) -> None:
        """Cut the queries into tiles."""
        starts = np.cumsum(batch.query_lens) - batch.query_lens
        pasts = batch.context_lens - batch.query_lens
        single, longer = np.flatnonzero(batch.query_lens == 1), np.flatnonzero(batch.query_lens > 1)
        decode = np.stack([single, starts[single], pasts[single], np.ones_like(single)], 1)
        if self._fixed is not None:
            tiles, table = self._fixed
            tiles.copy_(to_device(decode.astype(np.int32), self._memory.device), non_blocking=True)
            fresh = to_device(batch.page_table, self._memory.device)
            table[:, : fresh.shape[1]].copy_(fresh, non_blocking=True)
            self._table, self._launches = table, [(tiles, self._least(), self._splits(len(tiles)))]
            return
        self._table = to_device(batch.page_table, self._memory.device)
        rows = max(_ROWS, self._least())
        height = rows // self._group
        chunks = [_tiles(at, starts[at], pasts[at], batch.query_lens[at], height) for at in longer]
        planned = [
            (decode, self._least(), self._splits(len(decode))),
            (np.concatenate([decode[:0], *chunks]), rows, 1),
        ]
        self._launches = [
            (to_device(tiles.astype(np.int32), self._memory.device), height, splits)
            for tiles, height, splits in planned
            if len(tiles)
        ]

    def _least(self) -> int:
        return max(_LEAST_ROWS, int(triton.next_power_of_2(self._group)))

    def _splits(self, sequences: int) -> int:
        wanted = self._programs // max(sequences * self._memory.shape.kv_heads, 1)
        return min(max(int(triton.next_power_of_2(wanted + 1)) // 2, 1), _MOST_SPLITS)

    def run(self, layer: int, query: Tensor) -> Tensor:
        """Return [T, heads * head_dim]; see `Attention.run`."""
        query = query.contiguous()
        out = torch.empty_like(query)
        for tiles, rows, splits in self._launches:
            if splits == 1:
                self._start(layer, query, out, out, tiles, rows, 1)
                continue
            parts = out.new_empty((*query.shape[:2], splits, query.shape[2]), dtype=torch.float32)
            weight = parts.new_empty(parts.shape[:3])
            self._start(layer, query, parts, weight, tiles, rows, splits)
            chosen = tiles[:, 1].long()
            merged = (parts[chosen] * weight[chosen].softmax(-1)[..., None]).sum(2)
            out.index_copy_(0, chosen, merged.to(out.dtype))
        return out.flatten(1)

    def _start(
        self, layer: int, query: Tensor, out: Tensor, weight: Tensor, tiles: Tensor, rows: int, splits: int
    ) -> None:
        shape = self._memory.shape
        kernel: Any = _attend
        kernel[len(tiles), shape.kv_heads, splits](
            query, self._memory.keys[layer], self._memory.values[layer], out, weight, tiles, self._table,
            self._table.stride(0), shape.head_dim**-0.5,
            HEADS=shape.heads, KV_HEADS=shape.kv_heads, DIM=shape.head_dim, PAGE=self._memory.page_size,
            BLOCK_DIM=max(triton.next_power_of_2(shape.head_dim), _LEAST_ROWS),
            ROWS=rows, KEYS=_KEYS, SPLITS=splits,
        )  # fmt: skip


def _tiles(at: np.int64, start: np.int64, past: np.int64, queries: np.int64, height: int) -> NDArray[np.int64]:
    """Return sequence, row, position and count of each tile of a chunk."""
    offsets = np.arange(0, queries, height)
    counts = np.minimum(queries - offsets, height)
    return np.stack([np.full_like(offsets, at), start + offsets, past + offsets, counts], 1)
