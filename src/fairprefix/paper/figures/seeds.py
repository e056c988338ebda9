"""Results over seeds: the simulations of a figure, and their means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from fairprefix.paper.rules import Scale
from fairprefix.paper.section import Result
from fairprefix.paper.spec import Spec


def seeded(scale: Scale, **values: Any) -> list[Spec]:  # noqa: ANN401  # the fields of a specification
    """Return a specification per seed."""
    return [Spec(divisor=scale.divisor, seed=seed, **values) for seed in scale.seeds]


class Results:
    """Results by specification."""

    def __init__(self, scale: Scale, by_key: Mapping[str, Result]) -> None:
        self._scale, self._by_key = scale, by_key

    def of(self, spec: Spec) -> Result:
        """Return the result of one specification."""
        return self._by_key[spec.key]

    def mean(self, spec: Spec, name: str) -> float | None:
        """Return the mean of a figure over the seeds; None where no run has it."""
        values = [self.of(attrs.evolve(spec, seed=seed))[name] for seed in self._scale.seeds]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    def first(self, spec: Spec) -> Result:
        """Return the result of the first seed."""
        return self.of(attrs.evolve(spec, seed=self._scale.seeds[0]))
