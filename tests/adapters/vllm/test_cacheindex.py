"""The index of the cache against a pool that behaves like vLLM's: copies, evictions, forgetting everything."""

from __future__ import annotations

import random
from collections import UserDict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from fairprefix.adapters.vllm.cacheindex import IndexedPrefixes, asker, can_be_indexed
from fairprefix.adapters.vllm.guard import Shield
from fairprefix.core.request import Request

from .fakes import FakeRequest

GROUP = bytes(4)
BLOCK = 16


class Map:
    """Blocks by the hash of their contents; several blocks may have the same."""

    def __init__(self) -> None:
        self._cache: dict[bytes, list[int]] = {}

    def insert(self, key: bytes, id: int) -> None:
        """Add a block."""
        self._cache.setdefault(key, []).append(id)

    def get_one_block(self, key: bytes) -> int | None:
        """Return some block with those contents."""
        return next(iter(self._cache.get(key, ())), None)

    def pop(self, key: bytes, block_id: int) -> int | None:
        """Take out a block."""
        ids = self._cache.get(key, [])
        if block_id not in ids:
            return None
        ids.remove(block_id)
        if not ids:
            del self._cache[key]
        return block_id


class OtherMap(Map):
    """One that can only be asked."""

    def __init__(self) -> None:
        self._cache = UserDict()  # type: ignore[assignment]


class Pool:
    """A block pool that evicts whom it is told to."""

    def __init__(self, blocks: int, make_map: type[Map] = Map) -> None:
        self._make_map = make_map
        self.cached_block_hash_to_block = make_map()
        self.contents: dict[int, bytes] = {}
        self.free = list(range(blocks))

    def cache_full_blocks(
        self, request: FakeRequest, blocks: Sequence[Any], num_cached_blocks: int, num_full_blocks: int
    ) -> None:
        """Cache some blocks of a request."""
        for place in range(num_cached_blocks, num_full_blocks):
            block = request.block_hashes[place]
            assert isinstance(block, bytes)
            key = block + GROUP
            self.contents[blocks[place].block_id] = blocks[place].block_hash = key
            self.cached_block_hash_to_block.insert(key, blocks[place].block_id)

    def evict(self, id: int) -> None:
        """Forget what a block holds, and free it."""
        self.cached_block_hash_to_block.pop(self.contents.pop(id), id)
        self.free.append(id)

    def forget_all(self) -> None:
        """Start with a new map."""
        self.free += list(self.contents)
        self.contents.clear()
        self.cached_block_hash_to_block = self._make_map()


def pool_of(blocks: int, make_map: type[Map] = Map) -> Any:  # noqa: ANN401 (what is wrapped is assigned to)
    """Return a new pool."""
    return Pool(blocks, make_map)


def request_for(id: str, blocks: Sequence[bytes]) -> Request:
    """Return a request whose prompt has these blocks and one token more."""
    tokens = len(blocks) * BLOCK + 1
    return Request(id=id, client="a", input_tokens=tokens, max_output=1, blocks=tuple(blocks))


