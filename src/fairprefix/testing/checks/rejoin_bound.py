"""No client gets far ahead of one that waits all the time, also not by leaving and coming back."""

from __future__ import annotations

from hypothesis import strategies as st

from fairprefix.testing import events as ev
from fairprefix.testing import strategies as fst
from fairprefix.testing.checks import workloads as wl
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.gapwatch import check_against_any
from fairprefix.testing.lab import Subject


@st.composite
def _goers(draw: st.DrawFn, subject: Subject) -> ev.History:
    """Return a history in which one client waits all the time, while another one comes, overspends and goes."""
    unit = subject.unit()
    engine = draw(
        fst.engine_limits(
            unit=unit, reservations=("full",), min_memory=18, max_memory=24, max_running=3, chunked=False
        )
    )
    output = engine.kv_tokens // unit - draw(st.integers(1, 2))
    pause = draw(st.sampled_from((4, 6, 7, 8, 10)))
    waits = ev.Arrive("a", unit, draw(st.integers(1, 5)) * unit, count=40)
    comes = ev.Arrive("b", unit, output * unit, count=20, every=output + pause)
    return ev.History(engine, (waits, ev.Step(1), comes))


@st.composite
def _latecomers(draw: st.DrawFn, subject: Subject) -> ev.History:
    """Return a history in which one client waits all the time, and another one comes late, with much to do."""
    unit = subject.unit()
    engine = draw(fst.engine_limits(unit=unit, reservations=("full",), max_memory=16, max_running=2))
    waits = ev.Arrive("a", unit, draw(st.integers(1, 3)) * unit, count=40)
    comes = ev.Arrive("b", unit, draw(st.integers(1, 4)) * unit, count=draw(st.sampled_from((10, 20, 30))))
    return ev.History(engine, (waits, ev.Step(draw(st.sampled_from((10, 20, 30)))), comes))


def _histories(subject: Subject) -> st.SearchStrategy[ev.History]:
    floods = wl.floods(subject, names=fst.ABC[:2], every=(1, 0, 2, 3, 4, 6, 9))
    return _goers(subject) | _latecomers(subject) | floods


CHECK = Check(
    name="rejoin_bound",
    claim="a client that leaves and comes back gets no further ahead of a backlogged one than the bound",
    run=check_against_any,
    data=_histories,
    enabled_by="keeps_debt",
    applies=lambda claims, _config: claims.keeps_debt,
)
