"""A client that waits is served before the others have received an unreasonable amount."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

from fairprefix.core.config import PolicyConfig
from fairprefix.core.request import Client
from fairprefix.testing import events as ev
from fairprefix.testing import strategies as fst
from fairprefix.testing import trace as tr
from fairprefix.testing.checks import workloads as wl
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.claims import generous, promised_against_any
from fairprefix.testing.gapwatch import charges, engine_for
from fairprefix.testing.lab import Lab, Subject


def check(lab: Lab, history: ev.History) -> None:
    """Add up what the others receive while a client waits and is not admitted."""
    config = lab.subject.configured(history)
    trace = lab.run(history)
    horizon = {client: _horizon(lab, history, config, client) for client in history.clients()}
    waiting: dict[Client, Fraction] = {}
    own: dict[Client, Fraction] = {}
    for fact in charges(trace, lab.claims, config):
        if isinstance(fact, tr.Backlogged):
            waiting[fact.client] = own[fact.client] = Fraction(0)
        elif isinstance(fact, tr.Idle):
            waiting.pop(fact.client, None)
        else:
            for client in list(waiting):
                if client == fact.client:
                    own[client] += Fraction(fact.units, config.weight(client))
                    continue
                received = waiting[client] = waiting.get(client, Fraction(0)) + fact.units
                others = sum(config.weight(other) for other in history.clients() if other != client)
                most = horizon[client] + others * own[client]
                assert received <= most, (
                    f"step {fact.at}: the others have received {received} units while {client} waits; "
                    f"at most {most} were to be expected"
                )
    if trace.broken and trace.broken.kind in ("stall", "steps"):
        raise AssertionError(trace.broken.text)


def _horizon(lab: Lab, history: ev.History, config: PolicyConfig, client: Client) -> Fraction:
    """Return what the others may receive before a waiting client does, beyond their share of its own service."""
    engine = engine_for(history, config)
    others = [config.weight(other) for other in history.clients() if other != client]
    if not lab.claims.keeps_debt or (lab.claims.rule == "vtc" and len({*others, config.weight(client)}) > 1):
        return generous(config, engine).exact
    return sum(
        (
            weight * promised_against_any(lab.claims, config, engine, (config.weight(client), weight)).exact
            for weight in others
        ),
        Fraction(0),
    )


def _histories(subject: Subject) -> st.SearchStrategy[ev.History]:
    limits = fst.engine_limits(unit=subject.unit(), reservations=wl.reservations(subject), max_memory=20)
    return fst.histories(
        limits=limits, kinds=fst.PLAIN_KINDS, counts=(1, 2, 5, 10), every=(0, 0, 1, 2), max_events=6
    )


CHECK = Check(
    name="starvation",
    claim="a backlogged client is served before the others have received much more than their share",
    run=check,
    data=_histories,
)
