"""Constants of GPUs and language models for the roofline model of a step.

Peak compute, bandwidth and usable memory are datasheet figures. The efficiencies of linear layers
(`weight_efficiency`, `compute_efficiency`, `knee`, `layer_overhead_us`) were fitted to Vidur's public
per-operator profiles of the A100, H100 and A40 (mean error 2.5-4 %); the A10G borrows the A40's, the H200's
are guesses between measured readings. The efficiencies of attention are assumed. Expect step times within
10-15 %, and trust ratios between policies more than absolute times.
"""

from __future__ import annotations

from attrs import frozen

GIB = 1 << 30
BYTES_PER_VALUE = 2
"""bf16 weights and KV cache."""
MEMORY_FRACTION = 0.88
"""Share of the memory that weights and KV cache may fill together; the rest is activations and graphs."""


@frozen
class Gpu:
    """What the roofline model has to know of a GPU."""

    flops: float
    """Peak dense bf16 compute, floating-point operations per second."""
    bandwidth: float
    """Peak memory bandwidth, bytes per second."""
    weight_efficiency: float
    """Share of the bandwidth that linear layers reach while they are bound by memory."""
    compute_efficiency: float
    """Share of the compute that linear layers reach while they are bound by compute."""
    knee: float
    """Exponent of the soft maximum between the two: the larger, the sharper the knee."""
    layer_overhead_us: float
    """Fixed time per layer, microseconds: kernel launches and gaps."""
    memory_gib: float
    """Usable memory, GiB."""
    attention_bandwidth_efficiency: float = 0.75
    attention_compute_efficiency: float = 0.50
    elementwise_efficiency: float = 0.80
    """Share of the bandwidth that norms, rotary embedding, activation and residuals reach."""


@frozen
class LanguageModel:
    """Architecture of a dense decoder-only transformer with grouped-query attention, in bf16."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    linear_parameters: float
    """Parameters of the layers' matrices, without embedding and output head."""
    weights_gib: float
    """Memory of all weights, GiB."""

    @property
    def kv_bytes_per_token(self) -> int:
        """Return the bytes that one token takes in the KV cache: a key and a value per layer and KV head."""
        return 2 * BYTES_PER_VALUE * self.layers * self.kv_heads * self.head_dim

    @property
    def attention_flops_per_pair(self) -> int:
        """Return the operations per (query, key) pair: two products of two operations per dimension."""
        return 4 * self.layers * self.heads * self.head_dim


GPUS = {
    "a10g": Gpu(70e12, 600e9, 0.78, 0.70, 1.45, 2.0, 22.2),
    "a100": Gpu(312e12, 2039e9, 0.86, 0.66, 1.7, 55.0, 79.1),
    "a100-graphs": Gpu(312e12, 2039e9, 0.86, 0.66, 1.7, 4.0, 79.1),
    "h100": Gpu(989e12, 3350e9, 0.74, 0.65, 1.3, 8.0, 79.1),
    "h200": Gpu(989e12, 4800e9, 0.80, 0.70, 1.5, 4.0, 139.8),
}
"""GPUs by name; "a100" runs eagerly, as in the profiles behind it, "a100-graphs" with CUDA graphs (optimistic)."""

MODELS = {
    "llama-3.1-8b": LanguageModel(32, 4096, 32, 8, 128, 128256, 6.979e9, 14.96),
    "llama-3.2-3b": LanguageModel(28, 3072, 24, 8, 128, 128256, 2.819e9, 5.98),
}


def kv_capacity(model: LanguageModel, gpu: Gpu) -> int:
    """Return how many tokens the KV cache holds beside the weights; at most 0: the model does not fit."""
    free_gib = gpu.memory_gib * MEMORY_FRACTION - model.weights_gib
    return int(free_gib * GIB) // model.kv_bytes_per_token
