"""The figures of a host in Prometheus: extra of whoever serves them (`pip install prometheus-client`).

* `FiguresCollector`: figures are computed when somebody asks; for a process that has an endpoint.
* `FigureGauges`: values are written when the host says so; for prometheus_client's multiprocess mode, in which
  every process writes to files that another one reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import REGISTRY, CollectorRegistry, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from fairprefix.hosting.figures import Sample

Samples = Callable[[], Iterable[Sample]]


class FiguresCollector(Collector):
    """Computes the figures whenever metrics are asked for.

    Args:
        samples: gives them.
        labels: put on every one of them, to tell hosts apart (a rank, a worker).
    """

    def __init__(self, samples: Samples, labels: Mapping[str, str] | None = None) -> None:
        self._samples = samples
        self._labels = dict(labels or {})

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yield one family per name."""
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for sample in self._samples():
            labels = {**self._labels, **sample.labels}
            family = families.get(sample.name)
            if family is None:
                make = CounterMetricFamily if sample.kind == "counter" else GaugeMetricFamily
                family = families[sample.name] = make(sample.name, sample.help, labels=list(labels))
            family.add_metric(list(labels.values()), sample.value)
        yield from families.values()


class FigureGauges:
    """Writes the figures into gauges, all of them, whenever `update` is called."""

    def __init__(
        self, samples: Samples, labels: Mapping[str, str] | None = None, registry: CollectorRegistry | None = None
    ) -> None:
        self._samples = samples
        self._labels = dict(labels or {})
        self._registry = REGISTRY if registry is None else registry
        self._gauges: dict[str, Gauge] = {}

    def update(self) -> None:
        """Write the present figures. O(clients)."""
        for sample in self._samples():
            labels = {**self._labels, **sample.labels}
            gauge = self._gauges.get(sample.name)
            if gauge is None:
                gauge = self._gauges[sample.name] = Gauge(
                    sample.name,
                    sample.help,
                    list(labels),
                    registry=self._registry,
                    multiprocess_mode="livemostrecent",
                )
            (gauge.labels(**labels) if labels else gauge).set(sample.value)
