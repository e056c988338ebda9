"""The gaps of a trace against the bound that is claimed, pair by pair, up to the first charge that breaks it."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations, permutations

from attrs import define, field
from hypothesis import target

from fairprefix.core.bounds import Bound, Engine
from fairprefix.core.config import PolicyConfig
from fairprefix.core.ledger import View
from fairprefix.core.monitor import BoundMonitor
from fairprefix.core.request import Client
from fairprefix.testing import events as ev
from fairprefix.testing import trace as tr
from fairprefix.testing.claims import Claims, promised, promised_against_any, service_view
from fairprefix.testing.lab import Lab


def engine_for(history: ev.History, config: PolicyConfig) -> Engine:
    """Return the engine of a history as the bounds want it, with the lengths that really occur."""
    limits, arrivals = history.limits, history.arrivals()
    held = any(isinstance(event, ev.Preempt) and event.hold for event in history.events)
    longest_output = max(arrival.longest() for arrival in arrivals)
    again = longest_output if config.recompute == "charged" else 0
    return Engine(
        # An engine that resumes preempted requests by itself reserves nothing for them meanwhile.
        reservation="none" if held else limits.reservation,
        resume="held" if held else "gated",
        kv_tokens=limits.kv_tokens,
        max_running=limits.max_running,
        longest_input=max(arrival.tokens(limits.block) for arrival in arrivals) + again,
        longest_output=longest_output,
    )


Turn = tr.Service | tr.Backlogged | tr.Idle
"""Somebody is served, comes or goes."""


def charges(trace: tr.Trace, claims: Claims, config: PolicyConfig) -> Iterator[Turn]:
    """Yield who comes, who goes and who is served, in order; admissions that were taken back are left out."""
    whole_prompts = service_view(claims, config) is View.CLIENT
    cost, again = config.cost, config.recompute == "charged"
    for fact, following in zip(trace.facts, [*trace.facts[1:], None], strict=True):
        if isinstance(fact, (tr.Backlogged, tr.Idle)):
            yield fact
        elif not isinstance(following, tr.Refunded):
            yield from tr.services(trace, fact, cost, whole_prompts=whole_prompts, again=again)


def check_both_backlogged(lab: Lab, history: ev.History) -> None:
    """Fail at the first charge that takes a pair of backlogged clients over the claimed bound."""
    worst = both_backlogged(lab.claims, lab.subject.configured(history), history, lab.run(history))
    target(float(worst), label="gap / bound")


def both_backlogged(claims: Claims, config: PolicyConfig, history: ev.History, trace: tr.Trace) -> Fraction:
    """Return the largest gap of a pair of backlogged clients, divided by its bound; fail when it is broken."""
    engine = engine_for(history, config)
    monitor = BoundMonitor(
        config.cost, weights=_weights(history, config), view=View.CHARGED, top=len(history.clients())
    )
    bounds = {
        frozenset(pair): promised(claims, config, engine, [config.weight(client) for client in pair])
        for pair in combinations(history.clients(), 2)
    }
    worst = Fraction(0)
    for fact in charges(trace, claims, config):
        if isinstance(fact, tr.Backlogged):
            monitor.backlogged(fact.client, fact.at)
        elif isinstance(fact, tr.Idle):
            monitor.idle(fact.client, fact.at)
        else:
            monitor.admitted(fact.client, fact.at, input_tokens=0, extend=0, charged=fact.units)
            for other in [client for client in history.clients() if client != fact.client]:
                bound = bounds[frozenset((fact.client, other))]
                gap = monitor.gap_of(fact.client, other)
                worst = max(worst, gap / bound.exact)
                assert bound.admits(gap), _broken(fact, other, gap, bound, "while both wait")
    return worst


def check_against_any(lab: Lab, history: ev.History) -> None:
    """Fail at the first charge that takes a client too far ahead of one that is backlogged all the time."""
    config = lab.subject.configured(history)
    trace = lab.run(history)
    weights = _weights(history, config)
    engine = engine_for(history, config)
    bounds = {
        pair: promised_against_any(lab.claims, config, engine, [weights[client] for client in pair])
        for pair in permutations(history.clients(), 2)
    }
    leads = _Leads(weights)
    worst = Fraction(0)
    for fact in charges(trace, lab.claims, config):
        for waiting, lead in leads.feed(fact):
            bound = bounds[waiting, fact.client]
            worst = max(worst, lead / bound.exact)
            assert isinstance(fact, tr.Service), "only a charge makes a lead"
            assert bound.admits(lead), _broken(fact, waiting, lead, bound, f"while {waiting} waits all the time")
    target(float(worst), label="lead / bound")


@define
class _Leads:
    """How far each client has got ahead of each backlogged one, over the widest interval up to now."""

    weights: dict[Client, int]
    served: dict[Client, Fraction] = field(factory=dict)
    since: dict[Client, dict[Client, Fraction]] = field(factory=dict)
    """By backlogged client: the least lead of each other one over it, since it is backlogged."""

    def feed(self, fact: Turn) -> list[tuple[Client, Fraction]]:
        """Note a fact; for a charge, return how far its client has got ahead of each backlogged one."""
        if isinstance(fact, tr.Idle):
            self.since.pop(fact.client, None)
            return []
        if isinstance(fact, tr.Backlogged):
            self.since[fact.client] = {other: self._lead(other, fact.client) for other in self.weights}
            return []
        units = Fraction(fact.units, self.weights[fact.client])
        self.served[fact.client] = self.served.get(fact.client, Fraction(0)) + units
        for other, least in self.since.get(fact.client, {}).items():
            self.since[fact.client][other] = min(least, self._lead(other, fact.client))
        return [
            (waiting, self._lead(fact.client, waiting) - least[fact.client])
            for waiting, least in self.since.items()
            if waiting != fact.client
        ]

    def _lead(self, ahead: Client, behind: Client) -> Fraction:
        return self.served.get(ahead, Fraction(0)) - self.served.get(behind, Fraction(0))


def _weights(history: ev.History, config: PolicyConfig) -> dict[Client, int]:
    return {client: config.weight(client) for client in history.clients()}


def _broken(charge: tr.Service, other: Client, gap: Fraction, bound: Bound, when: str) -> str:
    sign = {"<": "<", "<=": "at most"}[bound.relation]
    return (
        f"step {charge.at}: {charge.client} is {_number(gap)} units ahead of {other} {when}; "
        f"promised: {sign} {_number(bound.exact)} ({bound.formula})"
    )


def _number(value: Fraction) -> str:
    return str(value.numerator) if value.denominator == 1 else f"{float(value):.1f}"
