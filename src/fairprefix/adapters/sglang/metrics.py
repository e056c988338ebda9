"""The figures in SGLang's own Prometheus endpoint.

With --enable-metrics SGLang runs prometheus_client in multiprocess mode: every process writes into files of a
folder that the HTTP server reads. Figures are therefore written, not collected, in a hundredth of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic_ns
from typing import Protocol

from fairprefix.adapters.sglang.engine import Ranks
from fairprefix.hosting import Sample

_SECOND = 1_000_000_000
_SHARE = 100
_SHORT = 2_000_000
"""Figures that take no longer than this (ns) are also written whenever nothing is left to do."""


class Gauges(Protocol):
    """`fairprefix.hosting.metrics.FigureGauges`."""

    def update(self) -> None:
        """Write the present figures."""
        ...


class Exporter:
    """Writes the figures once a second, or seldom if that takes long, and always the last ones."""

    def __init__(self, gauges: Gauges, clock_ns: Callable[[], int] = monotonic_ns) -> None:
        self._gauges = gauges
        self._clock_ns = clock_ns
        self._next = self._next_idle = 0
        self._changed = True

    def changed(self) -> None:
        """Note that something has happened; write if it is time."""
        self._changed = True
        self._write(self._next)

    def idle(self) -> None:
        """Write what has not been written; called again and again while there is nothing to do."""
        if self._changed:
            self._write(self._next_idle)

    def _write(self, due: int) -> None:
        began = self._clock_ns()
        if began < due:
            return
        self._gauges.update()
        self._changed = False
        done = self._clock_ns()
        pause = _SHARE * (done - began)
        self._next = done + max(_SECOND, pause)
        self._next_idle = done + (pause if done - began > _SHORT else 0)


def exporter_for(samples: Callable[[], Iterable[Sample]], ranks: Ranks) -> Exporter:
    """Return an exporter for one data-parallel rank."""
    # Late, because SGLang first says where the files of multiprocess mode belong.
    from fairprefix.hosting.metrics import FigureGauges  # noqa: PLC0415

    return Exporter(FigureGauges(samples, {"dp_rank": str(ranks.data)}))
