"""Every output token is charged in the step that produces it."""

from __future__ import annotations

from hypothesis import strategies as st

from fairprefix.testing import events as ev
from fairprefix.testing import strategies as fst
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.lab import Subject
from fairprefix.testing.rules import follow


def _histories(subject: Subject) -> st.SearchStrategy[ev.History]:
    limits = fst.engine_limits(unit=subject.unit(), reservations=("full",), chunked=False)
    return fst.histories(
        limits=limits, kinds=fst.PLAIN_KINDS, names=fst.ABC[:2], prefixes=((),), counts=(1, 2, 3, 5), max_events=5
    )


CHECK = Check(
    name="charge_output",
    claim="output is charged as it is produced: it decides who is next at once",
    run=follow,
    data=_histories,
    enabled_by="bound = dlpm, credit or vtc",
    applies=lambda claims, _config: claims.rule is not None,
)
