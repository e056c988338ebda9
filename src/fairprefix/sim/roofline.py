"""Step times from a roofline: every part of a step is bound either by memory or by compute.

    linear    = softmax(weight bytes / bandwidth, 2 * parameters * tokens / compute) + layers * overhead
    head      = the same for the output head, over the sequences that are sampled
    decode    = context tokens * KV bytes per token / bandwidth
    prefill   = per chunk the larger of attention compute and reading its keys and values
    the rest  = norms, rotary embedding, activation, residuals: bytes per token / bandwidth

where softmax(a, b) = (a^p + b^p)^(1/p). Every chunk counts as sampled, as in engines that compute logits for
partial chunks. Each component is computed in floating point and rounded once to whole picoseconds.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import field, frozen

from fairprefix.sim.decoderun import DecodeCurve, DecodeRun, HostTime
from fairprefix.sim.hardware import BYTES_PER_VALUE, Gpu, LanguageModel

PS_PER_SECOND = 1e12
ELEMENTWISE_BYTES = 28
"""Bytes that element-wise kernels move per token, layer and hidden dimension."""


@frozen(eq=False)
class RooflineModel:
    """Step times of a language model on a GPU, predicted from `fairprefix.sim.hardware`."""

    name: str
    kv_tokens: int
    """Default size of the KV cache, tokens."""
    model: LanguageModel
    gpu: Gpu
    host: HostTime
    context_ps: int = field(init=False)
    """Time per token of context in a decode step, ps."""
    _linear_ps: dict[int, int] = field(init=False, factory=dict, repr=False)
    _head_ps: dict[int, int] = field(init=False, factory=dict, repr=False)
    _curves: dict[int, DecodeCurve] = field(init=False, factory=dict, repr=False)
    _pair_ps: float = field(init=False, repr=False)
    _read_ps: float = field(init=False, repr=False)

    @context_ps.default
    def _context_ps(self) -> int:
        return round(self._kv_read_ps())

    @_read_ps.default
    def _kv_read_ps(self) -> float:
        rate = self.gpu.bandwidth * self.gpu.attention_bandwidth_efficiency
        return self.model.kv_bytes_per_token / rate * PS_PER_SECOND

    @_pair_ps.default
    def _attention_pair_ps(self) -> float:
        rate = self.gpu.flops * self.gpu.attention_compute_efficiency
        return self.model.attention_flops_per_pair / rate * PS_PER_SECOND

    def step_ps(self, *, prefills: Sequence[tuple[int, int]], decodes: int, context: int) -> int:
        """Return the time of one step in ps (see `fairprefix.sim.steptime.StepTimeModel`)."""
        if not prefills:
            return self._curve(decodes).at(context) if decodes else 0
        tokens, attention = decodes, context * self.context_ps
        for new, cached in prefills:
            tokens += new
            attention += self.prefill_attention_ps(new, cached)
        return self.host.step(self.linear_ps(tokens) + self.head_ps(decodes + len(prefills)) + attention)

    def decode_run(self, decodes: int, context: int) -> DecodeRun:
        """Return the run of decode steps that begins with `decodes` sequences over `context` tokens."""
        return DecodeRun(self._curve(decodes), decodes, context)

    def linear_ps(self, tokens: int) -> int:
        """Return the time in ps of linear layers and element-wise kernels over `tokens` tokens."""
        if tokens not in self._linear_ps:
            model, gpu = self.model, self.gpu
            elementwise_bytes = tokens * model.layers * model.hidden * ELEMENTWISE_BYTES
            seconds = (
                self._product_seconds(model.linear_parameters, tokens)
                + model.layers * gpu.layer_overhead_us * 1e-6
                + elementwise_bytes / (gpu.bandwidth * gpu.elementwise_efficiency)
            )
            self._linear_ps[tokens] = round(seconds * PS_PER_SECOND)
        return self._linear_ps[tokens]

    def head_ps(self, sampled: int) -> int:
        """Return the time in ps of the output head for `sampled` sequences."""
        if sampled not in self._head_ps:
            seconds = self._product_seconds(self.model.vocabulary * self.model.hidden, sampled)
            self._head_ps[sampled] = round(seconds * PS_PER_SECOND)
        return self._head_ps[sampled]

    def prefill_attention_ps(self, new: int, cached: int) -> int:
        """Return the time in ps of causal attention of `new` tokens that follow `cached` ones."""
        pairs = new * cached + new * (new + 1) // 2
        return round(max(pairs * self._pair_ps, (new + cached) * self._read_ps))

    def _product_seconds(self, parameters: float, rows: int) -> float:
        gpu = self.gpu
        memory = BYTES_PER_VALUE * parameters / (gpu.bandwidth * gpu.weight_efficiency)
        compute = 2 * parameters * rows / (gpu.flops * gpu.compute_efficiency)
        return float((memory**gpu.knee + compute**gpu.knee) ** (1 / gpu.knee))

    def _curve(self, decodes: int) -> DecodeCurve:
        if decodes not in self._curves:
            fixed = self.linear_ps(decodes) + self.head_ps(decodes)
            self._curves[decodes] = self.host.curve(DecodeCurve((0,), (fixed,), (self.context_ps,)))
        return self._curves[decodes]
