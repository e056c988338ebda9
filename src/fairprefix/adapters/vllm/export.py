"""How the figures leave the process of the scheduler, which serves nobody: per rank, by one of two ways.

    PROMETHEUS_MULTIPROC_DIR=DIR         an empty folder: the figures appear in vLLM's own /metrics
    FAIRPREFIX_METRICS_PORT=[HOST:]PORT  an endpoint of its own, at PORT plus the rank's number

Figures are collected between two steps, by the thread that changes them, at most once a second and in at most a
hundredth of the time: nothing is locked, and a figure is at most so old, or final when nothing is left to do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from time import monotonic

from fairprefix.core.errors import ConfigError, reject
from fairprefix.hosting import Sample

PORT_VARIABLE = "FAIRPREFIX_METRICS_PORT"
DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_SHARE = 100
_HIGHEST_PORT = 65535


class Export:
    """Shows figures to Prometheus.

    Args:
        samples: collects them.
        rank: the number of this data-parallel rank.
        environ: environment variables; without either of the two, nothing is collected.
        clock: seconds.

    Raises:
        ConfigError: the port is no port, or is taken.
    """

    def __init__(
        self,
        samples: Callable[[], Sequence[Sample]],
        rank: int,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._samples = samples
        self._labels = {"engine": str(rank)}
        self._clock = clock
        self._next = 0.0
        self._latest: Sequence[Sample] = ()
        self._sinks: list[Callable[[], object]] = []
        if environ.get(DIRECTORY_VARIABLE):
            self._sinks.append(self._gauges())
        if environ.get(PORT_VARIABLE, "").strip():
            self._serve(environ[PORT_VARIABLE].strip(), rank)

    def update(self, *, idle: bool) -> None:
        """Collect the figures if it is time to; `idle` when nothing is left to do."""
        if not self._sinks or (self._clock() < self._next and not idle):
            return
        began = self._clock()
        self._latest = self._samples()
        for sink in self._sinks:
            sink()
        now = self._clock()
        self._next = now + max(1.0, _SHARE * (now - began))

    def _gauges(self) -> Callable[[], object]:
        from fairprefix.hosting.metrics import FigureGauges  # noqa: PLC0415 (needs prometheus_client, as vLLM does)

        return FigureGauges(lambda: self._latest, self._labels).update

    def _serve(self, text: str, rank: int) -> None:
        from prometheus_client import CollectorRegistry, start_http_server  # noqa: PLC0415

        from fairprefix.hosting.metrics import FiguresCollector  # noqa: PLC0415

        host, _, port = text.rpartition(":")
        if not port.isdecimal() or not 0 < int(port) + rank <= _HIGHEST_PORT:
            raise reject(PORT_VARIABLE, text, "PORT or HOST:PORT")
        registry = CollectorRegistry()
        registry.register(FiguresCollector(lambda: self._latest, self._labels))
        try:
            start_http_server(int(port) + rank, host or "127.0.0.1", registry)
        except OSError as problem:
            raise ConfigError(f"{PORT_VARIABLE} = {text!r}: port {int(port) + rank}: {problem.strerror}") from None
        self._sinks.append(lambda: None)
