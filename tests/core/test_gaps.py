"""The search for the largest gap: what it may skip, where the gap lies, and how tight the bound on others is."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairprefix.core import gaps
from fairprefix.core.cost import CostWeights
from fairprefix.core.gaps import BACKLOGGED, IDLE, History, Path
from fairprefix.core.monitor import BoundMonitor

COST = CostWeights(extend=1, output=1)

Event = tuple[int, int]
"""(client, units charged, or BACKLOGGED, or IDLE)."""


def path(
    *charges: tuple[int, int], spread: int = 0, served: int = 0, stays: Sequence[tuple[int, int]] = ()
) -> Path:
    """Return the path of a client with these (order, units); by default it stays from 0 to 100."""
    return Path(
        served=served,
        spread=Fraction(spread),
        stays=list(stays) or [(0, 100)],
        orders=array("q", [order for order, _ in charges]),
        amounts=array("q", [units for _, units in charges]),
    )


def test_pairs_are_tried_by_falling_bound() -> None:
    """The search ends early only because no pair left can be wider: the widest here is the last by name."""
    paths = [path(spread=0), path((1, 10), spread=10), path((2, 9), spread=9)]
    paths[2].amounts[0] = -9  # as if client 2 had fallen behind everybody: a gap of 19 to client 1
    widest = gaps.widest_gap(paths, [1, 1, 1], [0, 1, 2])
    assert widest.size == 19
    assert (widest.ahead, widest.behind) == (1, 2)


def test_a_pair_with_a_larger_bound_is_not_left_for_later() -> None:
    """A gap as wide as the bound of other pairs does not end the search before the pair with the largest bound."""
    paths = [path(spread=0), path((1, 5), spread=5), path((2, -5), spread=5)]
    widest = gaps.widest_gap(paths, [1, 1, 1], [0, 1, 2])
    assert widest.size == 10
    assert (widest.ahead, widest.behind) == (1, 2)


def test_the_first_spread_of_a_pair_counts_as_well() -> None:
    """Of two pairs with one second client, the one whose first client has the larger spread is tried first."""
    wide = path((1, -12), spread=12)
    paths = [path(spread=1), wide, path((2, 3), spread=3)]
    assert gaps.widest_gap(paths, [1, 1, 1], [0, 1, 2]).size == 15


def test_those_who_were_served_most_are_looked_at() -> None:
    """The `top` clients are those with most service while backlogged, ties by who came first."""
    paths = [path(served=1), path(served=5), path(served=5), path(served=9), Path(served=100)]
    assert gaps.most_served(paths, 3) == [3, 1, 2]
    assert gaps.most_served(paths, 9) == [3, 1, 2, 0], "the last one was never backlogged"


def test_the_bound_on_others_adds_the_two_largest_spreads_that_make_a_pair() -> None:
    """Of the clients not looked at the one with the largest spread counts, and anybody else's beside it."""
    paths = [path(spread=7), path(spread=5), path(spread=4), path(spread=1)]
    assert gaps.bound_on_others(paths, [0]) == 5 + 7
    assert gaps.bound_on_others(paths, []) == 7 + 5
    assert gaps.bound_on_others(paths, [0, 1]) == 4 + 7
    assert gaps.bound_on_others(paths, [0, 1, 2, 3]) == 0
    assert gaps.bound_on_others(paths[:1], []) == 0


def test_later_stays_of_a_pair_are_looked_at_although_an_earlier_one_is_no_wider() -> None:
    """An interval without a gap does not end the search, nor does one as wide as what is known already."""
    stays = [(0, 10), (20, 30), (40, 50)]
    first = path((41, 6), stays=stays, spread=6)
    second = path(stays=[(0, 100)])
    for pair, ahead in (((first, second), 0), ((second, first), 1)):
        found = gaps.widest_gap(pair, [1, 1], [0, 1])
        assert found.size == 6
        assert (found.ahead, found.start, found.end) == (ahead, 40, 41)


def test_of_two_gaps_of_one_size_the_first_is_told() -> None:
    """An interval that is just as wide does not replace the one found before."""
    first = path((1, 6), (21, 6), stays=[(0, 10), (20, 30)], spread=6)
    found = gaps.widest_gap([first, path()], [1, 1], [0, 1])
    assert (found.start, found.end) == (0, 1)


@pytest.mark.parametrize(("weights", "size"), [((1, 1), 7), ((2, 1), Fraction(7, 2)), ((2, 3), Fraction(7, 2))])
def test_gaps_are_per_unit_of_weight(weights: tuple[int, int], size: Fraction) -> None:
    """Of two stays the one with the larger gap per unit of weight is found, also where gaps are fractions."""
    first = path((1, 5), (21, 7), (41, 6), stays=[(0, 10), (20, 30), (40, 50)], spread=7)
    found = gaps.widest_gap([first, path()], weights, [0, 1])
    assert found.size == size
    assert found.end == 21


