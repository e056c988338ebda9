"""Two clients that both wait are never further apart than the claimed bound."""

from __future__ import annotations

from hypothesis import strategies as st

from fairprefix.testing import events as ev
from fairprefix.testing import strategies as fst
from fairprefix.testing.checks import workloads as wl
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.gapwatch import check_both_backlogged
from fairprefix.testing.lab import Subject


def _histories(subject: Subject) -> st.SearchStrategy[ev.History]:
    return wl.floods(subject, names=fst.ABC[:2]) | wl.floods(subject, kinds=wl.disturbances(subject))


CHECK = Check(
    name="bound",
    claim="the gap of two backlogged clients stays within the claimed bound",
    run=check_both_backlogged,
    data=_histories,
    enabled_by="bound",
    applies=lambda claims, _config: claims.bound is not None,
)
