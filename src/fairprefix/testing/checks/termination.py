"""Every history ends: once nothing arrives any more, everything that waits is served."""

from __future__ import annotations

from fairprefix.testing.checks.registry import Check
from fairprefix.testing.checks.workloads import anything
from fairprefix.testing.events import History
from fairprefix.testing.lab import Lab


def check(lab: Lab, history: History) -> None:
    """Run to the end."""
    broken = lab.run(history).broken
    if broken and broken.kind in ("stall", "steps"):
        raise AssertionError(broken.text)


CHECK = Check(
    name="termination",
    claim="every call returns, and once arrivals end everything that waits is served",
    run=check,
    data=anything,
)
