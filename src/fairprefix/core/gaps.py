"""The largest gap between two clients over every interval in which both were backlogged.

The service of a client is a staircase: each charge is one step. While f and g both stay backlogged, the
gap over any sub-interval is the difference between two values of the walk W_f/weight_f - W_g/weight_g. The
largest one is therefore the walk's maximum minus its minimum: linear time a pair, and exact, because the
walk is scaled to integers.

Looking at every pair is too much work with thousands of clients. For ANY reference V(t), the gap of a pair is
at most range_f + range_g, where range_x is the maximum minus the minimum of W_x/weight_x - V over one of x's
backlogged intervals. Here V is what a perfectly fair server would have given per unit of weight so far; the
closer it follows the clients, the tighter the bound, but the bound holds whatever V is, so V is rounded down.

This module knows no time: the place of an event in the history is its *order*.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import combinations
from math import ceil

from attrs import Factory, define, frozen

BACKLOGGED = -1
"""Stands in place of an amount: the client has a request queued from here on."""
IDLE = -2
"""Stands in place of an amount: the client has no request queued from here on."""

_VIRTUAL_SCALE = 1 << 20
"""V is kept in this fraction of a service unit; it sets how tight the bound is, not whether it holds."""


@frozen
class History:
    """Every event in order, as one view of service sees it; clients are numbered from 0."""

    weights: Sequence[int]
    """Weight of each client."""
    owners: Sequence[int]
    """For each event, the client that it belongs to."""
    amounts: Sequence[int]
    """For each event, the service units charged, or `BACKLOGGED`, or `IDLE`."""


@define
class Path:
    """What one client went through while it was backlogged."""

    served: int = 0
    """Service units charged."""
    spread: Fraction = Fraction(0)
    """Largest maximum minus minimum of W/weight - V over one backlogged interval, in units per weight."""
    stays: list[tuple[int, int]] = Factory(list)
    """Backlogged intervals: the order of the event that opens each, and of the one that closes it."""
    orders: array[int] = Factory(lambda: array("q"))
    """Order of each charge within the stays."""
    amounts: array[int] = Factory(lambda: array("q"))
    """Service units of each charge within the stays."""


@frozen
class Widest:
    """The largest gap found: by how much, who was ahead of whom, and between which two events."""

    size: Fraction = Fraction(0)
    """Service units per unit of weight."""
    ahead: int | None = None
    behind: int | None = None
    start: int = 0
    """Order of the event after which the gap begins to grow."""
    end: int = 0
    """Order of the last charge that counts."""


class _Follower:
    """Goes through a history once and keeps, for each client, its path and its distance from V."""

    def __init__(self, history: History) -> None:
        clients = len(history.weights)
        self.paths = [Path() for _ in range(clients)]
        self._weights = history.weights
        self._present = 0  # sum of the weights of the backlogged clients
        self._virtual = 0  # V
        self._opened: list[int | None] = [None] * clients
        self._lead = [0] * clients  # the part of W/weight - V that is the client's own, times weight
        self._lowest = [0] * clients
        self._highest = [0] * clients
        self._follow(history)

    def _follow(self, history: History) -> None:
        for order, (owner, amount) in enumerate(zip(history.owners, history.amounts, strict=True)):
            if amount == BACKLOGGED:
                self._open(owner, order)
            elif amount == IDLE:
                self._close(owner, order)
            elif self._opened[owner] is not None:
                self._charge(owner, order, amount)
        for owner, opened in enumerate(self._opened):
            if opened is not None:
                self._close(owner, len(history.owners))

    def _open(self, owner: int, order: int) -> None:
        weight = self._weights[owner]
        self._opened[owner] = order
        self._present += weight
        distance = self._lead[owner] - weight * self._virtual
        self._lowest[owner] = self._highest[owner] = distance

    def _charge(self, owner: int, order: int, amount: int) -> None:
        # V never falls, so between its own charges a client's distance from V only shrinks: the lowest
        # point lies just before a charge or at the end of the interval, the highest just after a charge.
        path = self.paths[owner]
        path.served += amount
        path.orders.append(order)
        path.amounts.append(amount)
        weight = self._weights[owner]
        lead = self._lead[owner]
        self._lowest[owner] = min(self._lowest[owner], lead - weight * self._virtual)
        scaled = amount * _VIRTUAL_SCALE
        self._lead[owner] = lead = lead + scaled
        self._virtual += scaled // self._present
        self._highest[owner] = max(self._highest[owner], lead - weight * self._virtual)

    def _close(self, owner: int, order: int) -> None:
        opened = self._opened[owner]
        assert opened is not None, "the ledger closes only what it has opened"
        weight = self._weights[owner]
        lowest = min(self._lowest[owner], self._lead[owner] - weight * self._virtual)
        spread = Fraction(self._highest[owner] - lowest, weight * _VIRTUAL_SCALE)
        path = self.paths[owner]
        path.spread = max(path.spread, spread)
        path.stays.append((opened, order))
        self._opened[owner] = None
        self._present -= weight


def follow(history: History) -> list[Path]:
    """Return the path of every client: one pass, a constant amount of work an event."""
    return _Follower(history).paths


def most_served(paths: Sequence[Path], top: int) -> list[int]:
    """Return the `top` clients that were charged most while backlogged, the largest first."""
    present = [client for client, path in enumerate(paths) if path.stays]
    return sorted(present, key=lambda client: (-paths[client].served, client))[:top]


def widest_gap(paths: Sequence[Path], weights: Sequence[int], chosen: Sequence[int]) -> Widest:
    """Return the largest gap over all pairs among the `chosen` clients, exactly.

    Pairs are taken by falling upper bound, so the search ends as soon as no pair left can be wider.
    """
    by_bound = sorted(
        combinations(sorted(chosen), 2),
        key=lambda pair: -(paths[pair[0]].spread + paths[pair[1]].spread),
    )
    widest = Widest()
    for first, second in by_bound:
        if paths[first].spread + paths[second].spread <= widest.size:
            break
        widest = _widest_of_pair(paths, weights, (first, second), widest)
    return widest


def bound_on_others(paths: Sequence[Path], chosen: Sequence[int]) -> int:
    """Return an upper bound on the gap of every pair that has a client outside of `chosen`.

    Rounded up to a whole service unit per unit of weight; 0 when there is no such pair.
    """
    exact = frozenset(chosen)
    present = [client for client, path in enumerate(paths) if path.stays]
    others = [client for client in present if client not in exact]
    if not others or len(present) == 1:
        return 0
    worst = max(others, key=lambda client: paths[client].spread)
    partner = max(paths[client].spread for client in present if client != worst)
    return ceil(paths[worst].spread + partner)


def _widest_of_pair(
    paths: Sequence[Path], weights: Sequence[int], pair: tuple[int, int], widest: Widest
) -> Widest:
    """Return the largest gap of a pair, or `widest` when that is at least as large."""
    first, second = pair
    units = weights[first] * weights[second]
    for start, end in _together(paths[first].stays, paths[second].stays):
        low, low_at, high, high_at = _extremes(
            _steps(paths[first], start, end, scale=weights[second]),
            _steps(paths[second], start, end, scale=weights[first]),
            start,
        )
        if (high - low) * widest.size.denominator <= widest.size.numerator * units:
            continue
        ahead, behind = pair if low_at < high_at else (second, first)
        size = Fraction(high - low, units)
        widest = Widest(size, ahead, behind, min(low_at, high_at), max(low_at, high_at))
    return widest


def _together(first: Sequence[tuple[int, int]], second: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the maximal intervals that lie within a stay of both."""
    i = j = 0
    while i < len(first) and j < len(second):
        start = max(first[i][0], second[j][0])
        end = min(first[i][1], second[j][1])
        if start < end:
            yield start, end
        if first[i][1] < second[j][1]:
            i += 1
        else:
            j += 1


