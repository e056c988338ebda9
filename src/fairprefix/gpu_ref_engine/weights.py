"""The tensors of a model, packed for few and large matrix products."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from attrs import frozen
from torch import Tensor

from fairprefix.gpu_ref_engine.architecture import Architecture
from fairprefix.gpu_ref_engine.errors import ModelError
from fairprefix.gpu_ref_engine.products import Product

Source = Callable[[str, tuple[int, ...]], Tensor]
"""From a tensor's name in Hugging Face's layout, and its size, to the tensor in any floating-point type."""


@frozen(eq=False, kw_only=True)
class LayerWeights:
    """One transformer layer."""

    input_norm: Tensor
    qkv: Product
    """Queries, then keys, then values."""
    qk_norm: Tensor | None
    """[heads + kv_heads, head_dim]: the norm of every query head, then of every key head."""
    output: Product
    mlp_norm: Tensor
    gate_up: Product
    """The gate, then what it gates."""
    down: Product


@frozen(eq=False, kw_only=True)
class Weights:
    """All of a model."""

    embedding: Tensor
    """[vocabulary, hidden]"""
    layers: Sequence[LayerWeights]
    norm: Tensor
    head: Product
    """The embedding itself, where the two are tied."""


def pack(shape: Architecture, source: Source, *, device: torch.device, dtype: torch.dtype) -> Weights:
    """Fetch every tensor from `source`, check its shape, and pack it.

    Raises:
        ModelError: a tensor is missing or has the wrong shape.
    """
    fetch = _Fetch(source, device, dtype)
    embedding = fetch("model.embed_tokens.weight", shape.vocabulary, shape.hidden)
    return Weights(
        embedding=embedding,
        layers=[_layer(shape, fetch, f"model.layers.{index}.") for index in range(shape.layers)],
        norm=fetch("model.norm.weight", shape.hidden),
        head=Product.of(
            embedding if shape.tied else fetch("lm_head.weight", shape.vocabulary, shape.hidden), None
        ),
    )


@frozen(eq=False)
class _Fetch:
    source: Source
    device: torch.device
    dtype: torch.dtype

    def __call__(self, name: str, *size: int) -> Tensor:
        """Return one tensor, which must be of this size."""
        tensor = self.source(name, size)
        if tuple(tensor.shape) != size:
            raise ModelError(f"tensor {name!r} has shape {list(tensor.shape)}: expected {list(size)}")
        return tensor.to(self.device, self.dtype).contiguous()

    def product(self, prefix: str, parts: dict[str, int], inputs: int, *, biased: bool) -> Product:
        """Return the product with several matrices one below the other; `parts` has their heights by name."""
        matrix = torch.cat([self(f"{prefix}{part}.weight", rows, inputs) for part, rows in parts.items()])
        if not biased:
            return Product.of(matrix, None)
        return Product.of(matrix, torch.cat([self(f"{prefix}{part}.bias", rows) for part, rows in parts.items()]))


def _layer(shape: Architecture, fetch: _Fetch, prefix: str) -> LayerWeights:
    attention, mlp = f"{prefix}self_attn.", f"{prefix}mlp."
    width = shape.heads * shape.head_dim
    qkv = {"q_proj": width, "k_proj": shape.kv_width, "v_proj": shape.kv_width}
    gate_up = {"gate_proj": shape.intermediate, "up_proj": shape.intermediate}
    return LayerWeights(
        input_norm=fetch(f"{prefix}input_layernorm.weight", shape.hidden),
        qkv=fetch.product(attention, qkv, shape.hidden, biased=shape.qkv_bias),
        qk_norm=_qk_norm(shape, fetch, attention) if shape.qk_norm else None,
        output=fetch.product(attention, {"o_proj": shape.hidden}, width, biased=shape.output_bias),
        mlp_norm=fetch(f"{prefix}post_attention_layernorm.weight", shape.hidden),
        gate_up=fetch.product(mlp, gate_up, shape.hidden, biased=shape.mlp_bias),
        down=fetch.product(mlp, {"down_proj": shape.hidden}, shape.intermediate, biased=shape.mlp_bias),
    )


def _qk_norm(shape: Architecture, fetch: _Fetch, attention: str) -> Tensor:
    query = fetch(f"{attention}q_norm.weight", shape.head_dim).expand(shape.heads, -1)
    key = fetch(f"{attention}k_norm.weight", shape.head_dim).expand(shape.kv_heads, -1)
    return torch.cat([query, key])
