"""What a layer computes beside matrix products and attention, with torch alone (`kernels` has it for GPUs)."""

from __future__ import annotations

from typing import Protocol

import torch
from attrs import frozen
from torch import Tensor
from torch.nn.functional import rms_norm, silu

from fairprefix.gpu_ref_engine.architecture import Architecture


@frozen(eq=False, kw_only=True)
class Rotary:
    """Cosines and sines by position, [longest, head_dim]; a pair's dimensions stand head_dim / 2 apart."""

    cosine: Tensor
    sine: Tensor
    """With a minus in the first half."""

    @classmethod
    def of(cls, shape: Architecture, longest: int, *, device: torch.device, dtype: torch.dtype) -> Rotary:
        """Compute the tables of a model for positions below `longest`."""
        frequencies = torch.tensor(shape.frequencies(), dtype=torch.float32)
        angles = torch.arange(longest, dtype=torch.float32)[:, None] * frequencies
        cosine, sine = angles.cos(), angles.sin()
        return cls(
            cosine=torch.cat([cosine, cosine], dim=1).to(device, dtype),
            sine=torch.cat([-sine, sine], dim=1).to(device, dtype),
        )


class Ops(Protocol):
    """Element-wise parts of a layer; each may overwrite the activations that it is given."""

    def norm(self, values: Tensor, weight: Tensor) -> Tensor:
        """Return the root-mean-square norm of [T, hidden]."""
        ...

    def add_norm(self, values: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the norm of values + residual, and that sum."""
        ...

    def rotate_and_store(
        self, qkv: Tensor, qk_norm: Tensor | None, positions: Tensor, rows: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """Normalise (if need be) and rotate queries and keys, store keys and values, return the queries.

        Args:
            qkv: [T, (heads + 2 * kv_heads) * head_dim]
            qk_norm: [heads + kv_heads, head_dim], or None.
            positions: [T]
            rows: [T, kv_heads] where to store, see `KvMemory.rows`.
            keys: of this layer, [pages, kv_heads, page_size, head_dim].
            values: likewise.

        Returns:
            [T, heads, head_dim]
        """
        ...

    def gate(self, gate_up: Tensor) -> Tensor:
        """Return silu(gate) * up of [T, 2 * intermediate]."""
        ...


@frozen(eq=False)
class TorchOps:
    """See `Ops`."""

    shape: Architecture
    rotary: Rotary

    def norm(self, values: Tensor, weight: Tensor) -> Tensor:
        """See `Ops.norm`."""
        return rms_norm(values, weight.shape, weight, self.shape.epsilon)

    def add_norm(self, values: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """See `Ops.add_norm`."""
        residual = residual.add_(values)
        return self.norm(residual, weight), residual

    def rotate_and_store(
        self, qkv: Tensor, qk_norm: Tensor | None, positions: Tensor, rows: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """See `Ops.rotate_and_store`."""
        shape = self.shape
        heads = qkv.view(len(qkv), -1, shape.head_dim)
        rotated = heads[:, : shape.heads + shape.kv_heads]
        if qk_norm is not None:
            rotated.copy_(rms_norm(rotated, (shape.head_dim,), None, shape.epsilon).mul_(qk_norm))
        swapped = rotated.roll(shape.head_dim // 2, -1)
        cosine, sine = self.rotary.cosine[positions, None], self.rotary.sine[positions, None]
        rotated.mul_(cosine).addcmul_(swapped, sine)
        flat, size = rows.flatten(), (-1, shape.head_dim)
        keys.view(size).index_copy_(0, flat, heads[:, shape.heads : -shape.kv_heads].reshape(size))
        values.view(size).index_copy_(0, flat, heads[:, -shape.kv_heads :].reshape(size))
        return heads[:, : shape.heads]

    def gate(self, gate_up: Tensor) -> Tensor:
        """See `Ops.gate`."""
        gate, up = gate_up.chunk(2, -1)
        return silu(gate).mul_(up)
