"""The workload of nano-vllm's and mini-sglang's benchmarks through the engine, with its own GPU time beside it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import median
from time import perf_counter
from typing import Any

import torch
from attrs import define, field, frozen

from fairprefix.core.config import PolicyConfig
from fairprefix.gpu_ref_engine.architecture import Architecture
from fairprefix.gpu_ref_engine.batch import StepBatch
from fairprefix.gpu_ref_engine.config import EngineConfig
from fairprefix.gpu_ref_engine.engine import Engine
from fairprefix.gpu_ref_engine.load import assemble
from fairprefix.gpu_ref_engine.profile import PHASES
from fairprefix.gpu_ref_engine.runner import ModelRunner, StepUnderWay
from fairprefix.gpu_ref_engine.sampling import SamplingParams
from fairprefix.gpu_ref_engine.sources import random_source
from fairprefix.gpu_ref_engine.transfer import mark
from fairprefix.sim.decoderun import HostTime
from fairprefix.sim.hardware import GIB, GPUS, LanguageModel
from fairprefix.sim.roofline import PS_PER_SECOND, RooflineModel

_WARM_UP = 4
"""Requests that run first, so that what is compiled or allocated once is there."""
_MS_PER_S = 1000.0


@frozen(kw_only=True)
class Workload:
    """Requests with lengths drawn uniformly, by Python's generator with seed 0 as those benchmarks do."""

    requests: int = 256
    shortest: int = 100
    longest: int = 1024
    max_batch: int = 256
    chunk: int = 8192
    kv_tokens: int | None = None

    def draw(self, vocabulary: int) -> tuple[list[list[int]], list[int]]:
        """Return prompts and output lengths: 142,827 and 133,966 tokens with the defaults."""
        draws = random.Random(0)  # noqa: S311 (a benchmark)
        most = min(10_000, vocabulary - 1)
        prompts = [
            [draws.randint(0, most) for _ in range(draws.randint(self.shortest, self.longest))]
            for _ in range(self.requests)
        ]
        return prompts, [draws.randint(self.shortest, self.longest) for _ in range(self.requests)]


SMALL = Workload(requests=8, shortest=4, longest=24, max_batch=4, chunk=32, kv_tokens=1024)


@define(eq=False)
class Watched:
    """A runner that notes each step: its shape, and the events around it on the GPU."""

    runner: ModelRunner
    shapes: list[tuple[list[tuple[int, int]], int, int]] = field(factory=list)
    """Prefills (new, cached), decoding sequences, and the sum of their contexts."""
    events: list[tuple[torch.cuda.Event | None, torch.cuda.Event | None]] = field(factory=list)
    page_size: int = field(init=False)
    pages: int = field(init=False)
    vocabulary: int = field(init=False)
    longest: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Look like the runner."""
        self.page_size, self.pages = self.runner.page_size, self.runner.pages
        self.vocabulary, self.longest = self.runner.vocabulary, self.runner.longest

    def launch(self, batch: StepBatch) -> StepUnderWay:
        """Start a step, between two events."""
        single = batch.query_lens == 1
        news, pasts = batch.query_lens[~single], (batch.context_lens - batch.query_lens)[~single]
        chunks = list(zip(news.tolist(), pasts.tolist(), strict=True))
        self.shapes.append((chunks, int(single.sum()), int(batch.context_lens[single].sum())))
        before = mark(self.runner.device)
        launched = self.runner.launch(batch)
        self.events.append((before, mark(self.runner.device)))
        return launched

    def busy_s(self) -> float | None:
        """Return the time between the events of each step, gaps inside steps included; None on a CPU."""
        pairs = [(begin, end) for begin, end in self.events if begin is not None and end is not None]
        if not pairs:
            return None
        return sum(float(begin.elapsed_time(end)) for begin, end in pairs) / _MS_PER_S


def measure(
    name: str,
    shape: Architecture,
    workload: Workload,
    *,
    device: torch.device,
    dtype: torch.dtype,
    backend: str,
    repeats: int,
) -> dict[str, Any]:
    """Run the workload and return its figures; of several runs the one of median speed."""
    runner = assemble(
        shape, random_source(0, device), device=device, dtype=dtype, kv_tokens=workload.kv_tokens, backend=backend
    )
    prompts, outputs = workload.draw(shape.vocabulary)
    _run(runner, prompts[:_WARM_UP], [4] * _WARM_UP, workload)
    runs = [_run(runner, prompts, outputs, workload) for _ in range(repeats)]
    chosen = sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2]
    floor = _floor_s(name, shape, chosen.pop("shapes"))
    chosen |= {
        "model": name,
        "modelled_ideal_s": floor,
        "share_of_modelled_ideal": floor / chosen["seconds"],
        "all_runs_s": [run["seconds"] for run in runs],
    }
    return chosen


def _run(
    runner: ModelRunner, prompts: Sequence[list[int]], outputs: Sequence[int], workload: Workload
) -> dict[str, Any]:
    watched = Watched(runner)
    overlap = runner.device.type == "cuda"
    config = EngineConfig(
        max_batch=workload.max_batch, chunk=workload.chunk, overlap=overlap, profile_steps=1 << 16
    )
    engine = Engine(watched, PolicyConfig(policy="fcfs", reservation=config.reservation), config)
    for prompt, length in zip(prompts, outputs, strict=True):
        engine.add("client", prompt, SamplingParams(temperature=0.6, ignore_eos=True, max_tokens=length))
    start, produced = perf_counter(), 0
    while engine.busy:
        produced += sum(len(output.tokens) for output in engine.step())
    seconds = perf_counter() - start
    assert produced == sum(outputs), "a request did not get all of its tokens"
    engine.check_integrity()
    busy, latest = watched.busy_s(), engine.profile.latest()
    return {
        "seconds": seconds,
        "input_tokens": sum(map(len, prompts)),
        "output_tokens": produced,
        "output_tokens_per_s": produced / seconds,
        "steps": engine.profile.steps,
        "gpu_busy_s": busy,
        "gpu_busy_share": None if busy is None else busy / seconds,
        "step_profile_median_us": {phase: median(latest[phase]) / 1e3 for phase in PHASES},
        "step_profile_share": dict(engine.profile.shares()),
        "preemptions": engine.preemptions,
        "shapes": watched.shapes,
    }


def _floor_s(name: str, shape: Architecture, steps: Sequence[tuple[list[tuple[int, int]], int, int]]) -> float:
    """Return the time that the roofline model of an H200 gives the same steps, with no CPU time at all."""
    heads = (2 * shape.heads + 2 * shape.kv_heads) * shape.head_dim
    linear = shape.layers * shape.hidden * (heads + 3 * shape.intermediate)
    head = shape.vocabulary * shape.hidden
    model = LanguageModel(
        shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.head_dim, shape.vocabulary, linear,
        2 * (linear + head * (1 if shape.tied else 2)) / GIB,
    )  # fmt: skip
    roofline = RooflineModel(name, 0, model, GPUS["h200"], HostTime.of(0.0, overlap=True))
    spent = sum(
        roofline.step_ps(prefills=chunks, decodes=decodes, context=context) for chunks, decodes, context in steps
    )
    return spent / PS_PER_SECOND
