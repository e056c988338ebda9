"""A real model gives the same greedy answers however they are computed, in float32."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from fairprefix.core.config import PolicyConfig
from fairprefix.gpu_ref_engine.batch import Runner
from fairprefix.gpu_ref_engine.config import EngineConfig
from fairprefix.gpu_ref_engine.engine import Engine
from fairprefix.gpu_ref_engine.load import load_model
from fairprefix.gpu_ref_engine.sampling import SamplingParams

TOKENS = 40
BASE = {"kv_tokens": 4096, "prefix_cache": False, "chunk": 4096, "max_batch": 1, "overlap": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "prefix cache": {"prefix_cache": True},
    "chunks": {"chunk": 16, "max_batch": 16},
    "batch of 4": {"max_batch": 4},
    "batch of 16": {"max_batch": 16},
    "overlap": {"overlap": True, "max_batch": 16},
    "preemption": {"kv_tokens": 192, "max_batch": 16, "chunk": 64, "prefix_cache": True},
}


def prompts(count: int, vocabulary: int) -> list[list[int]]:
    """Return prompts that share beginnings."""
    random_ = random.Random(7)  # noqa: S311 (a load, no secret)
    documents = [[random_.randrange(3, vocabulary) for _ in range(70)] for _ in range(3)]
    return [
        random_.choice(documents)[: random_.randrange(5, 70)]
        + [random_.randrange(3, vocabulary) for _ in range(5)]
        for _ in range(count)
    ]


def answers(
    model: str, asked: Sequence[Sequence[int]], tokens: int, settings: dict[str, Any]
) -> tuple[list[list[int]], Engine]:
    """Return the greedy answers of an engine with these settings."""
    config = {**BASE, **settings}
    runner: Runner = load_model(model, device="cpu", dtype="float32", kv_tokens=config.pop("kv_tokens"))[0]
    engine = Engine(runner, PolicyConfig(reservation="none"), EngineConfig(**config))
    params = SamplingParams(max_tokens=tokens, temperature=0, ignore_eos=True)
    ids = [engine.add(f"c{place % 3}", prompt, params) for place, prompt in enumerate(asked)]
    got: dict[str, list[int]] = {id: [] for id in ids}
    while engine.busy:
        for output in engine.step():
            got[output.id] += output.tokens
    engine.check_integrity()
    return [got[id] for id in ids], engine


@pytest.fixture(scope="module")
def one_by_one() -> list[list[int]]:
    """Return the answers of an engine that does one thing after the other, and keeps nothing."""
    return answers("random", prompts(16, 256), TOKENS, {})[0]


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_tiny_model(variant: str, one_by_one: list[list[int]]) -> None:
    """Reuse, chunks, batch size, overlap and preemption change no token of a random model's answers."""
    got, engine = answers("random", prompts(16, 256), TOKENS, VARIANTS[variant])
    assert got == one_by_one
    assert (engine.preemptions > 0) == (variant == "preemption")
    if VARIANTS[variant].get("prefix_cache"):
        assert engine.cache.evictable


def test_smollm2(smollm2: Path) -> None:
    """The same holds for SmolLM2, with everything at once."""
    asked = prompts(5, 40_000)
    expected, _ = answers(str(smollm2), asked, 6, {"kv_tokens": 1024})
    got, engine = answers(
        str(smollm2),
        asked,
        6,
        {"kv_tokens": 128, "max_batch": 4, "chunk": 24, "prefix_cache": True, "overlap": True},
    )
    assert got == expected
    assert engine.cache.evicted_pages
