"""A new weight applies from the next refill (VTC: the next charge); debt is neither rescaled nor forgiven."""

from __future__ import annotations

from hypothesis import strategies as st

from fairprefix.testing import events as ev
from fairprefix.testing import strategies as fst
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.checks.workloads import contests
from fairprefix.testing.lab import Subject
from fairprefix.testing.rules import follow


def _histories(subject: Subject) -> st.SearchStrategy[ev.History]:
    reweigh = st.builds(ev.Reweigh, st.just(fst.ABC[0]), st.integers(1, 4))
    return contests(subject, between=reweigh) | _mixtures(subject)


def _mixtures(subject: Subject) -> st.SearchStrategy[ev.History]:
    return fst.histories(
        limits=fst.engine_limits(unit=subject.unit(), reservations=("full",)),
        kinds=(ev.Arrive, ev.Step, ev.Reweigh),
        names=fst.ABC[:2],
        prefixes=((),),
        counts=(1, 2, 3, 5),
        max_events=6,
        max_weight=4,
    )


CHECK = Check(
    name="reweighing",
    claim="weights count in refills (or charges), and changing one neither rescales nor forgives debt",
    run=follow,
    data=_histories,
    enabled_by="weighted, and bound = dlpm, credit or vtc",
    applies=lambda claims, _config: claims.weighted and claims.rule is not None,
)
