"""From a failing history to a few readable lines, a picture's worth of numbers, and a log to replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from fairprefix.core.cost import CostWeights
from fairprefix.core.request import Client
from fairprefix.testing import trace as tr
from fairprefix.testing.events import EngineLimits, History

_EVENTS_AT_MOST = 10


@frozen
class Story:
    """What happened before a check failed.

    `lines` are for people, `log` is for `fairprefix replay`, `history` is for a test of one's own: its `repr` is
    the Python that makes it.
    """

    history: History
    lines: tuple[str, ...]
    """The engine, what happened, who was served, and what broke."""
    verdict: str
    """What broke."""
    log: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    """Every call, in the format of `fairprefix.core.history`; empty when it could not be recorded."""
    service: Mapping[Client, tuple[tuple[int, int], ...]] = field(factory=dict, repr=False)
    """For a picture: (step, service units so far) of each client, where it changes."""
    backlogged: Mapping[Client, tuple[tuple[int, int], ...]] = field(factory=dict, repr=False)
    """For a picture: the steps in which each client had a request queued, as [start, end) pairs."""

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def to_mapping(self) -> dict[str, Any]:
        """Return everything as JSON-serialisable data."""
        return {
            "verdict": self.verdict,
            "lines": list(self.lines),
            "history": repr(self.history),
            "log": [dict(event) for event in self.log],
            "service": {client: [list(point) for point in points] for client, points in self.service.items()},
            "backlogged": {client: [list(span) for span in spans] for client, spans in self.backlogged.items()},
        }


def tell(history: History, verdict: str, trace: tr.Trace | None, cost: CostWeights) -> Story:
    """Tell what led to a verdict; without a trace (the policy hung, say) only what happened to it."""
    if trace is None:
        return Story(history, (*_setting(history), f"=> {verdict}"), verdict)
    service = service_over_time(trace, cost)
    return Story(
        history,
        (*_setting(history), *_outcome(trace, service), f"=> {verdict}"),
        verdict,
        log=tuple(trace.log),
        service=service,
        backlogged=backlogged_steps(trace),
    )


def service_over_time(trace: tr.Trace, cost: CostWeights) -> dict[Client, tuple[tuple[int, int], ...]]:
    """Return (step, service units so far) of each client, where it changes; repeated work is no service."""
    points: dict[Client, list[tuple[int, int]]] = {client: [(0, 0)] for client in trace.clients.values()}
    refunded = _refunded(trace)
    for place, fact in enumerate(trace.facts):
        if place in refunded:
            continue
        for at, client, units in tr.services(trace, fact, cost, whole_prompts=False, again=False):
            step, total = points[client][-1]
            if step == at:
                points[client].pop()
            points[client].append((at, total + units))
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


def _refunded(trace: tr.Trace) -> set[int]:
    """Return the places of admissions that were taken back: each is followed by its refund."""
    return {place - 1 for place, fact in enumerate(trace.facts) if isinstance(fact, tr.Refunded)}


def _setting(history: History) -> list[str]:
    lines = [_engine(history.limits)]
    if history.weights:
        lines.append("weights: " + ", ".join(f"{client} {weight}" for client, weight in history.weights))
    lines += [f"{number}. {event}" for number, event in enumerate(history.events[:_EVENTS_AT_MOST], 1)]
    if len(history.events) > _EVENTS_AT_MOST:
        lines.append(f"   and {len(history.events) - _EVENTS_AT_MOST} events more")
    return lines


def _engine(limits: EngineLimits) -> str:
    parts = [f"an engine with {limits.kv_tokens} tokens of memory and {limits.max_running} slots"]
    parts.append(f"reservation {limits.reservation}")
    if limits.chunk:
        parts.append(f"prompts in chunks of {limits.chunk}")
    return ", ".join(parts)


def _outcome(trace: tr.Trace, service: Mapping[Client, tuple[tuple[int, int], ...]]) -> list[str]:
    order = [fact.id for fact in trace.taken()]
    if not order:
        return ["   nobody was admitted"]
    totals = ", ".join(f"{client} {series[-1][1]}" for client, series in service.items())
    return [f"   admitted: {_squeezed(order)}", f"   service in the end: {totals}"]


def _squeezed(ids: list[str], at_most: int = 12) -> str:
    """Return ids in order, with the middle of a long list left out."""
    if len(ids) <= at_most:
        return " ".join(ids)
    half = at_most // 2
    return " ".join([*ids[:half], f"... {len(ids) - at_most} more ...", *ids[-half:]])
