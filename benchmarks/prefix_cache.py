"""What the prefix cache is worth, end to end: 32 questions over 4 documents, with and without it, in one run.

    python benchmarks/prefix_cache.py [--model smollm2] [--rounds 2]

Both engines share one model and take turns; the better round of each counts. Prints times, hit rates, the ratio.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import argparse
import random
import time
from statistics import mean

from fairprefix.core.config import PolicyConfig
from fairprefix.gpu_ref_engine.batch import Runner
from fairprefix.gpu_ref_engine.config import EngineConfig
from fairprefix.gpu_ref_engine.engine import Engine
from fairprefix.gpu_ref_engine.library import LIBRARY, fetch
from fairprefix.gpu_ref_engine.load import load_model
from fairprefix.gpu_ref_engine.sampling import SamplingParams

DOCUMENTS, QUESTIONS, DOCUMENT, QUESTION, ANSWER = 4, 8, 224, 17, 24


def prompts() -> list[list[int]]:
    """Return the questions, documents taking turns."""
    random_ = random.Random(0)  # noqa: S311 (a load, no secret)
    documents = [[random_.randrange(100, 40_000) for _ in range(DOCUMENT)] for _ in range(DOCUMENTS)]
    return [
        document + [random_.randrange(100, 40_000) for _ in range(QUESTION)]
        for _ in range(QUESTIONS)
        for document in documents
    ]


def measure(runner: Runner, *, prefix_cache: bool) -> tuple[float, float, float]:
    """Return seconds for everything, mean seconds to the first token, and the share of prompt tokens cached."""
    engine = Engine(
        runner,
        PolicyConfig(policy="dlpm", reservation="none"),
        EngineConfig(prefix_cache=prefix_cache, max_batch=32, chunk=512),
    )
    asked = prompts()
    params = SamplingParams(max_tokens=ANSWER, temperature=0, ignore_eos=True)
    start = time.perf_counter()
    for place, prompt in enumerate(asked):
        engine.add(f"client-{place % 2}", prompt, params)
    first: dict[str, float] = {}
    cached: dict[str, int] = {}
    while engine.busy:
        for output in engine.step():
            first.setdefault(output.id, time.perf_counter() - start)
            cached[output.id] = output.cached_tokens
    total = sum(len(prompt) for prompt in asked)
    return time.perf_counter() - start, mean(first.values()), sum(cached.values()) / total


def main() -> None:
    """Measure both sides, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    model = str(fetch(args.model)) if args.model in LIBRARY else args.model
    runner, _ = load_model(model, device="cpu", kv_tokens=16_384)
    best: dict[bool, tuple[float, float, float]] = {}
    for _ in range(args.rounds):
        for prefix_cache in (False, True):
            found = measure(runner, prefix_cache=prefix_cache)
            best[prefix_cache] = min(best.get(prefix_cache, found), found)
    questions = DOCUMENTS * QUESTIONS
    print(f"{questions} questions over {DOCUMENTS} documents, {DOCUMENT}+{QUESTION} tokens in, {ANSWER} out")
    for prefix_cache, name in ((False, "without"), (True, "with")):
        seconds, first, hits = best[prefix_cache]
        print(
            f"{name:8} {seconds:6.2f} s end to end, {first:5.2f} s to the first token (mean), {hits:4.0%} cached"
        )
    whole, first = (best[False][place] / best[True][place] for place in (0, 1))
    print(f"ratio    {whole:6.2f} end to end, {first:.2f} to the first token")


if __name__ == "__main__":
    main()
