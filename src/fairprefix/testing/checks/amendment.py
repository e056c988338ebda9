"""An admission whose true size becomes known later ends as if it had been known from the beginning."""

from __future__ import annotations

from fairprefix.testing.checks.determinism import same_decisions
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.checks.workloads import anything
from fairprefix.testing.events import History
from fairprefix.testing.lab import Lab


def check(lab: Lab, history: History) -> None:
    """Admit with true sizes, and again with estimates that are amended at once; compare."""
    exact, amended = lab.run(history), lab.run(history, amends=True)
    same_decisions("with amended admissions, the policy", exact.decisions(), amended.decisions())


CHECK = Check(
    name="amendment",
    claim="an admission that is amended counts as if its size had been right from the beginning",
    run=check,
    data=anything,
)
