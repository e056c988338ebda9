"""An empty engine does not stay empty while a request is queued that fits."""

from __future__ import annotations

from fairprefix.testing.checks.registry import Check
from fairprefix.testing.checks.workloads import anything
from fairprefix.testing.events import History
from fairprefix.testing.lab import Lab
from fairprefix.testing.trace import Idled


def check(lab: Lab, history: History) -> None:
    """Look for a pass over an empty engine that admitted nobody."""
    for fact in lab.run(history).facts:
        assert not isinstance(fact, Idled), (
            f"step {fact.at}: nothing runs, {', '.join(fact.waiting)} wait and fit, and nobody is admitted"
        )


CHECK = Check(
    name="work_conservation",
    claim="a pass over an empty engine admits somebody when anybody is queued",
    run=check,
    data=anything,
)
