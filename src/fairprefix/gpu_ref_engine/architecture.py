"""The shape of a model: dense decoder-only transformers of the Llama, Qwen2 and Qwen3 families."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from fairprefix.core.errors import nearest
from fairprefix.gpu_ref_engine.errors import ModelError

FAMILIES = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3"}
"""Families by the name that Hugging Face's config.json has under `architectures`."""
_DEFAULT_THETA = 10_000.0


@frozen(kw_only=True)
class Architecture:
    """Sizes and variants of one model."""

    family: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    longest: int
    """The longest sequence, in tokens."""
    theta: float = _DEFAULT_THETA
    """Base of the rotary frequencies."""
    divisors: tuple[float, ...] = ()
    """What each rotary frequency is divided by, to reach contexts longer than the first training's; (): 1."""
    epsilon: float = 1e-6
    """Of the norms."""
    tied: bool = False
    """Whether the output head is the embedding."""
    qkv_bias: bool = False
    output_bias: bool = False
    """Whether the attention's output projection has a bias."""
    mlp_bias: bool = False
    qk_norm: bool = False
    """Whether every head's query and key are normalised before the rotary embedding."""

    def __attrs_post_init__(self) -> None:
        """Refuse sizes that contradict each other."""
        if self.heads % self.kv_heads:
            raise ModelError(f"{self.heads} query heads cannot share {self.kv_heads} key/value heads evenly")
        if self.head_dim % 2:
            raise ModelError(f"head_dim = {self.head_dim}: the rotary embedding needs an even number")

    def frequencies(self) -> list[float]:
        """Return the rotary frequencies, radians per token, one for each pair of dimensions."""
        plain = rotary_frequencies(self.theta, self.head_dim)
        return (
            [one / divisor for one, divisor in zip(plain, self.divisors, strict=True)] if self.divisors else plain
        )

    @property
    def kv_width(self) -> int:
        """Return the values of one token's key (or value) in one layer."""
        return self.kv_heads * self.head_dim


def rotary_frequencies(theta: float, head_dim: int) -> list[float]:
    """Return the unscaled frequencies of a rotary embedding, radians per token."""
    return [theta ** (-2 * pair / head_dim) for pair in range(head_dim // 2)]


def from_hugging_face(config: Mapping[str, Any]) -> Architecture:
    """Read the parsed config.json of a Hugging Face directory.

    Raises:
        ModelError: the architecture, or a variant of it, is not supported; or a field is missing.
    """
    name = (config.get("architectures") or ["(none)"])[0]
    if name not in FAMILIES:
        raise ModelError(
            f"architecture {name} is not supported{nearest(name, FAMILIES)}: expected one of {', '.join(FAMILIES)}"
        )
    family = FAMILIES[name]
    if config.get("use_sliding_window"):
        raise ModelError("use_sliding_window: sliding-window attention is not supported")
    if config.get("hidden_act", "silu") != "silu":
        raise ModelError(f"hidden_act = {config['hidden_act']!r} is not supported: expected 'silu'")
    try:
        heads = int(config["num_attention_heads"])
        head_dim = int(config.get("head_dim") or config["hidden_size"] // heads)
        biased = bool(config.get("attention_bias", False))
        return Architecture(
            family=family,
            layers=int(config["num_hidden_layers"]),
            hidden=int(config["hidden_size"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=head_dim,
            intermediate=int(config["intermediate_size"]),
            vocabulary=int(config["vocab_size"]),
            longest=int(config["max_position_embeddings"]),
            theta=_theta(config),
            divisors=_divisors(config, head_dim),
            epsilon=float(config.get("rms_norm_eps", 1e-6)),
            tied=bool(config.get("tie_word_embeddings", False)),
            qkv_bias=biased or family == "qwen2",
            output_bias=biased and family != "qwen2",
            mlp_bias=bool(config.get("mlp_bias", False)),
            qk_norm=family == "qwen3",
        )
    except KeyError as missing:
        raise ModelError(f"config.json has no {missing.args[0]!r}") from None


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what describes the rotary embedding, under the name that it has in this version of the format."""
    found: Mapping[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return found


def _theta(config: Mapping[str, Any]) -> float:
    return float(config.get("rope_theta") or _rope(config).get("rope_theta") or _DEFAULT_THETA)


def _divisors(config: Mapping[str, Any], head_dim: int) -> tuple[float, ...]:
    """Return the divisors of the rotary frequencies, as Llama 3.1 and its successors define them."""
    rope = _rope(config)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return ()
    if kind != "llama3":
        raise ModelError(f"rope type {kind!r} is not supported: expected 'default' or 'llama3'")
    return llama3_divisors(
        theta=_theta(config),
        head_dim=head_dim,
        factor=float(rope["factor"]),
        low=float(rope["low_freq_factor"]),
        high=float(rope["high_freq_factor"]),
        trained=int(rope["original_max_position_embeddings"]),
    )


def llama3_divisors(
    *, theta: float, head_dim: int, factor: float, low: float, high: float, trained: int
) -> tuple[float, ...]:
    """Return by how much Llama 3.1 slows each rotary frequency down.

    Args:
        theta: base of the frequencies.
        head_dim: twice their number.
        factor: divides frequencies that make at most `low` turns in the length of the first training; those that
            make at least `high` stay, those between are blended linearly.
        low: see factor.
        high: see factor.
        trained: length of the first training, in tokens.
    """

    def divisor(frequency: float) -> float:
        turns = trained * frequency / (2 * math.pi)
        kept = min(max((turns - low) / (high - low), 0.0), 1.0)
        return 1 / (kept + (1 - kept) / factor)

    return tuple(divisor(one) for one in rotary_frequencies(theta, head_dim))
