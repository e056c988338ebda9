"""On vLLM's own schedulers: charged = (prompt - cached at first admission) + weight x delivered, always."""

from __future__ import annotations

import random

import pytest
import vllm

from fairprefix.adapters.vllm.support import ASYNC_FROM, parse_version
from tests.vllm import rig
from tests.vllm.observed import World

VERSION = parse_version(vllm.__version__) or (99, 0)
needs_async = pytest.mark.skipif(ASYNC_FROM > VERSION, reason="this vLLM allows no scheduler of ours with async")
depths = pytest.mark.parametrize("depth", [0, pytest.param(1, marks=needs_async)], ids=["sync", "async"])


def crowd(world: World, requests: int = 40, *, longest: int = 300, output: int = 40, seed: int = 1) -> None:
    """Send requests of three clients, which share prefixes within and between clients."""
    draw = random.Random(seed)  # noqa: S311 (to be repeatable is the point)
    prefixes = [[draw.randrange(3, 1000) for _ in range(longest)] for _ in range(6)]
    for number in range(requests):
        shared = draw.choice(prefixes)[: draw.randrange(1, longest)]
        own = [draw.randrange(3, 1000) for _ in range(draw.randrange(1, 40))]
        world.add(f"r{number}", shared + own, draw.randrange(1, output), draw.choice(["a", "a", "a", "b", "c"]))


@depths
def test_plain(depth: int) -> None:
    """With room for everybody, each client is charged for what was computed for it."""
    world = World(depth=depth, budget=4096, blocks=4000)
    crowd(world)
    for _ in range(30):
        world.step()
    world.finish()
    assert sum(world.runner.first_cached.values()) > 0, "nothing was ever found cached"


@depths
def test_chunked(depth: int) -> None:
    """A prompt that is computed in several steps is charged once, at its admission."""
    world = World(depth=depth, budget=64)
    crowd(world)
    for _ in range(60):
        world.step()
    world.finish()


@depths
@pytest.mark.parametrize("seed", range(3))
def test_preempting(depth: int, seed: int) -> None:
    """A request that loses its memory and is computed again is not charged again, and resumes first."""
    world = World(depth=depth, blocks=60, seed=seed)
    crowd(world, longest=200, output=250, seed=seed)
    for _ in range(200):
        world.step()
    world.finish()
    assert world.runner.preemptions > 3, "memory was never short"


@depths
def test_aborting(depth: int) -> None:
    """Requests that are aborted while they wait, run or are preempted leave nothing behind, and are charged."""
    world = World(depth=depth, blocks=60)
    crowd(world, 60, longest=200, output=250)
    draw = random.Random(5)  # noqa: S311
    for _ in range(100):
        world.step()
        if world.scheduler.requests and draw.random() < 0.4:
            rig.abort(world.scheduler, draw.choice(list(world.scheduler.requests)), "never heard of")
    assert world.runner.preemptions > 0
    world.finish()


@depths
def test_reset(depth: int) -> None:
    """Forgetting the cache, with or without preempting everybody, keeps the accounts and the index right."""
    world = World(depth=depth, blocks=200)
    crowd(world, 50)
    for number in range(60):
        world.step()
        if number in (10, 30):
            before = world.runner.preemptions
            world.scheduler.reset_prefix_cache(reset_running_requests=True) if VERSION >= (0, 15) else None
            assert world.scheduler.reset_prefix_cache() or VERSION < (0, 15) or before >= 0
            world.check_index()
    world.finish()


@pytest.mark.parametrize("seed", range(2))
def test_speculative(seed: int) -> None:
    """Of drafted tokens only those that are delivered are charged, also where memory is short."""
    world = World(drafts=3, blocks=60, seed=seed)
    crowd(world, longest=200, output=250, seed=seed)
    for _ in range(100):
        world.step()
    world.finish()
    assert world.runner.preemptions > 0


@needs_async
def test_speculative_async() -> None:
    """The same with asynchronous scheduling."""
    world = World(drafts=3, blocks=100, depth=1)
    crowd(world, longest=200, output=100)
    for _ in range(100):
        world.step()
    world.finish()


def test_without_a_prefix_cache() -> None:
    """Without a cache every prompt token is charged."""
    world = World(caching=False)
    crowd(world, 20)
    world.runner.run()
    assert world.charged == world.expected()
    assert sum(world.runner.first_cached.values()) == 0


def test_the_statistics_of_the_cache_are_vllms_own() -> None:
    """Queries and hits are those of admissions: what the policy looks up is not among them."""
    world = World(budget=4096, blocks=4000, fairprefix={"policy": "lpm"})
    manager, told = world.scheduler.kv_cache_manager, []
    make_stats = manager.make_prefix_cache_stats

    def noted() -> object:
        told.append(make_stats())
        return told[-1]

    manager.make_prefix_cache_stats = noted
    crowd(world)
    for _ in range(30):
        world.step()
    world.finish()
    told.append(make_stats())
    assert sum(stats.queries for stats in told) == sum(world.prompts.values())
    assert sum(stats.hits for stats in told) == sum(world.runner.first_cached.values()) > 0
