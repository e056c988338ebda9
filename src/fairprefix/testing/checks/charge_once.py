"""What is computed again after a preemption is charged as claimed: not at all, or again."""

from __future__ import annotations

from hypothesis import strategies as st

from fairprefix.testing import events as ev
from fairprefix.testing import strategies as fst
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.lab import Lab, Subject
from fairprefix.testing.trace import Taken


def check(lab: Lab, history: ev.History) -> None:
    """Compare the receipts of resumed requests with the claim."""
    config = lab.subject.configured(history)
    whole = lab.claims.rule == "vtc" and config.vtc_charge == "input"
    for fact in lab.run(history).facts:
        if isinstance(fact, Taken) and not fact.first:
            again = config.cost.service(fact.prompt if whole else fact.extend, 0)
            expected = again if lab.claims.recompute == "charged" else 0
            assert fact.charged == expected, (
                f"step {fact.at}: {fact.id} had been preempted and was charged {fact.charged} for {fact.extend} "
                f"tokens that are computed again, expected {expected}"
            )


def _histories(subject: Subject) -> st.SearchStrategy[ev.History]:
    limits = fst.engine_limits(unit=subject.unit(), max_memory=16)
    return fst.histories(limits=limits, kinds=(ev.Arrive, ev.Step, ev.Preempt), counts=(1, 2, 3))


CHECK = Check(
    name="charge_once",
    claim="tokens computed again after a preemption are charged as claimed: free, or again",
    run=check,
    data=_histories,
    enabled_by="recompute",
    applies=lambda claims, _config: claims.recompute is not None,
)
