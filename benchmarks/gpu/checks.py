"""Every kernel path of the engine against a float32 reference: torch's own operations on the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count

import attrs
import numpy as np
import torch
from torch import Tensor

from fairprefix.gpu_ref_engine.architecture import Architecture
from fairprefix.gpu_ref_engine.attention.base import KvMemory
from fairprefix.gpu_ref_engine.attention.sdpa import SdpaAttention
from fairprefix.gpu_ref_engine.batch import Sample, StepBatch
from fairprefix.gpu_ref_engine.kernels import TritonOps
from fairprefix.gpu_ref_engine.load import assemble
from fairprefix.gpu_ref_engine.model import Model
from fairprefix.gpu_ref_engine.ops import Rotary, TorchOps
from fairprefix.gpu_ref_engine.runner import ModelRunner
from fairprefix.gpu_ref_engine.sampler import SamplingPlan, choose
from fairprefix.gpu_ref_engine.sampling import SamplingParams
from fairprefix.gpu_ref_engine.sources import random_source
from fairprefix.gpu_ref_engine.weights import Source, pack

LIMITS = {torch.float32: 1e-4, torch.bfloat16: 3e-2}
"""Relative errors (of norms, row by row) that count as agreement: bfloat16 has 8 bits, float32 24."""
PAGE = 16
GREEDY = SamplingParams(temperature=0)


@attrs.frozen(kw_only=True)
class Check:
    """What one check found."""

    name: str
    error: float
    """The largest relative error of a row; or of frequencies, in standard deviations."""
    limit: float
    problem: str = ""
    """Why it could not be carried out."""

    @property
    def passed(self) -> bool:
        """Whether the path agrees with the reference."""
        return not self.problem and self.error <= self.limit  # also False for NaN


def run(name: str, limit: float, work: Callable[[], float]) -> Check:
    """Carry a check out; whatever goes wrong is its result."""
    try:
        return Check(name=name, error=work(), limit=limit)
    except Exception as problem:  # noqa: BLE001 (the other checks go on)
        return Check(name=name, error=float("inf"), limit=limit, problem=f"{type(problem).__name__}: {problem}")


def worst(found: Tensor, expected: Tensor) -> float:
    """Return the largest relative error of a row."""
    found, expected = found.float().flatten(1), expected.float().flatten(1)
    return float(((found - expected).norm(dim=1) / expected.norm(dim=1).clamp(min=1e-6)).max())


def all_checks(
    shapes: dict[str, Architecture], device: torch.device, dtype: torch.dtype, backends: Sequence[str]
) -> Iterator[Check]:
    """Carry out every check."""
    for name, shape in shapes.items():
        small = attrs.evolve(shape, layers=2, vocabulary=min(shape.vocabulary, 4096), longest=2048)
        yield from _ops(name, small, device, dtype)
        for backend in backends:
            for graphs in (False, True) if device.type == "cuda" and backend != "sdpa" else (False,):
                yield from _model(name, small, device, dtype, backend, graphs=graphs)
    yield from _sampler(device)


def _ops(name: str, shape: Architecture, device: torch.device, dtype: torch.dtype) -> Iterator[Check]:
    """Compare each element-wise kernel with torch in float32."""
    generator = torch.Generator(device).manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, device=device).to(dtype)

    reference = TorchOps(shape, Rotary.of(shape, 256, device=device, dtype=torch.float32))
    ours = TritonOps(shape, reference.rotary)
    values, residual, weight = draw(33, shape.hidden), draw(33, shape.hidden), draw(shape.hidden)

    def added() -> float:
        found, kept = ours.add_norm(values, residual.clone(), weight)
        expected, summed = reference.add_norm(values.float(), residual.float(), weight.float())
        return max(worst(found, expected), worst(kept, summed))

    def rotated() -> float:
        heads = shape.heads + 2 * shape.kv_heads
        qkv, norm = draw(33, heads * shape.head_dim), draw(heads - shape.kv_heads, shape.head_dim)
        rows = torch.randperm(64 * shape.kv_heads, generator=generator, device=device)[: 33 * shape.kv_heads]
        results = []
        for ops, kind in ((ours, dtype), (reference, torch.float32)):
            keys = torch.zeros((4, shape.kv_heads, 16, shape.head_dim), dtype=kind, device=device)
            stored = torch.zeros_like(keys)
            used = norm.to(kind) if shape.qk_norm else None
            places = (torch.arange(200, 233, device=device), rows.view(33, -1))
            query = ops.rotate_and_store(qkv.to(kind).clone(), used, *places, keys, stored)
            results.append((query.reshape(33, -1), keys.view(-1, shape.head_dim), stored.view(-1, shape.head_dim)))
        return max(worst(found, expected) for found, expected in zip(*results, strict=True))

    def gated() -> float:
        gate_up = draw(33, 2 * shape.intermediate)
        return worst(ours.gate(gate_up), reference.gate(gate_up.float()))

    limit = LIMITS[dtype]
    yield run(
        f"{name}: kernel norm",
        limit,
        lambda: worst(ours.norm(values, weight), reference.norm(values.float(), weight.float())),
    )
    yield run(f"{name}: kernel add and norm", limit, added)
    yield run(f"{name}: kernel rotate and store", limit, rotated)
    yield run(f"{name}: kernel gate", limit, gated)


def _model(
    name: str, shape: Architecture, device: torch.device, dtype: torch.dtype, backend: str, *, graphs: bool
) -> Iterator[Check]:
    """Compare a model of two layers with its float32 reference, over steps of every kind."""
    title = f"{name}: model, {backend}{', graphs' if graphs else ''}"
    source = random_source(0, device)
    kept: dict[str, Tensor] = {}

    def rounded(part: str, size: tuple[int, ...]) -> Tensor:
        if part not in kept:
            kept[part] = source(part, size).to(dtype)
        return kept[part]

    try:
        runner = assemble(
            shape,
            rounded,
            device=device,
            dtype=dtype,
            kv_tokens=8192,
            page_size=PAGE,
            backend=backend,
            graphs=graphs,
        )
        reference = _reference(shape, rounded, device)
    except Exception as problem:  # noqa: BLE001 (it is reported)
        yield Check(name=title, error=float("inf"), limit=0, problem=f"{type(problem).__name__}: {problem}")
        return
    # The interpreter of kernels, on a CPU, takes its time.
    lengths = (5, 130, 64, 17, 300) if device.type == "cuda" else (5, 40, 16, 3, 70)
    draws, contexts = np.random.default_rng(0), [0] * len(lengths)
    for what, news in (
        ("prefill", lengths),
        ("chunks behind a prefix", (7, 40, 1, 16, 33)),
        ("decode and prefill mixed", (1, 1, 50, 1, 8)),
        ("decode", (1,) * 5),
        ("decode again", (1,) * 5),
    ):
        batch = _step(draws, contexts, news, shape.vocabulary)
        contexts = [past + new for past, new in zip(contexts, news, strict=True)]
        yield run(
            f"{title}: {what}",
            LIMITS[dtype],
            lambda batch=batch: worst(runner.logits(batch), reference.logits(batch)),  # type: ignore[misc]
        )
    if graphs and (runner.graphs is None):
        yield Check(name=f"{title}: captured", error=float("inf"), limit=0, problem="no graphs were captured")


def _reference(shape: Architecture, source: Source, device: torch.device) -> ModelRunner:
    """Return the model in float32 with torch's operations alone."""
    weights = pack(shape, source, device=device, dtype=torch.float32)
    memory = KvMemory(shape=shape, pages=512, page_size=PAGE, dtype=torch.float32, device=device)
    ops = TorchOps(shape, Rotary.of(shape, memory.longest, device=device, dtype=torch.float32))
    return ModelRunner(Model(weights=weights, ops=ops, memory=memory), SdpaAttention(memory))


