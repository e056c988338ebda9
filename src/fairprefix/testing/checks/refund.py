"""What an aborted request will never produce, and an admission that did not happen, are given back."""

from __future__ import annotations

from hypothesis import strategies as st

from fairprefix.testing import events as ev
from fairprefix.testing import strategies as fst
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.lab import Lab, Subject
from fairprefix.testing.mirror import Mirror
from fairprefix.testing.oracle import DLPMOracle
from fairprefix.testing.rules import able, judge, mirror_of
from fairprefix.testing.trace import Offered


def check(lab: Lab, history: ev.History) -> None:
    """Check every offer, and that somebody is offered when the rule lets somebody in."""
    mirror = mirror_of(lab, history)
    for fact in lab.run(history).facts:
        if isinstance(fact, Offered):
            judge(mirror.oracle, fact)
            _nobody_is_forgotten(mirror, fact)
        mirror.feed(fact)


def _nobody_is_forgotten(mirror: Mirror, offer: Offered) -> None:
    oracle = mirror.oracle
    # A policy may well wait for a request that was refused; without a refusal there is nothing to wait for.
    if offer.id is not None or not isinstance(oracle, DLPMOracle) or any(job.refused for job in oracle.queue()):
        return
    ready = able(oracle)
    assert not ready, (
        f"step {offer.at}: nobody is offered although {ready[0].id} may be admitted: "
        f"h_{ready[0].client} = {oracle.h(ready[0].client)}"
    )


def _histories(subject: Subject) -> st.SearchStrategy[ev.History]:
    return _failed_admissions(subject) | _mixtures(subject)


@st.composite
def _failed_admissions(draw: st.DrawFn, subject: Subject) -> ev.History:
    """Return a history in which one client's admission fails, and then two clients contend."""
    engine = draw(fst.engine_limits(unit=subject.unit(), reservations=("full",), max_running=2, chunked=False))
    some = fst.requests(limits=engine, names=fst.ABC[:2], prefixes=((),), counts=(1, 2, 4), every=(0,))
    served = draw(st.lists(some, max_size=1))
    contend = draw(st.lists(some, min_size=2, max_size=4))
    return ev.History(engine, (*served, *(ev.Step(2) for _ in served), ev.Refund(), *contend))


def _mixtures(subject: Subject) -> st.SearchStrategy[ev.History]:
    return fst.histories(
        limits=fst.engine_limits(unit=subject.unit(), reservations=("full",)),
        kinds=(ev.Arrive, ev.Step, ev.Abort, ev.Leave, ev.Refund),
        names=fst.ABC[:2],
        prefixes=((),),
        counts=(1, 2, 3, 5),
        max_events=6,
    )


CHECK = Check(
    name="refund",
    claim="an abort gives back what was set aside, a refund what was charged",
    run=check,
    data=_histories,
    enabled_by="bound = dlpm, credit or vtc",
    applies=lambda claims, _config: claims.rule is not None,
)