class World:
    """A pool, the index of it, and chains that share beginnings."""

    def __init__(self, seed: int, dropped: int = 0) -> None:
        self.draw = random.Random(seed)  # noqa: S311 (to be repeatable is the point)
        self.pool = pool_of(120, OtherMap if seed % 5 == 0 else Map)
        self.shield = Shield(self._failed)
        self.view = IndexedPrefixes(self.pool, BLOCK, self.shield, dropped)
        stems = [[self.draw.randbytes(8) for _ in range(12)] for _ in range(3)]
        self.chains = [
            stem[: self.draw.randint(0, 12)] + [self.draw.randbytes(8) for _ in range(self.draw.randint(1, 8))]
            for stem in stems * 8
        ]
        self.cached: list[list[int]] = []
        """Blocks of each request that was cached, first block first."""
        self.waiting: dict[str, Request] = {}
        self.told: dict[str, int] = {}
        """The cached tokens of each, as a policy knows them."""
        self._arrived = 0

    def _failed(self, problem: Exception) -> None:
        raise AssertionError from problem

    def matched(self, chain: Sequence[bytes]) -> int:
        """Return how many leading blocks of a chain are cached, by looking at each."""
        find = self.pool.cached_block_hash_to_block.get_one_block
        return next((i for i, block in enumerate(chain) if find(block + GROUP) is None), len(chain))

    def cache(self) -> None:
        """Cache a chain, in chunks, all of it or what is not cached; with copies in the latter case."""
        chain = self.draw.choice(self.chains)
        if len(self.pool.free) < len(chain):
            return
        request = FakeRequest("r", block_hashes=chain)
        request.resumable = self.draw.random() < 0.2  # type: ignore[attr-defined]
        first = self.draw.choice([0, self.matched(chain)])
        ids = [self.pool.free.pop() for _ in range(len(chain) - first)]
        blocks = [SimpleNamespace(block_id=None)] * first + [SimpleNamespace(block_id=id) for id in ids]
        while first < len(chain):
            end = self.draw.randint(first + 1, len(chain))
            self.pool.cache_full_blocks(request, blocks, num_cached_blocks=first, num_full_blocks=end)
            first = end
        self.cached.append(ids)

    def evict(self) -> None:
        """Evict as vLLM does: what goes on from a block goes first."""
        for ids in self.draw.sample(self.cached, min(3, len(self.cached))):
            while ids and self.draw.random() < 0.9 and not self._goes_on(ids[-1]):
                self.pool.evict(ids.pop())

    def throw_out(self) -> None:
        """Evict any block."""
        ids = self.draw.choice(self.cached or [[]])
        if ids:
            self.pool.evict(ids.pop(self.draw.randrange(len(ids))))

    def _goes_on(self, id: int) -> bool:
        find, key = self.pool.cached_block_hash_to_block.get_one_block, self.pool.contents[id]
        after = {chain[chain.index(key[:-4]) + 1] for chain in self.chains if key[:-4] in chain[:-1]}
        return any(find(block + GROUP) is not None for block in after)

    def arrive(self) -> None:
        """Let somebody wait."""
        id = f"w{self._arrived}"
        self._arrived += 1
        request = request_for(id, self.draw.choice(self.chains))
        self.waiting[id] = request
        self.told[id] = self.view.watch(request)

    def offer(self) -> None:
        """Look somebody up in the middle of a pass, when not everybody has a new place yet."""
        if self.waiting:
            id = self.draw.choice(list(self.waiting))
            self.told[id] = self.view.confirm(id)
            assert self.told[id] == BLOCK * self.matched(self.waiting[id].blocks), id  # type: ignore[arg-type]

    def leave(self) -> None:
        """Let somebody go."""
        if self.waiting:
            id = self.draw.choice(list(self.waiting))
            del self.waiting[id], self.told[id]
            self.view.forget(id)

    def look(self) -> None:
        """Look as a policy does between two admissions."""
        self.told |= dict(self.view.changes())

    def reset(self) -> None:
        """Forget everything that is cached."""
        self.pool.forget_all()
        self.cached.clear()
        self.view.reset()
        self.look()

    def check(self) -> None:
        """After enough passes, what was told of every waiting request must be what a search finds."""
        for _ in self.waiting:
            self.view.refresh()
            self.look()
        for id, request in self.waiting.items():
            assert self.told[id] == BLOCK * self.matched(request.blocks), id  # type: ignore[arg-type]
        self.view.matches.validate()
        assert self.view.corrections == 0


@pytest.mark.parametrize("seed", range(60))
def test_the_index_is_exact(seed: int) -> None:
    """Whatever is cached, copied, evicted and forgotten; within a pass for whoever is offered, later for all."""
    world = World(seed)
    steps = [world.cache, world.cache, world.evict, world.evict, world.arrive, world.arrive]
    steps += [world.offer, world.offer, world.look, world.leave]
    for number in range(300):
        world.draw.choice(steps)()
        if number % 90 == 89:
            world.reset()
        if number % 23 == 0:
            world.check()
    world.check()


@pytest.mark.parametrize("seed", range(20))
def test_blocks_thrown_out_of_the_middle_do_no_harm(seed: int) -> None:
    """A match may be taken to go on behind the hole, as far as blocks are cached there."""
    world = World(seed)
    steps = [world.cache, world.cache, world.throw_out, world.throw_out, world.arrive, world.look, world.leave]
    find = world.pool.cached_block_hash_to_block.get_one_block
    for _ in range(200):
        world.draw.choice(steps)()
        for id, request in world.waiting.items():
            end = world.view.confirm(id) // BLOCK
            blocks = [bytes(block) for block in request.blocks]
            assert not end or find(blocks[end - 1] + GROUP) is not None
            assert end == len(blocks) or find(blocks[end] + GROUP) is None
        world.view.refresh()
    world.reset()
    world.check()


def test_a_candidate_is_looked_up_before_it_is_offered() -> None:
    """What nobody has told of is found all the same; only what has been cached in silence is counted."""
    world = World(1)
    known, chain = world.pool.cached_block_hash_to_block, world.chains[0]
    assert world.view.watch(request_for("w", chain)) == 0
    for id, block in enumerate(chain[:2]):
        known.insert(block + GROUP, id)
    assert world.view.confirm("w") == 2 * BLOCK
    assert world.view.corrections == 1
    del known._cache[chain[1] + GROUP]
    assert world.view.confirm("w") == BLOCK
    assert world.view.corrections == 1


