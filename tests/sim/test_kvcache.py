"""The KV memory of the virtual engine counts every token, shares prefixes and evicts what is unused longest."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fairprefix.core.prefixes import PrefixIndex
from fairprefix.sim.kvcache import Holding, KVCache


def chain(family: int, length: int) -> tuple[int, ...]:
    """Return a chain of block hashes; chains of one family share their beginnings."""
    return tuple(1000 * family + place for place in range(length))


def admit(cache: KVCache, blocks: tuple[int, ...], tail: int) -> Holding:
    """Hold a prompt of `blocks` and `tail` more tokens, and compute it at once."""
    matched = cache.matched_blocks(blocks)
    tokens = len(blocks) * cache.block_size + tail
    holding = cache.hold(blocks, matched, tokens - matched * cache.block_size)
    cache.cache(holding, tokens)
    return holding


def test_a_shared_prefix_is_counted_once() -> None:
    """Two requests with the same prompt need the memory of one prompt and of two tails."""
    cache = KVCache(100, PrefixIndex(4))
    admit(cache, chain(1, 5), tail=2)
    admit(cache, chain(1, 5), tail=3)
    assert cache.room == 100 - 20 - 2 - 3


def test_a_block_computed_twice_is_kept_once() -> None:
    """Requests that compute the same prefix side by side end up sharing one copy."""
    cache = KVCache(100, PrefixIndex(4))
    first = cache.hold(chain(1, 3), 0, 12)
    second = cache.hold(chain(1, 3), 0, 12)
    cache.cache(first, 12)
    cache.cache(second, 12)
    assert cache.room == 100 - 12
    cache.check_integrity([first, second])


def test_released_prefixes_stay_cached_until_their_room_is_needed() -> None:
    """What nobody references stays, and goes when there is no other room: the end of the oldest chain first."""
    cache = KVCache(40, PrefixIndex(4))
    cache.release(admit(cache, chain(1, 4), tail=0))
    cache.release(admit(cache, chain(2, 4), tail=0))
    assert cache.room == 40
    admit(cache, (), tail=12)
    assert cache.matched_blocks(chain(1, 4)) == 3
    assert cache.matched_blocks(chain(2, 4)) == 4
    assert cache.evicted_blocks == 1


def test_using_a_prefix_again_keeps_it_longer() -> None:
    """A chain that was used again is evicted after one that was not."""
    cache = KVCache(40, PrefixIndex(4))
    cache.release(admit(cache, chain(1, 4), tail=0))
    cache.release(admit(cache, chain(2, 4), tail=0))
    cache.release(admit(cache, chain(1, 4), tail=0))
    admit(cache, (), tail=16)
    assert (cache.matched_blocks(chain(1, 4)), cache.matched_blocks(chain(2, 4))) == (4, 2)


def test_reviving_a_prefix_takes_room() -> None:
    """A match of unreferenced blocks fits only if there is room for them besides the new tokens."""
    cache = KVCache(20, PrefixIndex(4))
    cache.release(admit(cache, chain(1, 3), tail=0))
    cache.hold((), 0, 8)
    assert cache.fits(chain(1, 3), 3, 0)
    assert not cache.fits(chain(1, 3), 3, 1)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 9), st.booleans()), max_size=60))
def test_tokens_are_conserved(steps: list[tuple[int, int, int, bool]]) -> None:
    """Whatever is admitted, grown, computed and released, every token is counted exactly once."""
    cache = KVCache(120, PrefixIndex(4))
    held: list[Holding] = []
    for family, length, tail, release in steps:
        if release and held:
            cache.release(held.pop(family % len(held)))
        else:
            blocks = chain(family, length)
            matched = cache.matched_blocks(blocks)
            private = (length - matched) * 4 + tail
            if cache.fits(blocks, matched, private):
                holding = cache.hold(blocks, matched, private)
                held.append(holding)
                cache.cache(holding, matched * 4 + private)
            if held and cache.room >= 1:
                cache.grow(held[0], 1)
        cache.check_integrity(held)
        cache.index.validate()
    for holding in held:
        cache.release(holding)
    assert cache.room == 120
