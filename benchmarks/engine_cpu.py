"""Decode and prefill on the CPU, this engine against transformers' generate: same weights, threads and type.

Run it with `python benchmarks/engine_cpu.py`. The model has the shape of SmolLM2-135M and random weights, which
both sides read from the same file; speed does not depend on what a model knows. Both sides take turns; the figures
are medians of CPU time (with one thread that is the time on an idle machine), the ratio is what counts.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: a waiting thread must not burn the core

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

from fairprefix.gpu_ref_engine.architecture import from_hugging_face
from fairprefix.gpu_ref_engine.batch import Sample, StepBatch
from fairprefix.gpu_ref_engine.load import DTYPES, assemble
from fairprefix.gpu_ref_engine.runner import ModelRunner
from fairprefix.gpu_ref_engine.sampling import SamplingParams
from fairprefix.gpu_ref_engine.sources import read_json, safetensors_source

Tokens = NDArray[np.int64]
Theirs = Any  # the annotations of transformers change from release to release

PAGE = 16
GREEDY = SamplingParams(temperature=0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Compare decode and prefill with transformers on the CPU.")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--context", type=int, default=256, help="tokens per sequence when decoding begins")
    parser.add_argument("--steps", type=int, default=16, help="decode steps per round")
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the one prompt of the prefill")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = both(Path(folder), DTYPES[args.dtype], args.batch * (args.context + args.steps + PAGE))
        report(args, theirs, ours)


def both(folder: Path, dtype: torch.dtype, kv_tokens: int) -> tuple[Any, ModelRunner]:
    """Return the same model on both sides."""
    torch.manual_seed(0)
    config: Any = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0},
        eos_token_id=None, bos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    theirs: Any = LlamaForCausalLM(config)
    theirs = theirs.to(dtype).eval()
    theirs.save_pretrained(folder)
    shape = from_hugging_face(read_json(folder / "config.json"))
    ours = assemble(
        shape,
        safetensors_source(folder),
        device=torch.device("cpu"),
        dtype=dtype,
        kv_tokens=kv_tokens,
        page_size=PAGE,
    )
    return theirs, ours


def report(args: argparse.Namespace, theirs: Theirs, ours: ModelRunner) -> None:
    """Take turns, and print medians and ratios."""
    draws = np.random.default_rng(0)
    prompts = draws.integers(1, 49152, (args.batch, args.context))
    long = draws.integers(1, 49152, (1, args.prompt))
    times: dict[str, list[float]] = {
        name: [] for name in ("our decode", "their decode", "our prefill", "their prefill")
    }
    same = 0.0
    for _ in range(args.rounds + 1):  # the first one warms up
        ours_said, seconds = our_decode(ours, prompts, args.steps)
        times["our decode"].append(seconds)
        theirs_said, seconds = their_decode(theirs, prompts, args.steps)
        times["their decode"].append(seconds)
        same = float((ours_said == theirs_said).all(1).mean())
        times["our prefill"].append(timed(lambda: prefill(ours, long)))
        times["their prefill"].append(timed(lambda: generate(theirs, long, 1)))
    median = {name: statistics.median(values[1:]) for name, values in times.items()}
    print(f"{args.dtype}, {args.threads} thread(s), medians of {args.rounds} rounds, CPU seconds")
    for name, amount in (("decode", args.batch * args.steps), ("prefill", args.prompt)):
        our_s, their_s = median[f"our {name}"], median[f"their {name}"]
        print(
            f"{name:8}  fairprefix {our_s:7.3f} s ({amount / our_s:7.1f} tok/s)  transformers {their_s:7.3f} s "
            f"({amount / their_s:7.1f} tok/s)  ratio {their_s / our_s:.2f}"
        )
    print(f"same output for {same:.0%} of {args.batch} sequences")


def timed(work: Callable[[], object]) -> float:
    """Return the CPU time of some work, seconds."""
    start = time.process_time()
    work()
    return time.process_time() - start


def generate(model: Theirs, prompts: Tokens, tokens: int) -> Tokens:
    """Return what transformers generates, greedily."""
    ids = torch.from_numpy(prompts)
    with torch.inference_mode():
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False
        )
    return np.asarray(out[:, prompts.shape[1] :])


def their_decode(model: Theirs, prompts: Tokens, steps: int) -> tuple[Tokens, float]:
    """Return transformers' output, and the time of its steps after the first."""
    first = timed(lambda: generate(model, prompts, 1))
    start = time.process_time()
    out = generate(model, prompts, steps + 1)
    return out, time.process_time() - start - first


def our_decode(runner: ModelRunner, prompts: Tokens, steps: int) -> tuple[Tokens, float]:
    """Return our output, and the time of the steps after the first."""
    tokens = prefill(runner, prompts)
    out, start = [tokens], time.process_time()
    for step in range(steps):
        tokens = run(runner, tokens[:, None], prompts.shape[1] + step)
        out.append(tokens)
    return np.stack(out, 1), time.process_time() - start


def prefill(runner: ModelRunner, prompts: Tokens) -> Tokens:
    """Return the first tokens after some prompts of one length."""
    return run(runner, prompts, 0)


def run(runner: ModelRunner, fresh: Tokens, past: int) -> Tokens:
    """Carry out one step: `fresh` [B, n] tokens behind `past` others."""
    count, length = fresh.shape
    share = runner.pages // count
    table = (np.arange(count)[:, None] * share + np.arange(share)).astype(np.int32)
    positions = np.tile(np.arange(past, past + length), count)
    rows = np.repeat(np.arange(count), length)
    batch = StepBatch(
        tokens=fresh.reshape(-1),
        positions=positions,
        slots=table[rows, positions // PAGE].astype(np.int64) * PAGE + positions % PAGE,
        query_lens=np.full(count, length),
        context_lens=np.full(count, past + length),
        page_table=table,
        sample_at=np.arange(1, count + 1) * length - 1,
        samples=[Sample(params=GREEDY, produced=past)] * count,
    )
    return runner.launch(batch).wait().tokens


if __name__ == "__main__":
    main()
