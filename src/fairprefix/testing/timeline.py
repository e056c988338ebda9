"""What a trace looks like over time: service, queues and counters of each client, as series to draw."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from attrs import Factory, field, frozen

from fairprefix.core.cost import CostWeights
from fairprefix.core.request import Client
from fairprefix.testing import trace as tr
from fairprefix.testing.mirror import Mirror
from fairprefix.testing.oracle import DLPMOracle, Oracle, VTCOracle

Points = tuple[tuple[int, float], ...]
"""(step, value from there on), where the value changes."""


@frozen
class Timeline:
    """Series of each client, in steps of the engine."""

    end: int = 0
    """The step at which everything was over."""
    broke_at: int | None = None
    """The step at which the check failed, if it tells."""
    service: Mapping[Client, Points] = Factory(dict)
    """Service units so far."""
    backlogged: Mapping[Client, tuple[tuple[int, int], ...]] = Factory(dict)
    """The steps in which the client had a request queued, as [start, end) pairs."""
    counters: Mapping[Client, Points] = field(factory=dict)
    """The counter by which the claimed rule decides, computed from what really happened."""
    counter: str = ""
    """What the counters are: q (deficit), q - h (deficit less what is set aside), c (virtual counter)."""

    def to_mapping(self) -> dict[str, object]:
        """Return everything as JSON-serialisable data."""
        return {
            "end": self.end,
            "broke_at": self.broke_at,
            "service": {client: [list(point) for point in points] for client, points in self.service.items()},
            "backlogged": {client: [list(span) for span in spans] for client, spans in self.backlogged.items()},
            "counters": {client: [list(point) for point in points] for client, points in self.counters.items()},
            "counter": self.counter,
        }


def timeline_of(trace: tr.Trace, verdict: str, cost: CostWeights, mirror: Mirror) -> Timeline:
    """Return the series of a trace; `mirror` is one that has seen nothing yet, for the rule that is claimed."""
    step = re.match(r"step (\d+):", verdict)
    counter, read = _reader(mirror.oracle)
    return Timeline(
        end=trace.end,
        broke_at=int(step[1]) if step else None,
        service=service_over_time(trace, cost),
        backlogged=backlogged_steps(trace),
        counters=_counters_over_time(trace, mirror, read) if read else {},
        counter=counter,
    )


def service_over_time(trace: tr.Trace, cost: CostWeights) -> dict[Client, Points]:
    """Return the service units so far of each client; repeated work is no service."""
    points: dict[Client, list[tuple[int, float]]] = {client: [(0, 0)] for client in trace.clients.values()}
    refunded = _refunded(trace)
    for place, fact in enumerate(trace.facts):
        if place in refunded:
            continue
        for at, client, units in tr.services(trace, fact, cost, whole_prompts=False, again=False):
            _note(points[client], at, points[client][-1][1] + units)
    return {client: tuple(series) for client, series in points.items()}


def backlogged_steps(trace: tr.Trace) -> dict[Client, tuple[tuple[int, int], ...]]:
    """Return the [start, end) steps in which each client had a request queued."""
    spans: dict[Client, list[tuple[int, int]]] = {client: [] for client in trace.clients.values()}
    opened: dict[Client, int] = {}
    for fact in trace.facts:
        if isinstance(fact, tr.Backlogged):
            opened[fact.client] = fact.at
        elif isinstance(fact, tr.Idle):
            spans[fact.client].append((opened.pop(fact.client), fact.at))
    for client, start in opened.items():
        spans[client].append((start, trace.end))
    return {client: tuple(stays) for client, stays in spans.items()}


def _reader(oracle: Oracle) -> tuple[str, Callable[[Client], float] | None]:
    """Return what the counters of a rule are called, and how to read a client's."""
    if isinstance(oracle, VTCOracle):
        return "c", lambda client: float(oracle.c.get(client, 0))
    if not isinstance(oracle, DLPMOracle):
        return "", None
    if oracle.settings.slack is None:
        return "q", lambda client: oracle.q.get(client, 0)
    return "q - h", lambda client: oracle.q.get(client, 0) - oracle.h(client)


def _counters_over_time(trace: tr.Trace, mirror: Mirror, read: Callable[[Client], float]) -> dict[Client, Points]:
    points: dict[Client, list[tuple[int, float]]] = {client: [(0, 0)] for client in trace.clients.values()}
    for fact in trace.facts:
        mirror.feed(fact)
        for client, series in points.items():
            _note(series, fact.at, read(client))
    return {client: tuple(series) for client, series in points.items()}


def _note(series: list[tuple[int, float]], at: int, value: float) -> None:
    """Append a point where the value changes; of several in a step the last one counts."""
    if series[-1][1] == value:
        return
    if series[-1][0] == at:
        series.pop()
    series.append((at, value))


def _refunded(trace: tr.Trace) -> set[int]:
    """Return the places of admissions that were taken back: each is followed by its refund."""
    return {place - 1 for place, fact in enumerate(trace.facts) if isinstance(fact, tr.Refunded)}
