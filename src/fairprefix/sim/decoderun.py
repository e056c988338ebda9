"""Runs of pure decode steps, summed in closed form and exactly.

While nobody is admitted and nobody finishes, an engine takes one decode step after the other and every
running sequence grows by one token a step. An event-driven simulator jumps over such a run in one go, and
must arrive at the very picosecond that step-by-step simulation reaches. Hence integers: a decode step's time
is a piecewise linear function of the total context with integer values and slopes, and a run is a few
arithmetic series.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from math import isqrt

from attrs import frozen

from fairprefix.core.errors import reject

PS_PER_US = 1_000_000
PS_PER_MS = 1_000_000_000


@frozen
class DecodeCurve:
    """Time of a decode step (ps) by total context (tokens): integer line pieces that never fall."""

    starts: tuple[int, ...]
    """First context of each piece, increasing; the first is 0, the last piece has no end."""
    values: tuple[int, ...]
    """Time at the start of each piece, at least 1 ps."""
    slopes: tuple[int, ...]
    """Picoseconds per further token of context, at least 0."""

    def at(self, context: int) -> int:
        """Return the time in ps of a step over `context` tokens."""
        piece = bisect_right(self.starts, context) - 1
        return self.values[piece] + self.slopes[piece] * (context - self.starts[piece])

    def plus(self, extra_ps: int) -> DecodeCurve:
        """Return the curve with `extra_ps` added everywhere."""
        return DecodeCurve(self.starts, tuple(value + extra_ps for value in self.values), self.slopes)

    def at_least(self, floor_ps: int) -> DecodeCurve:
        """Return the larger of this curve and a constant."""
        crossing = self._first_reaching(floor_ps)
        if crossing == 0:
            return self
        if crossing is None:
            return DecodeCurve((0,), (floor_ps,), (0,))
        piece = bisect_right(self.starts, crossing) - 1
        return DecodeCurve(
            (0, crossing, *self.starts[piece + 1 :]),
            (floor_ps, self.at(crossing), *self.values[piece + 1 :]),
            (0, *self.slopes[piece:]),
        )

    def _first_reaching(self, level: int) -> int | None:
        """Return the smallest context whose time is at least `level`, None if there is none."""
        ends = (*self.starts[1:], None)
        for start, value, slope, end in zip(self.starts, self.values, self.slopes, ends, strict=True):
            if value >= level:
                return start
            if slope:
                reached = start + -((value - level) // slope)
                if end is None or reached < end:
                    return reached
        return None


@frozen
class HostTime:
    """Time that the CPU spends on a step, and whether it hides behind the GPU."""

    cpu_ps: int
    overlap: bool
    """True: the CPU prepares the next step beside the GPU, the slower one decides. False: they take turns."""

    @classmethod
    def of(cls, cpu_ms: float, *, overlap: bool) -> HostTime:
        """Return the host time of `cpu_ms` milliseconds a step.

        Raises:
            ConfigError: it is negative or not finite.
        """
        if isinstance(cpu_ms, bool) or not 0 <= cpu_ms < math.inf:
            raise reject("cpu_ms", cpu_ms, "a number of milliseconds >= 0")
        return cls(round(cpu_ms * PS_PER_MS), overlap)

    def curve(self, gpu: DecodeCurve) -> DecodeCurve:
        """Return the step time of decode steps that take `gpu` on the GPU."""
        return gpu.at_least(self.cpu_ps) if self.overlap else gpu.plus(self.cpu_ps)

    def step(self, gpu_ps: int) -> int:
        """Return the step time of one step that takes `gpu_ps` on the GPU."""
        return max(gpu_ps, self.cpu_ps) if self.overlap else gpu_ps + self.cpu_ps


@frozen
class DecodeRun:
    """Consecutive decode steps of the same sequences: the context grows by `decodes` tokens a step."""

    curve: DecodeCurve
    decodes: int
    """Sequences that decode, at least 1."""
    context: int
    """Total context of the first step, tokens."""

    def total_ps(self, steps: int) -> int:
        """Return the time in ps of the first `steps` steps: exactly the sum of the single steps."""
        total = 0
        for length, first, growth in self._series():
            here = steps if length is None else min(steps, length)
            total += _sum(here, first, growth)
            steps -= here
            if steps <= 0:
                break
        return total

    def steps_within(self, budget_ps: int) -> int:
        """Return the largest number of steps that together take at most `budget_ps`."""
        done = 0
        for length, first, growth in self._series():
            if length is None or _sum(length, first, growth) > budget_ps:
                return done + _longest(budget_ps, first, growth)
            budget_ps -= _sum(length, first, growth)
            done += length
        raise AssertionError  # the last series has no end

    def _series(self) -> Iterator[tuple[int | None, int, int]]:
        """Yield the arithmetic series that make up the run: (steps or None, time of the first, growth)."""
        curve, context = self.curve, self.context
        for piece in range(bisect_right(curve.starts, context) - 1, len(curve.starts) - 1):
            steps = -((context - curve.starts[piece + 1]) // self.decodes)
            if steps > 0:  # a large batch can jump over a short piece
                yield steps, curve.at(context), curve.slopes[piece] * self.decodes
                context += steps * self.decodes
        yield None, curve.at(context), curve.slopes[-1] * self.decodes


def _sum(steps: int, first: int, growth: int) -> int:
    return steps * first + growth * (steps * (steps - 1) // 2)


def _longest(budget: int, first: int, growth: int) -> int:
    """Return the largest m with _sum(m, first, growth) <= budget: the floor of a quadratic's larger root."""
    if budget < first:
        return 0
    if not growth:
        return budget // first
    half = 2 * first - growth
    return (isqrt(half * half + 8 * growth * budget) - half) // (2 * growth)
