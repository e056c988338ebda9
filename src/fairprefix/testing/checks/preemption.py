"""A preempted request that the engine resumes by itself stays counted; one that is queued again does not."""

from __future__ import annotations

from hypothesis import strategies as st

from fairprefix.testing import events as ev
from fairprefix.testing import strategies as fst
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.lab import Subject
from fairprefix.testing.rules import follow


@st.composite
def _preempted_once(draw: st.DrawFn, subject: Subject) -> ev.History:
    """Return a history in which requests arrive before and after a preemption."""
    engine = draw(fst.engine_limits(unit=subject.unit(), max_memory=16, chunked=False))
    arrivals = fst.requests(limits=engine, names=fst.ABC[:2], prefixes=((),), counts=(1, 1, 2), every=(0,))
    some = st.lists(arrivals, min_size=1, max_size=3)
    preempt = ev.Preempt(draw(st.integers(0, 1)), hold=draw(st.sampled_from((True, True, False))))
    steps = ev.Step(draw(st.integers(1, 3)))
    return ev.History(engine, (*draw(some), steps, preempt, *draw(some)))


def _histories(subject: Subject) -> st.SearchStrategy[ev.History]:
    return _preempted_once(subject) | _preempted_often(subject)


def _preempted_often(subject: Subject) -> st.SearchStrategy[ev.History]:
    return fst.histories(
        limits=fst.engine_limits(unit=subject.unit(), max_memory=16),
        kinds=(ev.Arrive, ev.Step, ev.Preempt),
        names=fst.ABC[:2],
        prefixes=((),),
        counts=(1, 2, 3),
        max_events=6,
    )


CHECK = Check(
    name="preemption",
    claim="the rule holds through preemptions, whoever resumes the request",
    run=follow,
    data=_histories,
    enabled_by="bound = dlpm, credit or vtc",
    applies=lambda claims, _config: claims.rule is not None,
)
