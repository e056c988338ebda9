"""Missed refills are counted for clients that are backlogged somewhere, from counters alone."""

from __future__ import annotations

from fractions import Fraction

import pytest

from fairprefix.core.bounds import Bound, Engine, dlpm_both_backlogged, over_workers
from fairprefix.core.cost import CostWeights
from fairprefix.core.dlpm import DLPM
from fairprefix.core.errors import ConfigError
from fairprefix.core.refill_watch import RefillWatch
from tests.support import dlpm, request


class Watched:
    """Two workers and the watch, told of everything."""

    def __init__(self, quantum: int = 10, **weights: int) -> None:
        self.workers = [dlpm(quantum=quantum, weights=weights) for _ in range(2)]
        self.watch = RefillWatch(self.workers, {c: quantum * w for c, w in weights.items()}, quantum)

    def arrive(self, worker: int, *ids: str, prompt: int = 50) -> None:
        """Queue requests at a worker."""
        for id in ids:
            self.workers[worker].arrive(request(id, prompt=prompt))
            self.watch.queued(id[0], +1)

    def take(self, worker: int, id: str, extend: int) -> None:
        """Admit the request that is offered, and finish it."""
        policy: DLPM = self.workers[worker]
        found = policy.peek()
        assert found is not None
        assert found.id == id
        receipt = policy.take(id, extend=extend, reserve=0)
        self.watch.charged(worker, id[0], receipt.charged)
        self.watch.queued(id[0], -1)
        policy.finish(id, output=0)


def test_a_client_with_credit_that_is_queued_elsewhere_misses_refills() -> None:
    """While f waits at the other worker, g is refilled here three times; f, with credit, never."""
    both = Watched()
    both.arrive(1, "f9")
    both.arrive(0, "f1", "g1")
    both.take(0, "f1", 4)
    both.take(0, "g1", 40)
    both.arrive(0, "g2")
    both.take(0, "g2", 1)
    assert both.workers[0].rounds == 5
    assert (both.watch.missed("f"), both.watch.missed("g")) == (4, 0)
    assert both.watch.most_missed() == 4


def test_nothing_is_missed_by_who_takes_part() -> None:
    """Queued or in debt at each refill: what D2LPM's theorem asks for."""
    both = Watched(f=2)
    both.arrive(0, "f1", "f2", "g1", "g2")
    both.take(0, "f1", 45)
    both.take(0, "g1", 15)
    both.take(0, "g2", 20)
    both.arrive(0, "g3")
    both.take(0, "f2", 1)
    assert both.workers[0].rounds == 3
    assert both.watch.most_missed() == 0


def test_what_is_missed_while_nothing_waits_anywhere_does_not_count() -> None:
    """Only a backlogged client is owed anything; what it missed before it was idle stays counted."""
    both = Watched()
    both.arrive(0, "f1", "g1")
    both.take(0, "f1", 4)
    both.take(0, "g1", 40)
    both.arrive(0, "g2")
    both.take(0, "g2", 1)
    assert both.watch.missed("f") == 0
    both.arrive(1, "f2")
    both.arrive(0, "g3")
    both.take(0, "g3", 20)
    both.arrive(0, "g4")
    both.take(0, "g4", 1)
    missed = both.watch.missed("f")
    assert missed > 0
    both.take(1, "f2", 1)
    assert both.watch.missed("f") == missed
    assert both.watch.missed("nobody") == 0


def test_refills_are_counted_in_quanta_of_the_client() -> None:
    """Of weight 2 it received as many refills as one of weight 1, and missed as many."""
    both = Watched(f=2)
    both.arrive(1, "f9")
    both.arrive(0, "f1", "g1")
    both.take(0, "f1", 4)
    both.take(0, "g1", 40)
    both.arrive(0, "g2")
    both.take(0, "g2", 1)
    assert (both.watch.missed("f"), both.watch.missed("g")) == (4, 0)


def test_each_backlog_adds_what_was_missed_in_it() -> None:
    """Two backlogs at the other worker with two refills missed in each, and two in between that do not count."""
    both = Watched()
    both.arrive(0, "f1", "g1")
    both.take(0, "f1", 1)
    both.take(0, "g1", 20)
    told = []
    for number, waits in enumerate((True, False, True), start=2):
        if waits:
            both.arrive(1, f"f{number}")
        both.arrive(0, f"g{number}")
        both.take(0, f"g{number}", 20)
        told.append(both.watch.missed("f"))
        if waits:
            both.take(1, f"f{number}", 1)
    assert told == [2, 2, 4]
    assert both.watch.most_missed() == 4


def test_a_refill_of_one_unit_is_counted_exactly() -> None:
    """With a quantum of one, and more refills than a floating-point number can count."""
    many = 2**60
    both = Watched(quantum=1)
    both.arrive(1, "f9")
    both.arrive(0, "f1", "g1", prompt=many)
    both.take(0, "f1", 2)
    both.take(0, "g1", many)
    both.arrive(0, "f2", "g2")
    both.take(0, "f2", 1)
    both.arrive(0, "g3")
    both.take(0, "g2", 1)
    received = both.workers[0].deficit("f") + 3
    assert both.workers[0].rounds - received == both.watch.missed("f") == many - 3


def test_nobody_watched_has_missed_nothing() -> None:
    """The largest of no figures is 0."""
    assert RefillWatch([], None, 10).most_missed() == 0


def test_bounds_of_workers_add_up_with_misses() -> None:
    """The sum of the workers' own bounds, and a quantum for each miss."""
    engine = Engine(reservation="full", kv_tokens=10, max_running=2, longest_input=4, longest_output=4)
    one = dlpm_both_backlogged(engine, CostWeights(), 5)
    total = over_workers([one, one], 5, misses=3)
    assert total.exact == 2 * one.exact + 15
    assert isinstance(total, Bound)
    assert isinstance(total.exact, Fraction)
    assert "misses" in total.assumptions[0]
    with pytest.raises(ConfigError, match="at least one worker"):
        over_workers([], 5)
    with pytest.raises(ConfigError, match="misses = -1"):
        over_workers([one], 5, misses=-1)
