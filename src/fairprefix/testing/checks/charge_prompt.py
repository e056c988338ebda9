"""An admission is charged what the claimed rule says: the tokens that are computed, or the whole prompt."""

from __future__ import annotations

from hypothesis import strategies as st

from fairprefix.testing import events as ev
from fairprefix.testing import strategies as fst
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.lab import Lab, Subject
from fairprefix.testing.trace import Taken


def check(lab: Lab, history: ev.History) -> None:
    """Compare receipts with the rule."""
    config = lab.subject.configured(history)
    whole = lab.claims.rule == "vtc" and config.vtc_charge == "input"
    for fact in lab.run(history).facts:
        if isinstance(fact, Taken) and fact.first:
            tokens = fact.prompt if whole else fact.extend
            expected = config.cost.service(tokens, 0)
            assert fact.charged == expected, (
                f"step {fact.at}: {fact.id} was charged {fact.charged} for {fact.extend} of {fact.prompt} prompt "
                f"tokens ({fact.matched} cached), expected {expected}"
            )


def _histories(subject: Subject) -> st.SearchStrategy[ev.History]:
    return fst.histories(
        limits=fst.engine_limits(unit=subject.unit()), kinds=(ev.Arrive, ev.Step, ev.Evict), counts=(1, 2, 3)
    )


CHECK = Check(
    name="charge_prompt",
    claim="an admission is charged for the tokens that are computed (vtc_charge = input: for the whole prompt)",
    run=check,
    data=_histories,
    enabled_by="bound = dlpm, credit or vtc",
    applies=lambda claims, _config: claims.rule is not None,
)
