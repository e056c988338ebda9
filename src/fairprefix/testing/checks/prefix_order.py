"""Among the requests that may be admitted, one with the longest cached prefix is first."""

from __future__ import annotations

from hypothesis import strategies as st

from fairprefix.testing import events as ev
from fairprefix.testing import strategies as fst
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.lab import Lab, Subject
from fairprefix.testing.oracle import LPMOracle, Oracle
from fairprefix.testing.rules import able, mirror_of
from fairprefix.testing.trace import Offered


def check(lab: Lab, history: ev.History) -> None:
    """Compare each offer with everything that might have been offered instead."""
    mirror = mirror_of(lab, history)
    for fact in lab.run(history).facts:
        if isinstance(fact, Offered) and fact.id in mirror.oracle.jobs:
            _longest_first(mirror.oracle, fact)
        mirror.feed(fact)


def _longest_first(oracle: Oracle, offer: Offered) -> None:
    assert offer.id is not None, "somebody was offered"
    offered = oracle.jobs[offer.id]
    ready = able(oracle)
    if isinstance(oracle, LPMOracle):
        ready = [job for job in ready if oracle.may_be_next(job)]
    if not ready:
        return  # whether it may be offered at all is the business of another check
    best = max(ready, key=oracle.match)
    assert oracle.match(offered) >= oracle.match(best), (
        f"step {offer.at}: {offered.id} is offered with {oracle.match(offered)} cached tokens, "
        f"although {best.id} has {oracle.match(best)}"
    )


def _histories(subject: Subject) -> st.SearchStrategy[ev.History]:
    limits = fst.engine_limits(unit=subject.unit(), max_running=3)
    return fst.histories(limits=limits, kinds=(ev.Arrive, ev.Step, ev.Evict), counts=(1, 2, 3, 5), every=(0, 0, 1))


CHECK = Check(
    name="prefix_order",
    claim="among those who may be admitted, the longest cached prefix is first",
    run=check,
    data=_histories,
    enabled_by="locality_aware",
    applies=lambda claims, _config: claims.locality_aware and (claims.bound is None or claims.rule is not None),
)
