"""What a layer computes beside matrix products and attention: three Triton kernels, one pass over memory each."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from attrs import frozen
from torch import Tensor

from fairprefix.gpu_ref_engine.architecture import Architecture
from fairprefix.gpu_ref_engine.ops import Rotary

_GATE_BLOCK = 1024


@triton.jit  # type: ignore[untyped-decorator]
def _norm(values, residual, weight, out, width, epsilon, ADD: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, N803
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    real = at < width
    x = tl.load(values + row * width + at, mask=real, other=0.0).to(tl.float32)
    if ADD:
        x = x + tl.load(residual + row * width + at, mask=real, other=0.0).to(tl.float32)
        rounded = x.to(residual.dtype.element_ty)
        tl.store(residual + row * width + at, rounded, mask=real)
        x = rounded.to(tl.float32)
    x = x / tl.sqrt(tl.sum(x * x, 0) / width + epsilon)
    w = tl.load(weight + at, mask=real, other=0.0).to(tl.float32)
    tl.store(out + row * width + at, (x * w).to(out.dtype.element_ty), mask=real)


@triton.jit  # type: ignore[untyped-decorator]
def _rotate_and_store(  # type: ignore[no-untyped-def]  # noqa: ANN202, PLR0917
    qkv, norm_weight, cosine, sine, positions, rows, keys, values, queries, epsilon,  # noqa: ANN001
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, DIM: tl.constexpr, HALF: tl.constexpr, NORM: tl.constexpr,  # noqa: N803
):  # fmt: skip
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    at = tl.arange(0, HALF)
    real = at < DIM // 2
    source = qkv + (token * (HEADS + 2 * KV_HEADS) + head) * DIM
    low = tl.load(source + at, mask=real, other=0.0)
    high = tl.load(source + DIM // 2 + at, mask=real, other=0.0)
    if head >= HEADS + KV_HEADS:
        row = tl.load(rows + token * KV_HEADS + head - HEADS - KV_HEADS)
        tl.store(values + row * DIM + at, low, mask=real)
        tl.store(values + row * DIM + DIM // 2 + at, high, mask=real)
        return
    a, b = low.to(tl.float32), high.to(tl.float32)
    if NORM:
        scale = 1 / tl.sqrt((tl.sum(a * a, 0) + tl.sum(b * b, 0)) / DIM + epsilon)
        a = a * scale * tl.load(norm_weight + head * DIM + at, mask=real, other=0.0).to(tl.float32)
        b = b * scale * tl.load(norm_weight + head * DIM + DIM // 2 + at, mask=real, other=0.0).to(tl.float32)
    position = tl.load(positions + token)
    # The table's sine has a minus in its first half, so that one formula serves both halves.
    c = tl.load(cosine + position * DIM + at, mask=real, other=0.0).to(tl.float32)
    s = tl.load(sine + position * DIM + DIM // 2 + at, mask=real, other=0.0).to(tl.float32)
    first, second = (a * c - b * s).to(low.dtype), (b * c + a * s).to(low.dtype)
    if head < HEADS:
        target = queries + (token * HEADS + head) * DIM
    else:
        target = keys + tl.load(rows + token * KV_HEADS + head - HEADS) * DIM
    tl.store(target + at, first, mask=real)
    tl.store(target + DIM // 2 + at, second, mask=real)


@triton.jit  # type: ignore[untyped-decorator]
def _gate(gate_up, out, width, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202, N803
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    real = at < width
    gate = tl.load(gate_up + row * 2 * width + at, mask=real, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * width + width + at, mask=real, other=0.0).to(tl.float32)
    tl.store(out + row * width + at, (gate / (1 + tl.exp(-gate)) * up).to(out.dtype.element_ty), mask=real)


@frozen(eq=False)
class TritonOps:
    """See `Ops`."""

    shape: Architecture
    rotary: Rotary

    def norm(self, values: Tensor, weight: Tensor) -> Tensor:
        """See `Ops.norm`."""
        return self._normed(values, values, weight, add=False)

    def add_norm(self, values: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """See `Ops.add_norm`."""
        return self._normed(values, residual, weight, add=True), residual

    def _normed(self, values: Tensor, residual: Tensor, weight: Tensor, *, add: bool) -> Tensor:
        out, width = torch.empty_like(values), values.shape[1]
        kernel: Any = _norm
        block = triton.next_power_of_2(width)
        kernel[len(values),](values, residual, weight, out, width, self.shape.epsilon, ADD=add, BLOCK=block)
        return out

    def rotate_and_store(
        self, qkv: Tensor, qk_norm: Tensor | None, positions: Tensor, rows: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """See `Ops.rotate_and_store`."""
        shape, kernel = self.shape, _rotate_and_store
        queries = qkv.new_empty((len(qkv), shape.heads, shape.head_dim))
        grid = (len(qkv), shape.heads + 2 * shape.kv_heads)
        start: Any = kernel
        start[grid](
            qkv, qkv if qk_norm is None else qk_norm, self.rotary.cosine, self.rotary.sine, positions, rows,
            keys, values, queries, shape.epsilon,
            HEADS=shape.heads, KV_HEADS=shape.kv_heads, DIM=shape.head_dim,
            HALF=triton.next_power_of_2(shape.head_dim // 2), NORM=qk_norm is not None, num_warps=1,
        )  # fmt: skip
        return queries

    def gate(self, gate_up: Tensor) -> Tensor:
        """See `Ops.gate`."""
        width = gate_up.shape[1] // 2
        out = gate_up.new_empty((len(gate_up), width))
        kernel: Any = _gate
        kernel[len(gate_up), triton.cdiv(width, _GATE_BLOCK)](gate_up, out, width, BLOCK=_GATE_BLOCK)
        return out
