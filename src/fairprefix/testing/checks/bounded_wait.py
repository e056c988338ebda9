"""No request is passed over for ever: with p older ones before it, it starts by admission k(p + 1)."""

from __future__ import annotations

from hypothesis import strategies as st

from fairprefix.core.bounds import bounded_wait_position
from fairprefix.testing import events as ev
from fairprefix.testing import strategies as fst
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.lab import Lab, Subject
from fairprefix.testing.trace import Arrived, Refunded, Taken


def check(lab: Lab, history: ev.History) -> None:
    """Count admissions while each request waits: those of its own client, or all where clients do not count."""
    every = lab.claims.bounded_wait
    assert every is not None, "the check applies to policies that claim it"
    latest: dict[str, int] = {}
    lines: dict[str, list[str]] = {}
    counts: dict[str, int] = {}
    trace = lab.run(history)
    for fact, following in zip(trace.facts, [*trace.facts[1:], None], strict=True):
        if isinstance(fact, Arrived):
            line = fact.client if lab.claims.bound is not None else ""
            older = lines.setdefault(line, [])
            count = counts.setdefault(line, 0)
            latest[fact.id] = count + bounded_wait_position(every, len(older)).value
            older.append(fact.id)
        elif isinstance(fact, Taken) and not isinstance(following, Refunded):
            line = fact.client if lab.claims.bound is not None else ""
            counts[line] += 1
            lines[line].remove(fact.id)
            late = [id for id in lines[line] if counts[line] >= latest[id]]
            if counts[line] > latest[fact.id]:
                late.append(fact.id)
            assert not late, _late(fact, late, every)


def _late(fact: Taken, late: list[str], every: int) -> str:
    return (
        f"step {fact.at}: {fact.id} is admitted past {late[0]}, "
        f"although every {every}. admission takes the oldest and waits for it"
    )


@st.composite
def _large_among_small(draw: st.DrawFn, subject: Subject) -> ev.History:
    """Return a history in which a request that needs much memory waits among small ones that are cached."""
    unit = subject.unit()
    engine = draw(
        fst.engine_limits(unit=unit, reservations=("full",), max_memory=14, max_running=4, chunked=False)
    )
    small = [
        ev.Arrive("a", unit, draw(st.integers(1, 3)) * unit, (1,), count=draw(st.sampled_from((1, 3, 10))))
        for _ in range(3)
    ]
    large = ev.Arrive("a", 4 * unit, engine.kv_tokens - 4 * unit)
    before = draw(st.integers(0, 3))
    return ev.History(engine, (*small[:before], large, *small[before:]))


def _histories(subject: Subject) -> st.SearchStrategy[ev.History]:
    return _large_among_small(subject) | _mixtures(subject)


def _mixtures(subject: Subject) -> st.SearchStrategy[ev.History]:
    unit = subject.unit()
    limits = fst.engine_limits(unit=unit, reservations=("full",), max_running=4)
    return fst.histories(
        limits=limits,
        names=fst.ABC[:2],
        kinds=(ev.Arrive, ev.Step, ev.Evict),
        prefixes=fst.TREE[:4],
        counts=(1, 2, 5, 10),
        every=(0, 0, 1),
        max_events=6,
    )


CHECK = Check(
    name="bounded_wait",
    claim="a request with p older ones starts at or before admission k(p + 1), also when it is large",
    run=check,
    data=_histories,
    enabled_by="bounded_wait",
    applies=lambda claims, _config: claims.bounded_wait is not None,
)
