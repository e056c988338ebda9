"""Work is proportional to what is looked at, not to how many requests wait: counted, not timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fairprefix.core.base import BasePolicy
from fairprefix.core.heap import LazyHeap
from fairprefix.core.lane import Lane
from tests.support import dlpm, fcfs, hot, lpm, request, sized, vtc

CLIENTS = sized(10_000, mutation=2_500)
WAITING = sized(100_000, mutation=5_000)


class Work:
    """How many entries of heaps have been looked at or added, and how many queues asked for their best."""

    def __init__(self) -> None:
        self.entries = 0
        self.queues = 0

    def reset(self) -> None:
        """Count from here on."""
        self.entries = self.queues = 0


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    """Return the count of all work from here on."""
    counted = Work()
    make_heap, push, candidate = LazyHeap.__init__, LazyHeap.push, Lane.candidate

    def counting_heap(self: LazyHeap[Any], valid: Callable[[Any], bool]) -> None:
        def look(item: Any) -> bool:  # noqa: ANN401 (any entry)
            counted.entries += 1
            return valid(item)

        make_heap(self, look)

    def counting_push(self: LazyHeap[Any], item: Any) -> None:  # noqa: ANN401
        counted.entries += 1
        push(self, item)

    def counting_candidate(self: Lane) -> object:
        counted.queues += 1
        return candidate(self)

    monkeypatch.setattr(LazyHeap, "__init__", counting_heap)
    monkeypatch.setattr(LazyHeap, "push", counting_push)
    monkeypatch.setattr(Lane, "candidate", counting_candidate)
    return counted


@pytest.mark.parametrize("make", [fcfs, lpm, vtc, dlpm])
def test_work_does_not_grow_with_the_queue(make: Callable[..., BasePolicy], work: Work) -> None:
    """With 100,000 requests of 10,000 clients waiting, an admission or a planned one looks at few entries."""
    policy = make(hot(1), quantum=3, bounded_wait=4)
    for n in range(WAITING):
        path = (1,) if n % 7 == 0 else ()
        policy.arrive(request(f"r{n}", client=f"c{n % CLIENTS}", prompt=5, path=path))
    work.reset()
    assert len(policy.plan(100)) == 100
    assert work.entries <= 30 * 100
    assert work.queues <= 5 * 100
    work.reset()
    for _ in range(1000):
        offered = policy.peek()
        assert offered is not None
        policy.take(offered.id, extend=5, reserve=1)
    assert work.entries <= 10 * 1000
    assert work.queues <= 5 * 1000
