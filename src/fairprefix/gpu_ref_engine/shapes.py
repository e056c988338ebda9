"""Shapes of models that random weights can be made for: the tiny one, and public ones for benchmarks."""

from __future__ import annotations

from collections.abc import Mapping

from fairprefix.gpu_ref_engine.architecture import Architecture, llama3_divisors

_LLAMA3_THETA = 500_000.0


SHAPES: Mapping[str, Architecture] = {
    "tiny": Architecture(
        family="llama", layers=4, hidden=256, heads=4, kv_heads=2, head_dim=64, intermediate=704, vocabulary=320,
        longest=4096, tied=True,
    ),
    "llama-3.2-1b": Architecture(
        family="llama", layers=16, hidden=2048, heads=32, kv_heads=8, head_dim=64, intermediate=8192,
        vocabulary=128_256, longest=131_072, theta=_LLAMA3_THETA, epsilon=1e-5, tied=True,
        divisors=llama3_divisors(
            theta=_LLAMA3_THETA, head_dim=64, factor=32.0, low=1.0, high=4.0, trained=8192
        ),
    ),
    "llama-3.1-8b": Architecture(
        family="llama", layers=32, hidden=4096, heads=32, kv_heads=8, head_dim=128, intermediate=14_336,
        vocabulary=128_256, longest=131_072, theta=_LLAMA3_THETA, epsilon=1e-5,
        divisors=llama3_divisors(
            theta=_LLAMA3_THETA, head_dim=128, factor=8.0, low=1.0, high=4.0, trained=8192
        ),
    ),
    "qwen3-0.6b": Architecture(
        family="qwen3", layers=28, hidden=1024, heads=16, kv_heads=8, head_dim=128, intermediate=3072,
        vocabulary=151_936, longest=40_960, theta=1_000_000.0, tied=True, qk_norm=True,
    ),
}  # fmt: skip
"""By name; "tiny" has 3 million parameters and takes milliseconds to make."""