# -- how tight the bound on the others is ----------------------------------------------------------------

AMOUNTS = st.sampled_from([BACKLOGGED, BACKLOGGED, IDLE]) | st.integers(1, 9) | st.integers(0, 9)
events = st.lists(st.tuples(st.integers(0, 3), AMOUNTS), min_size=6, max_size=40).map(
    lambda happened: [(0, BACKLOGGED), (1, BACKLOGGED), *happened]
)


class Reference:
    """Distances from a perfectly fair server, in fractions, looked at after and before every event."""

    def __init__(self, weights: Sequence[int]) -> None:
        self.weights = weights
        self.virtual = Fraction(0)
        self.stays: dict[int, list[Fraction]] = {}
        """Of who is backlogged: W - weight * V since it came, at every moment so far."""
        self.spreads = [Fraction(0)] * len(weights)

    def happens(self, client: int, amount: int) -> None:
        """Let an event happen."""
        if amount == BACKLOGGED:
            self.stays.setdefault(client, [Fraction(0)])
        elif amount == IDLE:
            if client in self.stays:
                self.spreads[client] = max(self.spreads[client], self.spread(client))
                del self.stays[client]
        elif client in self.stays:
            step = Fraction(amount, sum(self.weights[other] for other in self.stays))
            for other, distances in self.stays.items():
                gained = amount if other == client else 0
                distances.append(distances[-1] + gained - self.weights[other] * step)

    def spread(self, client: int) -> Fraction:
        """Return the range of a client's distances, in its present stay or an earlier one."""
        distances = self.stays.get(client, [Fraction(0)])
        present = (max(distances) - min(distances)) / self.weights[client]
        return max(self.spreads[client], present)


WEIGHTS = (1, 2, 1, 3)
ROUNDING = Fraction(1, 1000)
"""V is rounded down to a millionth of a unit, a few dozen times."""


def tidied(happened: list[Event]) -> list[Event]:
    """Return the events without those that change nothing, as a ledger hands them on."""
    present: set[int] = set()
    kept: list[Event] = []
    for client, amount in happened:
        if amount in (BACKLOGGED, IDLE):
            if (client in present) == (amount == BACKLOGGED):
                continue
            present ^= {client}
        kept.append((client, amount))
    return kept


@given(events)
def test_a_spread_is_the_distance_from_a_perfectly_fair_server(happened: list[Event]) -> None:
    """Each client's spread is the range of its distance from what a fair server would have given, and no more."""
    kept, reference = tidied(happened), Reference(WEIGHTS)
    for client, amount in kept:
        reference.happens(client, amount)
    paths = gaps.follow(History(WEIGHTS, [client for client, _ in kept], [amount for _, amount in kept]))
    for client, found in enumerate(paths):
        assert abs(found.spread - reference.spread(client)) <= ROUNDING
    served = [sum(found.amounts) for found in paths]
    assert [found.served for found in paths] == served


@given(events, st.integers(0, 4))
def test_the_live_bound_on_others_is_as_tight(happened: list[Event], top: int) -> None:
    """The monitor's bound is the sum of the two largest spreads of a pair that it does not follow, no more."""
    reference = Reference(WEIGHTS)
    monitor = BoundMonitor(COST, weights={str(n): weight for n, weight in enumerate(WEIGHTS)}, top=top)
    heard: dict[int, None] = {}
    met = False
    for at, (client, amount) in enumerate(tidied(happened)):
        heard.setdefault(client) if amount != IDLE else None
        reference.happens(client, amount)
        if amount == BACKLOGGED:
            followed = list(heard)[:top]
            met |= len(reference.stays) > 1 and any(other not in followed for other in reference.stays)
            monitor.backlogged(str(client), at)
        elif amount == IDLE:
            monitor.idle(str(client), at)
        else:
            monitor.produced(str(client), at, amount)
    followed = list(heard)[:top]
    spreads = [reference.spread(client) for client in range(len(WEIGHTS))]
    others = max((spread for client, spread in enumerate(spreads) if client not in followed), default=Fraction(0))
    exact = max((spread for client, spread in enumerate(spreads) if client in followed), default=Fraction(0))
    expected = others + max(exact, others) if met else Fraction(0)
    assert ceil(expected - ROUNDING) <= monitor.others_at_most <= ceil(expected + ROUNDING)
