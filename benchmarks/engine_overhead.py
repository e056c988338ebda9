"""What policy and scheduling cost in each step: as a share of a real model's steps, and in microseconds alone.

    python benchmarks/engine_overhead.py [--model smollm2] [--policy dlpm]

First SmolLM2 on this machine, 16 requests at once out of 48. Then a model that takes no time at all, with up to
256 requests running and up to 10,000 waiting: what an engine pays whose device is faster than a CPU, in CPU time.
Medians over steps.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import random
import time
from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np

from fairprefix.core.config import POLICIES, PolicyConfig
from fairprefix.gpu_ref_engine.batch import Launched, Runner, StepBatch, StepResult
from fairprefix.gpu_ref_engine.config import EngineConfig
from fairprefix.gpu_ref_engine.engine import Engine
from fairprefix.gpu_ref_engine.library import LIBRARY, fetch
from fairprefix.gpu_ref_engine.load import load_model
from fairprefix.gpu_ref_engine.profile import PHASES, SCHEDULING
from fairprefix.gpu_ref_engine.sampling import SamplingParams

CLIENTS = 50


class Done:
    """A step that is over at once."""

    def __init__(self, samples: int) -> None:
        self._result = StepResult(tokens=np.full(samples, 7, np.int64), logprobs=[None] * samples)

    def wait(self) -> StepResult:
        """Return the result."""
        return self._result


class NullRunner:
    """A model that takes no time and always says the same."""

    page_size, pages, vocabulary, longest = 16, 40_000, 50_000, 8192

    def launch(self, batch: StepBatch) -> Launched:
        """Do nothing."""
        return Done(len(batch.samples))


def engine_of(runner: Runner, policy: str, max_batch: int) -> Engine:
    """Return an engine."""
    return Engine(
        runner,
        PolicyConfig(policy=policy, reservation="none"),
        EngineConfig(max_batch=max_batch, chunk=max(512, max_batch)),
    )


def load(engine: Engine, requests: int, *, prompt: int, answer: int) -> None:
    """Queue requests of many clients over shared documents."""
    random_ = random.Random(0)  # noqa: S311 (a load, no secret)
    documents = [[random_.randrange(3, 40_000) for _ in range(prompt)] for _ in range(CLIENTS)]
    for number in range(requests):
        tokens = documents[number % CLIENTS] + [random_.randrange(3, 40_000) for _ in range(16)]
        length = random_.randrange(answer // 2, answer + answer // 2)
        params = SamplingParams(max_tokens=length, temperature=0, ignore_eos=True)
        engine.add(f"client-{number % CLIENTS}", tokens, params)


def on_real_model(model: str, policy: str) -> None:
    """Print the shares of a real model's steps."""
    runner = load_model(model, device="cpu", kv_tokens=8192)[0]
    engine = engine_of(runner, policy, 16)
    load(engine, 48, prompt=48, answer=24)
    while engine.busy:
        engine.step()
    latest = engine.profile.latest()
    steps = [sum(latest[name][step] for name in PHASES) for step in range(engine.profile.steps)]
    print(f"{engine.profile.steps} steps of the real model, median {median(steps) / 1e6:.1f} ms")
    for name in SCHEDULING:
        print(
            f"  {name:12} {median(latest[name]) / 1e3:8.1f} us   {sum(latest[name]) / sum(steps):7.3%} of all time"
        )
    share = sum(sum(latest[name]) for name in SCHEDULING) / sum(steps)
    print(f"  policy and scheduling together {share:.3%} of all time")


def alone(policy: str, running: int, waiting: int) -> Mapping[str, float]:
    """Return the median microseconds of each phase in CPU time, beside a model that takes none."""
    engine = engine_of(NullRunner(), policy, running)
    engine.profile.clock = time.thread_time_ns
    load(engine, running + waiting, prompt=256, answer=128)
    for _ in range(64):
        engine.step()
    first = engine.profile.steps
    for _ in range(300):
        engine.step()
    latest = engine.profile.latest()
    return {name: median(latest[name][first:]) / 1e3 for name in SCHEDULING}


def table(policy: str, cases: Sequence[tuple[int, int]]) -> None:
    """Print the costs alone."""
    print(f"\n{policy} and scheduling alone, median us a step")
    print(f"{'running':>8} {'waiting':>8} " + " ".join(f"{name:>12}" for name in (*SCHEDULING, "together")))
    for running, waiting in cases:
        spent = alone(policy, running, waiting)
        figures = [*spent.values(), sum(spent.values())]
        print(f"{running:8} {waiting:8} " + " ".join(f"{value:12.1f}" for value in figures))


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="none: only the second part")
    parser.add_argument("--policy", default="dlpm", choices=POLICIES)
    args = parser.parse_args()
    if args.model != "none":
        on_real_model(str(fetch(args.model)) if args.model in LIBRARY else args.model, args.policy)
    table(args.policy, [(16, 1000), (64, 1000), (64, 10_000), (256, 1000), (256, 10_000)])


if __name__ == "__main__":
    main()
