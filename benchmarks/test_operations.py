"""Time of single operations with 10,000 requests waiting, by pytest-benchmark.

python -m pytest benchmarks/test_operations.py --benchmark-only --benchmark-columns=min,median,ops
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from fairprefix import PolicyConfig, PrefixIndex, Request, chain_hashes, make_policy
from fairprefix.core.base import BasePolicy

BLOCK = 16
WAITING = 10_000
TOKENS = 2048


class Queue:
    """A policy under which 10,000 requests of 20 clients wait."""

    def __init__(self, name: str) -> None:
        self.index = PrefixIndex(BLOCK)
        self.policy: BasePolicy = make_policy(PolicyConfig(policy=name, bounded_wait=8), self.index)
        self._ids: Iterator[int] = itertools.count()
        self.index.cached(range(16))
        for _ in range(WAITING):
            self.policy.arrive(self.request())

    def request(self) -> Request:
        """Return a new request of 128 blocks, 16 of which it shares with all others."""
        number = next(self._ids)
        blocks = (*range(16), *range(10**9 + 1000 * number, 10**9 + 1000 * number + 112))
        return Request(f"r{number}", f"c{number % 20}", TOKENS, 64, blocks)


@pytest.fixture(params=["dlpm", "vtc", "lpm", "fcfs"])
def queue(request: pytest.FixtureRequest) -> Queue:
    """Return such a queue for each policy."""
    return Queue(request.param)


def test_arrive(benchmark: BenchmarkFixture, queue: Queue) -> None:
    """A request arrives, its hashes at hand."""
    benchmark.pedantic(queue.policy.arrive, setup=lambda: ((queue.request(),), {}), rounds=3000)


def test_peek(benchmark: BenchmarkFixture, queue: Queue) -> None:
    """Nothing has changed since the last look."""
    benchmark(queue.policy.peek)


def test_plan_16(benchmark: BenchmarkFixture, queue: Queue) -> None:
    """The next 16 in order."""
    benchmark(queue.policy.plan, 16)


def test_admit_and_finish(benchmark: BenchmarkFixture, queue: Queue) -> None:
    """Peek, take, one output token, finish, arrive."""
    policy = queue.policy

    def life(fresh: Request) -> None:
        request = policy.peek()
        assert request is not None
        policy.take(request.id, extend=1792, reserve=64)
        policy.produced({request.client: 1})
        policy.finish(request.id, output=1)
        policy.arrive(fresh)

    benchmark.pedantic(life, setup=lambda: ((queue.request(),), {}), rounds=3000)


def test_256_decode_charges(benchmark: BenchmarkFixture, queue: Queue) -> None:
    """One step of 256 running requests of 20 clients."""
    benchmark(queue.policy.produced, {f"c{n}": 13 for n in range(20)})


def test_a_run_is_cached_and_evicted(benchmark: BenchmarkFixture) -> None:
    """112 blocks that nobody who waits shares."""
    queue = Queue("dlpm")
    blocks = (*range(16), *range(1000, 1112))

    def cached_and_evicted() -> None:
        queue.index.cached(blocks, start=16)
        queue.index.evicted(blocks, start=16)

    benchmark(cached_and_evicted)


@pytest.mark.parametrize("form", ["list", "bytes"])
def test_hash_a_prompt(benchmark: BenchmarkFixture, form: str) -> None:
    """2,048 tokens."""
    tokens = [random.Random(0).randrange(100_000) for _ in range(TOKENS)]  # noqa: S311 (no secret)
    prompt = tokens if form == "list" else b"".join(token.to_bytes(4, "little") for token in tokens)
    benchmark(chain_hashes, prompt, BLOCK)
