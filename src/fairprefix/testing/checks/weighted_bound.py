"""The bound holds in service per unit of weight, for any weights."""

from __future__ import annotations

from hypothesis import strategies as st

from fairprefix.testing import events as ev
from fairprefix.testing import strategies as fst
from fairprefix.testing.checks import workloads as wl
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.gapwatch import check_both_backlogged
from fairprefix.testing.lab import Subject


def _histories(subject: Subject) -> st.SearchStrategy[ev.History]:
    return wl.floods(subject, names=fst.ABC[:2], max_weight=5)


CHECK = Check(
    name="weighted_bound",
    claim="with weights, the gap in service per unit of weight stays within the claimed bound",
    run=check_both_backlogged,
    data=_histories,
    enabled_by="weighted",
    applies=lambda claims, _config: claims.weighted,
)
