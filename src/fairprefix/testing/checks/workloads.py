"""The histories that several checks share."""

from __future__ import annotations

from hypothesis import strategies as st

from fairprefix.testing import events as ev
from fairprefix.testing import strategies as fst
from fairprefix.testing.lab import Subject

FLOODS = (1, 5, 20, 40)


def anything(subject: Subject) -> st.SearchStrategy[ev.History]:
    """Return histories with every kind of event, on any engine."""
    return fst.histories(limits=fst.engine_limits(unit=subject.unit()), counts=(1, 2, 3, 5))


def without_weights(subject: Subject) -> st.SearchStrategy[ev.History]:
    """Return histories in which no weight changes."""
    kinds = tuple(kind for kind in fst.ALL_KINDS if kind is not ev.Reweigh)
    return fst.histories(limits=fst.engine_limits(unit=subject.unit()), kinds=kinds, counts=(1, 2, 3, 5))


def reservations(subject: Subject) -> tuple[str, ...]:
    """Return the ways to admit that the bound is claimed for."""
    return ("full", "none") if subject.claims.reservation == "none" else ("full",)


def floods(
    subject: Subject,
    *,
    names: tuple[str, ...] = fst.ABC,
    kinds: tuple[type[ev.HostEvent], ...] = fst.PLAIN_KINDS,
    every: tuple[int, ...] = (0, 0, 1, 2, 5),
    max_weight: int = 1,
) -> st.SearchStrategy[ev.History]:
    """Return histories in which clients send so much that they stay backlogged, and long outputs."""
    limits = fst.engine_limits(
        unit=subject.unit(), reservations=reservations(subject), max_memory=24, max_running=4
    )
    return fst.histories(
        limits=limits,
        names=names,
        kinds=kinds,
        prefixes=fst.TREE[:4],
        counts=FLOODS,
        every=every,
        max_events=5,
        max_weight=max_weight,
    )


def disturbances(subject: Subject) -> tuple[type[ev.HostEvent], ...]:
    """Return the kinds of events under which the bounds are claimed to hold.

    An engine that resumes requests by itself, and has what it computes again charged, leaves no bound at all.
    """
    kinds = [ev.Arrive, ev.Step, ev.Abort, ev.Leave, ev.Block, ev.Unblock, ev.Refund, ev.Evict]
    return (*kinds, ev.Preempt) if subject.config.recompute == "free" else tuple(kinds)


@st.composite
def contests(
    draw: st.DrawFn, subject: Subject, *, between: st.SearchStrategy[ev.HostEvent] | None = None
) -> ev.History:
    """Return a history in which one client is served, something happens, and then two clients contend.

    Whoever is offered then shows what is remembered of the time before.

    Args:
        draw: of Hypothesis.
        subject: what is under test.
        between: what happens between; by default the other client is served.
    """
    engine = draw(fst.engine_limits(unit=subject.unit(), reservations=("full",), max_running=3, chunked=False))
    first, second = fst.ABC[:2]

    def some(*names: str) -> st.SearchStrategy[ev.Arrive]:
        return fst.requests(limits=engine, names=names, prefixes=((),), counts=(1, 2, 4, 10), every=(0,))

    served: list[ev.HostEvent] = [draw(some(first)), ev.Step(draw(st.sampled_from((1, 2, 5, 20))))]
    if between is None:
        happens: list[ev.HostEvent] = [draw(some(second)), ev.Step(draw(st.sampled_from((5, 20))))]
    else:
        happens = [draw(between)]
    contend = [draw(some(first)), draw(some(second)), draw(some(first, second))]
    return ev.History(engine, (*served, *happens, *contend))
