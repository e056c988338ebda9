"""From a failing history to a few readable lines, a picture's worth of numbers, and a log to replay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from fairprefix.core.cost import CostWeights
from fairprefix.testing import trace as tr
from fairprefix.testing.events import EngineLimits, History
from fairprefix.testing.mirror import Mirror
from fairprefix.testing.timeline import Timeline, timeline_of

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
    timeline: Timeline = field(factory=Timeline, repr=False)
    """For a picture: service, queues and counters of each client; empty when it could not be recorded."""

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def to_mapping(self) -> dict[str, Any]:
        """Return everything as JSON-serialisable data."""
        return {
            "verdict": self.verdict,
            "lines": list(self.lines),
            "history": repr(self.history),
            "log": [dict(event) for event in self.log],
            "timeline": self.timeline.to_mapping(),
        }


def tell(history: History, verdict: str, trace: tr.Trace | None, cost: CostWeights, mirror: Mirror) -> Story:
    """Tell what led to a verdict; without a trace (the policy hung, say) only what happened to it.

    Args:
        history: what happened.
        verdict: what broke.
        trace: what the policy made of it.
        cost: what a token costs.
        mirror: keeps the counters of the claimed rule; it has seen nothing yet.
    """
    if trace is None:
        return Story(history, (*_setting(history), f"=> {verdict}"), verdict)
    timeline = timeline_of(trace, verdict, cost, mirror)
    lines = (*_setting(history), *_outcome(trace, timeline), f"=> {verdict}")
    return Story(history, lines, verdict, log=tuple(trace.log), timeline=timeline)


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


def _outcome(trace: tr.Trace, timeline: Timeline) -> list[str]:
    order = [fact.id for fact in trace.taken()]
    if not order:
        return ["   nobody was admitted"]
    totals = ", ".join(f"{client} {series[-1][1]}" for client, series in timeline.service.items())
    return [f"   admitted: {_squeezed(order)}", f"   service in the end: {totals}"]


def _squeezed(ids: list[str], at_most: int = 12) -> str:
    """Return ids in order, with the middle of a long list left out."""
    if len(ids) <= at_most:
        return " ".join(ids)
    half = at_most // 2
    return " ".join([*ids[:half], f"... {len(ids) - at_most} more ...", *ids[-half:]])
