"""Everything random about a workload, as a function of its seed."""

from __future__ import annotations

import random
from collections.abc import Iterator

from attrs import define, field

from fairprefix.workload.program import Part

NS_PER_S = 1_000_000_000


@define
class Maker:
    """Numbers the parts of one workload, and draws lengths and times.

    Lengths are uniform between half of the average and one and a half times the average.
    """

    seed: str
    _random: random.Random = field(init=False)
    _parts: int = field(default=0, init=False)

    @_random.default
    def _seeded(self) -> random.Random:
        return random.Random(self.seed)  # noqa: S311  # lengths and arrivals, not secrets

    def part(self, tokens: int, kind: str) -> Part:
        """Return new text of exactly so many tokens."""
        self._parts += 1
        return Part(self._parts, tokens, kind)

    def about(self, average: int) -> int:
        """Return a length around an average."""
        return max(1, self._random.randint(average - average // 2, average + average // 2))

    def varied(self, average: int, kind: str) -> Part:
        """Return new text of a length around an average."""
        return self.part(self.about(average), kind)

    def between(self, low: int, high: int) -> int:
        """Return an integer from `low` to `high`, both included."""
        return self._random.randint(low, high)

    def arrivals(self, rate: float, count: int, *, cv: float = 1.0) -> Iterator[int]:
        """Yield the instants (ns) of a Gamma renewal process.

        Args:
            rate: arrivals per second on average.
            count: how many.
            cv: coefficient of variation of the gaps; 1 is a Poisson process.
        """
        shape = 1 / cv**2
        at = 0.0
        for _ in range(count):
            at += self._random.gammavariate(shape, 1 / (rate * shape))
            yield round(at * NS_PER_S)
