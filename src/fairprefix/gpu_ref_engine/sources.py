"""Where tensors come from: a directory in Hugging Face's layout, a GGUF file, or a generator of random numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairprefix.gpu_ref_engine.architecture import Architecture, rotary_frequencies
from fairprefix.gpu_ref_engine.errors import ModelError, need
from fairprefix.gpu_ref_engine.gguf import GgufFile
from fairprefix.gpu_ref_engine.weights import Source

_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"
_GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER = "model.layers."


def read_json(path: Path) -> Mapping[str, Any]:
    """Return the object in a JSON file.

    Raises:
        ModelError: the file is missing or does not hold a JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ModelError(f"{path}: cannot be read: {problem.strerror or problem}") from None
    except ValueError as problem:
        raise ModelError(f"{path}: is not valid JSON: {problem}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{path}: expected a JSON object, got {type(found).__name__}")
    return found


def safetensors_source(folder: Path) -> Source:
    """Return the tensors of model.safetensors, or of the shards that model.safetensors.index.json lists.

    Raises:
        ModelError: neither is there, or (when a tensor is fetched) a shard or tensor is missing or damaged.
    """
    library = need("safetensors", "engine")
    shards: Mapping[str, str] | None = None
    if (folder / _INDEX).is_file():
        shards = read_json(folder / _INDEX).get("weight_map", {})
    elif not (folder / _SINGLE).is_file():
        raise ModelError(f"{folder}: has neither {_SINGLE} nor {_INDEX}")
    opened: dict[str, Any] = {}

    def fetch(name: str, _size: tuple[int, ...]) -> Tensor:
        shard = _SINGLE if shards is None else shards.get(name)
        if shard is None:
            raise ModelError(f"{folder / _INDEX}: lists no tensor {name!r}")
        try:
            if shard not in opened:
                opened[shard] = library.safe_open(folder / shard, framework="pt")
            tensor: Tensor = opened[shard].get_tensor(name)
        except (OSError, library.SafetensorError) as problem:
            raise ModelError(f"{folder / shard}: tensor {name!r} cannot be read: {problem}") from None
        return tensor

    return fetch


def gguf_architecture(file: GgufFile) -> Architecture:
    """Read the shape of a model from the metadata of a GGUF file.

    Raises:
        ModelError: the architecture is not supported, or a key is missing.
    """
    meta = file.metadata
    family = str(meta.get("general.architecture"))
    if family not in ("llama", "qwen2", "qwen3"):
        raise ModelError(f"{file.path}: architecture {family!r} is not supported: expected llama, qwen2 or qwen3")
    scaling = meta.get(f"{family}.rope.scaling.type", "none")
    if scaling != "none":
        raise ModelError(f"{file.path}: rope scaling {scaling!r} is not supported: expected 'none'")
    try:
        heads, hidden = int(meta[f"{family}.attention.head_count"]), int(meta[f"{family}.embedding_length"])
        head_dim = int(meta.get(f"{family}.attention.key_length", hidden // heads))
        theta = float(meta.get(f"{family}.rope.freq_base", 10_000.0))
        return Architecture(
            family=family,
            layers=int(meta[f"{family}.block_count"]),
            hidden=hidden,
            heads=heads,
            kv_heads=int(meta.get(f"{family}.attention.head_count_kv", heads)),
            head_dim=head_dim,
            intermediate=int(meta[f"{family}.feed_forward_length"]),
            vocabulary=file.entry("token_embd.weight").shape[0],
            longest=int(meta[f"{family}.context_length"]),
            theta=theta,
            divisors=_gguf_divisors(file, theta, head_dim),
            epsilon=float(meta[f"{family}.attention.layer_norm_rms_epsilon"]),
            tied="output.weight" not in file.tensors,
            qkv_bias="blk.0.attn_q.bias" in file.tensors,
            output_bias="blk.0.attn_output.bias" in file.tensors,
            mlp_bias="blk.0.ffn_gate.bias" in file.tensors,
            qk_norm="blk.0.attn_q_norm.weight" in file.tensors,
        )
    except KeyError as missing:
        raise ModelError(f"{file.path}: the metadata have no {missing.args[0]!r}") from None


def _gguf_divisors(file: GgufFile, theta: float, head_dim: int) -> tuple[float, ...]:
    name = "rope_freqs.weight"
    if name not in file.tensors:
        return ()
    divisors = tuple(float(one) for one in file.tensor(name))
    if len(divisors) != len(rotary_frequencies(theta, head_dim)):
        raise ModelError(f"{file.path}: {name} has {len(divisors)} values: expected {head_dim // 2}")
    return divisors


def gguf_source(file: GgufFile, shape: Architecture) -> Source:
    """Return the tensors of a GGUF file under Hugging Face's names, with Hugging Face's order of rows."""

    def fetch(name: str, _size: tuple[int, ...]) -> Tensor:
        tensor = torch.from_numpy(file.tensor(gguf_name(name)).copy())
        if shape.family == "llama" and ".q_proj." in name:
            return _halves_from_pairs(tensor, shape.heads)
        if shape.family == "llama" and ".k_proj." in name:
            return _halves_from_pairs(tensor, shape.kv_heads)
        return tensor

    return fetch


def gguf_name(name: str) -> str:
    """Return the name that a tensor of Hugging Face's layout has in a GGUF file."""
    stem, _, suffix = name.rpartition(".")
    if not stem.startswith(_LAYER):
        return f"{_GGUF_NAMES[stem]}.{suffix}"
    index, _, part = stem.removeprefix(_LAYER).partition(".")
    return f"blk.{index}.{_GGUF_NAMES[part]}.{suffix}"


def _halves_from_pairs(tensor: Tensor, heads: int) -> Tensor:
    """Reorder the rows of a head: GGUF's llama rotates neighbours (0, 1), ours rotates halves (0, n/2)."""
    rows = tensor.shape[0] // heads
    return tensor.reshape(heads, rows // 2, 2, -1).swapaxes(1, 2).reshape(tensor.shape)


def random_source(seed: int, device: torch.device) -> Source:
    """Return random tensors, the same for the same seed and device: a model that computes, and knows nothing."""
    generator = torch.Generator(device).manual_seed(seed)

    def fetch(name: str, size: tuple[int, ...]) -> Tensor:
        if name.endswith("norm.weight"):
            return torch.ones(size, device=device)
        if name.endswith(".bias"):
            return torch.zeros(size, device=device)
        # A spread of 1 / sqrt(inputs) keeps activations, and logits, of order 1.
        return torch.randn(size, generator=generator, device=device).mul_(size[-1] ** -0.5)

    return fetch
