"""The heap whose entries may go stale."""

from __future__ import annotations

import heapq
import random

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fairprefix.core.heap import LazyHeap
from tests.support import sized

PUSHES = sized(300_000, mutation=2_000)


@pytest.fixture(params=[0, 256])
def at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heaps of up to so many entries are swept at once, longer ones bit by bit."""
    monkeypatch.setattr("fairprefix.core.heap._AT_ONCE", request.param)


@pytest.mark.usefixtures("at_once")
def test_many_pushes_leave_it_small() -> None:
    """However many entries have been pushed, it stays below three times the number of valid ones."""
    current: dict[int, int] = {}
    heap: LazyHeap[tuple[int, int]] = LazyHeap(lambda item: current.get(item[1]) == item[0])
    longest = 0
    for n in range(PUSHES):
        key = n % 100
        current[key] = -n
        heap.push((-n, key))
        longest = max(longest, len(heap))
    assert longest <= 300
    assert heap.top() == (1 - PUSHES, 99)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 50)), max_size=300), st.sampled_from([0, 256]))
def test_the_top_is_the_smallest_valid_entry(changes: list[tuple[int, int]], at_once: int) -> None:
    """After any changes of keys, the top is the smallest entry that is valid now."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fairprefix.core.heap._AT_ONCE", at_once)
        _follow(changes)


def _follow(changes: list[tuple[int, int]]) -> None:
    current: dict[int, int] = {}
    heap: LazyHeap[tuple[int, int]] = LazyHeap(lambda item: current.get(item[1]) == item[0])
    for name, key in changes:
        if key == 50:
            current.pop(name, None)
        else:
            current[name] = key
            heap.push((key, name))
        expected = min(((key, name) for name, key in current.items()), default=None)
        assert heap.top() == expected


@pytest.mark.usefixtures("at_once")
def test_it_orders_like_a_heap() -> None:
    """With nothing stale, it gives the entries back in order."""
    gone: set[tuple[int]] = set()
    heap: LazyHeap[tuple[int]] = LazyHeap(lambda item: item not in gone)
    values = [(n * 7919 % 1009,) for n in range(500)]
    for value in values:
        heap.push(value)
    expected = heapq.nsmallest(500, values)
    for value in expected:
        assert heap.top() == value
        gone.add(value)
    assert heap.top() is None


@pytest.mark.usefixtures("at_once")
def test_what_was_pushed_during_one_sweep_survives_the_next() -> None:
    """A sweep that ends because all that was left to move is stale forgets what came during it."""
    valid = set(range(64))
    heap: LazyHeap[tuple[int]] = LazyHeap(lambda item: item[0] in valid)
    for n in range(64):
        heap.push((n,))
    valid.add(100)
    heap.push((100,))
    valid.intersection_update({100})
    assert heap.top() == (100,)
    for n in range(101, 400):
        valid.add(n)
        heap.push((n,))
    assert heap.top() == (100,)
    for n in range(100, 399):
        valid.discard(n)
        assert heap.top() == (n + 1,)


@pytest.mark.usefixtures("at_once")
def test_a_valid_entry_in_both_halves_is_found() -> None:
    """While entries are being moved, the smallest of both heaps is on top."""
    heap: LazyHeap[tuple[int]] = LazyHeap(lambda _: True)
    for n in range(64, 0, -1):
        heap.push((n,))
    heap.push((200,))
    assert heap.top() == (1,)
    heap.push((0,))
    assert heap.top() == (0,)


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("seed", range(20))
def test_what_stands_in_front_is_in_order_with_the_rest(seed: int) -> None:
    """Entries before, within and behind what was taken out of the heap ahead; some turn stale, or come back."""
    draw = random.Random(seed)  # noqa: S311 (to be repeatable is the point)
    valid: set[tuple[int]] = set()
    heap: LazyHeap[tuple[int]] = LazyHeap(valid.__contains__)
    for _ in range(1500):
        item = (draw.randrange(2000) if draw.random() < 0.7 else draw.randrange(100),)
        if item not in valid:
            valid.add(item)
            heap.push(item)
        if draw.random() < 0.3:
            assert heap.top() == min(valid)
            valid.discard(draw.choice([min(valid), item]))
            assert len(heap._front) <= 64
    for expected in sorted(valid):
        assert heap.top() == expected
        valid.discard(expected)
    assert heap.top() is None