def test_what_several_wait_for_is_told_within_the_pass() -> None:
    """A few at a time, so that those who share it are admitted together; the others, and losses, later."""
    world = World(1)
    chain, other = world.chains[0], [b"other"]
    for number in range(6):
        world.view.watch(request_for(f"w{number}", chain))
    world.view.watch(request_for("alone", other))
    world.look()
    blocks = [SimpleNamespace(block_id=id) for id in range(len(chain))]
    world.pool.cache_full_blocks(FakeRequest("r", block_hashes=other), [SimpleNamespace(block_id=99)], 0, 1)
    assert list(world.view.changes()) == []
    world.pool.cache_full_blocks(FakeRequest("r", block_hashes=chain), blocks, 0, len(chain))
    matched = len(chain) * BLOCK
    assert dict(world.view.changes()) == {"alone": BLOCK, "w0": matched, "w1": matched, "w2": matched}
    world.pool.evict(99)
    assert list(world.view.changes()) == []
    world.view.refresh()
    assert dict(world.view.changes()) == {"w3": matched, "w4": matched, "w5": matched, "alone": 0}


def test_whoever_caches_what_only_itself_waited_for_leaves_nothing_to_look_up() -> None:
    """That is what nearly every admission does; those who gain would otherwise wait behind it."""
    world = World(1)
    for number in range(40):
        id, chain = f"r{number}", [world.draw.randbytes(8)]
        world.view.watch(request_for(id, chain))
        block = world.pool.free.pop()
        world.pool.cache_full_blocks(FakeRequest(id, block_hashes=chain), [SimpleNamespace(block_id=block)], 0, 1)
        world.view.forget(id)
    world.view.watch(request_for("w", [b"w"]))
    world.pool.cache_full_blocks(FakeRequest("x", block_hashes=[b"w"]), [SimpleNamespace(block_id=1)], 0, 1)
    world.view.refresh()
    assert list(world.view.changes()) == [("w", BLOCK)]


def test_with_eagle_the_last_block_is_computed_again() -> None:
    """So it does not count as cached."""
    world = World(2, dropped=1)
    world.cache()
    chain = next(chain for chain in world.chains if world.matched(chain) == len(chain))
    assert world.view.watch(request_for("w", chain)) == (len(chain) - 1) * BLOCK
    assert world.view.confirm("w") == (len(chain) - 1) * BLOCK
    world.reset()
    assert world.told == {"w": 0}


def test_an_error_in_the_feed_stays_in_there() -> None:
    """The pool caches all the same."""
    told: list[Exception] = []
    pool = pool_of(8)
    view = IndexedPrefixes(pool, BLOCK, Shield(told.append))
    view.watch(request_for("w", [b"1"]))
    view.matches.cached = view.matches.evicted = None  # type: ignore[assignment, method-assign]
    request = FakeRequest("r", block_hashes=[b"1"])
    pool.cache_full_blocks(request, [SimpleNamespace(block_id=1)], num_cached_blocks=0, num_full_blocks=1)
    assert pool.cached_block_hash_to_block.get_one_block(b"1" + GROUP) == 1
    pool.evict(1)
    assert pool.cached_block_hash_to_block.get_one_block(b"1" + GROUP) is None
    assert len(told) == 1


class FullAttentionManager:
    """Named like vLLM's."""

    block_size = BLOCK


def scheduler(managers: Sequence[object], found: int = 0) -> SimpleNamespace:
    """Return what is looked at of a scheduler."""
    coordinator = SimpleNamespace(
        single_type_managers=managers, find_longest_cache_hit=lambda _hashes, _longest: ((), found)
    )
    return SimpleNamespace(
        block_size=BLOCK,
        kv_cache_manager=SimpleNamespace(coordinator=coordinator, block_pool=Pool(8)),
        kv_cache_config=SimpleNamespace(kv_cache_groups=[None] * len(managers)),
    )


def test_only_plain_caches_are_indexed() -> None:
    """One group of full attention, in blocks of the size that is hashed; all others are asked."""
    assert can_be_indexed(scheduler([FullAttentionManager()]))
    assert not can_be_indexed(scheduler([FullAttentionManager()] * 2))
    assert not can_be_indexed(scheduler([SimpleNamespace(block_size=BLOCK)]))
    finer = scheduler([FullAttentionManager()])
    finer.hash_block_size = BLOCK // 2
    assert not can_be_indexed(finer)


def test_the_cache_is_asked_as_an_admission_does() -> None:
    """At least one token is computed, and a request that skips the cache finds nothing in it."""
    found = FakeRequest("r", num_prompt_tokens=64)
    request = Request(id="r", client="a", input_tokens=64, max_output=1)
    ask = asker(scheduler([FullAttentionManager()], found=64), lambda _request: found)
    assert ask(request) == 63
    found.skip_reading_prefix_cache = True  # type: ignore[attr-defined]
    assert ask(request) == 0
