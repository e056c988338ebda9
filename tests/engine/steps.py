"""Steps for a runner, written down as who computes how many tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from attrs import define, field
from numpy.typing import NDArray

from fairprefix.gpu_ref_engine.architecture import Architecture
from fairprefix.gpu_ref_engine.batch import Sample, StepBatch
from fairprefix.gpu_ref_engine.load import assemble
from fairprefix.gpu_ref_engine.runner import ModelRunner
from fairprefix.gpu_ref_engine.sampling import SamplingParams
from fairprefix.gpu_ref_engine.sources import random_source

GREEDY = SamplingParams(temperature=0)
CPU = torch.device("cpu")
SMALL = Architecture(
    family="llama", layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, intermediate=96, vocabulary=97,
    longest=512, epsilon=1e-5,
)  # fmt: skip


@define(eq=False)
class Running:
    """A sequence: its tokens, its pages, and how many of its tokens are in them."""

    tokens: list[int]
    pages: Sequence[int]
    computed: int = 0
    params: SamplingParams = GREEDY
    prompt: int = field(init=False)

    @prompt.default
    def _prompt(self) -> int:
        return len(self.tokens)


def small_runner(
    shape: Architecture = SMALL, *, pages: int = 64, page_size: int = 4, backend: str = "auto"
) -> ModelRunner:
    """Return a small random model in float32."""
    return assemble(
        shape, random_source(0, CPU), device=CPU, dtype=torch.float32, kv_tokens=pages * page_size,
        page_size=page_size, backend=backend,
    )  # fmt: skip


def step(runner: ModelRunner, work: Iterable[tuple[Running, int]]) -> StepBatch:
    """Return the step in which each sequence computes so many tokens; whoever reaches its end is sampled."""
    tokens: list[NDArray[np.int64]] = []
    positions: list[NDArray[np.int64]] = []
    slots: list[NDArray[np.int64]] = []
    lens, contexts, sampled, samples, tables = [], [], [], [], []
    total, size = 0, runner.page_size
    for one, count in work:
        at = np.arange(one.computed, one.computed + count)
        pages = np.array(one.pages)
        tokens.append(np.array(one.tokens[one.computed : one.computed + count]))
        positions.append(at)
        slots.append(pages[at // size] * size + at % size)
        total += count
        one.computed += count
        lens.append(count)
        contexts.append(one.computed)
        tables.append(pages)
        if one.computed == len(one.tokens):
            sampled.append(total - 1)
            samples.append(Sample(params=one.params, produced=len(one.tokens) - one.prompt))
    table = np.zeros((len(tables), max(map(len, tables))), np.int32)
    for row, pages in zip(table, tables, strict=True):
        row[: len(pages)] = pages
    return StepBatch(
        tokens=np.concatenate(tokens), positions=np.concatenate(positions), slots=np.concatenate(slots),
        query_lens=np.array(lens), context_lens=np.array(contexts), page_table=table,
        sample_at=np.array(sampled, np.int64), samples=samples,
    )  # fmt: skip


def generate(runner: ModelRunner, running: Sequence[Running], steps: int) -> list[list[int]]:
    """Return the output of sequences that decode together, after whatever of their prompts is left to compute."""
    for _ in range(steps):
        batch = step(runner, [(one, len(one.tokens) - one.computed) for one in running])
        for one, token in zip(running, runner.launch(batch).wait().tokens.tolist(), strict=True):
            one.tokens.append(token)
    return [one.tokens[one.prompt :] for one in running]
