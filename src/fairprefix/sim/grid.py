"""Multilinear interpolation in a table of measurements over a full grid."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from itertools import product

from attrs import field, frozen

from fairprefix.core.errors import ConfigError


@frozen(eq=False)
class Grid:
    """Measurements at every combination of some knots on one or more axes.

    Between knots the value is interpolated linearly along each axis. Below the first knot it stays what it is
    there (small kernels cost the same). Beyond the last knot it follows the line through that knot and the
    largest one at or below half of it: wide enough that noise of neighbouring measurements does not matter.
    """

    axes: tuple[tuple[int, ...], ...]
    values: tuple[float, ...] = field(repr=False)
    """In the order of itertools.product over the axes."""

    @classmethod
    def of(cls, points: Mapping[tuple[int, ...], float], *, source: str) -> Grid:
        """Return the grid over the given `points`; `source` names their origin in errors.

        Raises:
            ConfigError: there are none, or a combination of knots is missing.
        """
        axes = tuple(tuple(sorted(set(knots))) for knots in zip(*points, strict=True))
        if not axes:
            raise ConfigError(f"{source}: no measurements, expected at least one")
        everywhere = list(product(*axes))
        if missing := next((knots for knots in everywhere if knots not in points), None):
            raise ConfigError(f"{source}: no measurement at {missing}, expected one at each combination")
        return cls(axes, tuple(points[knots] for knots in everywhere))

    def at(self, *place: float) -> float:
        """Return the interpolated value at a place, one coordinate per axis."""
        corners = [(0, 1.0)]
        for axis, coordinate in zip(self.axes, place, strict=True):
            sides, width = _bracket(axis, coordinate), len(axis)
            corners = [(at * width + knot, share * weight) for at, share in corners for knot, weight in sides]
        return sum([self.values[at] * share for at, share in corners])


def _bracket(axis: tuple[int, ...], coordinate: float) -> tuple[tuple[int, float], ...]:
    """Return the positions of the knots that determine the value at `coordinate`, with weights that sum to 1."""
    last = len(axis) - 1
    high = bisect_right(axis, coordinate)
    if high == 0 or last == 0:
        return ((0, 1.0),)
    low = high - 1
    if axis[low] == coordinate:
        return ((low, 1.0),)
    if low == last:
        low, high = max(0, bisect_right(axis, axis[last] / 2) - 1), last
    share = (coordinate - axis[low]) / (axis[high] - axis[low])
    return ((low, 1.0 - share), (high, share))
