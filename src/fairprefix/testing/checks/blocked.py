"""A client whose requests are all blocked holds nobody back."""

from __future__ import annotations

from hypothesis import strategies as st

from fairprefix.testing import events as ev
from fairprefix.testing import strategies as fst
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.lab import Lab, Subject
from fairprefix.testing.trace import Idled


def check(lab: Lab, history: ev.History) -> None:
    """Look for a pass over an empty engine that admitted nobody while somebody was blocked."""
    for fact in lab.run(history).facts:
        if isinstance(fact, Idled) and fact.blocked:
            waiting, blocked = ", ".join(fact.waiting), ", ".join(fact.blocked)
            raise AssertionError(f"step {fact.at}: {waiting} wait for {blocked}, which cannot run: it is blocked")


def _histories(subject: Subject) -> st.SearchStrategy[ev.History]:
    return fst.histories(
        limits=fst.engine_limits(unit=subject.unit(), max_running=2),
        kinds=(ev.Arrive, ev.Step, ev.Block),
        names=fst.ABC[:2],
        counts=(1, 2, 3, 5),
    )


CHECK = Check(
    name="blocked",
    claim="a client whose requests are all blocked does not freeze the others",
    run=check,
    data=_histories,
)
