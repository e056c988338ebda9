"""Figures in Ray's own metrics, which every node exports to Prometheus."""

from __future__ import annotations

from collections.abc import Iterable

from ray.util.metrics import Gauge

from fairprefix.hosting.figures import Sample


class RayGauges:
    """Writes figures into gauges."""

    def __init__(self) -> None:
        self._gauges: dict[str, Gauge] = {}

    def update(self, samples: Iterable[Sample]) -> None:
        """Write the present figures."""
        for sample in samples:
            gauge = self._gauges.get(sample.name)
            if gauge is None:
                gauge = self._gauges[sample.name] = Gauge(
                    sample.name, description=sample.help, tag_keys=tuple(sample.labels)
                )
            gauge.set(sample.value, tags=dict(sample.labels))