def _step(draws: np.random.Generator, contexts: Sequence[int], news: Sequence[int], vocabulary: int) -> StepBatch:
    """Return a step in which each sequence, with 64 pages of its own, goes on by so many random tokens."""
    fresh = np.array(news)
    ends = np.array(contexts) + fresh
    owners = np.repeat(np.arange(len(news)), fresh)
    firsts = np.cumsum(fresh) - fresh
    positions = np.arange(len(owners)) - firsts[owners] + np.array(contexts)[owners]
    table = np.arange(len(news))[:, None] * 64 + np.arange(64)[::-1]
    return StepBatch(
        tokens=draws.integers(0, vocabulary, len(owners)),
        positions=positions,
        slots=table[owners, positions // PAGE] * PAGE + positions % PAGE,
        query_lens=fresh,
        context_lens=ends,
        page_table=table.astype(np.int32),
        sample_at=firsts + fresh - 1,
        samples=[Sample(params=GREEDY, produced=0)] * len(news),
    )


def _sampler(device: torch.device) -> Iterator[Check]:
    """Compare frequencies of drawn tokens with the distribution, in standard deviations."""
    logits = torch.linspace(2, -3, 50, device=device)
    rows, tokens = 40_000, torch.arange(50)
    cases = {
        "temperature": (SamplingParams(temperature=0.7), lambda shares: shares),
        "top-k": (SamplingParams(top_k=5), lambda shares: torch.where(tokens < 5, shares, 0)),
        "top-p": (
            SamplingParams(top_p=0.5),
            lambda shares: torch.where(shares.cumsum(0) - shares < 0.5, shares, 0),
        ),
    }
    for name, (params, cut) in cases.items():

        def error(params: SamplingParams = params, cut: Callable[[Tensor], Tensor] = cut) -> float:
            samples = [Sample(params=params, produced=0)] * rows
            drawn = choose(logits.expand(rows, -1), SamplingPlan.of(samples, np.random.default_rng(0))).cpu()
            expected = cut(torch.softmax(logits.cpu().double() / params.temperature, 0))
            expected = expected / expected.sum()
            spread = (expected * (1 - expected) / rows).sqrt()
            return float(((torch.bincount(drawn, minlength=50) / rows - expected).abs() / (spread + 1e-6)).max())

        yield run(f"sampler: {name}", 5.0, error)
    places = count()
    mixed = [Sample(params=GREEDY if next(places) % 2 else SamplingParams(seed=1), produced=0) for _ in range(64)]

    def greedy() -> float:
        scores = torch.randn((64, 5000), generator=torch.Generator(device).manual_seed(0), device=device)
        chosen = choose(scores, SamplingPlan.of(mixed, np.random.default_rng(0)))
        return float((chosen[1::2] != scores[1::2].argmax(1)).sum())

    yield run("sampler: greedy rows in a mixed step", 0.0, greedy)