@frozen
class _Steps:
    """The charges of one client within an interval, scaled to the pair's common unit."""

    orders: Sequence[int]
    amounts: Sequence[int]
    scale: int
    end: int


def _steps(path: Path, start: int, end: int, *, scale: int) -> _Steps:
    low = bisect_right(path.orders, start)
    high = bisect_left(path.orders, end, low)
    return _Steps(path.orders[low:high], path.amounts[low:high], scale, end)


def _extremes(up: _Steps, down: _Steps, start: int) -> tuple[int, int, int, int]:
    """Walk up with one client's charges and down with the other's, in the order of the events.

    Returns:
        The lowest level and the order at which it was reached, then the highest level and its order.
    """
    level = low = high = 0
    low_at = high_at = last = start
    rise, fall = up.scale, down.scale
    never = (down.end, 0)
    waiting = zip(down.orders, down.amounts, strict=True)
    next_order, next_amount = next(waiting, never)
    # The walk can only turn where the other client's charges begin: it is enough to look there. The
    # last round, with nothing to climb, walks down what remains of the other client's charges.
    for order, amount in _then_nothing(up):
        if next_order < order:
            if level > high:
                high, high_at = level, last
            while next_order < order:
                level -= next_amount * fall
                last = next_order
                next_order, next_amount = next(waiting, never)
            if level < low:
                low, low_at = level, last
        if amount:
            level += amount * rise
            last = order
    if level > high:
        high, high_at = level, last
    return low, low_at, high, high_at


def _then_nothing(steps: _Steps) -> Iterator[tuple[int, int]]:
    """Yield the steps, then an empty one at the end of the interval."""
    yield from zip(steps.orders, steps.amounts, strict=True)
    yield steps.end, 0
