"""The same history gives the same decisions."""

from __future__ import annotations

from fairprefix.testing.checks.registry import Check
from fairprefix.testing.checks.workloads import anything
from fairprefix.testing.events import History
from fairprefix.testing.lab import Lab
from fairprefix.testing.trace import Fact


def check(lab: Lab, history: History) -> None:
    """Run twice, and compare."""
    first, second = lab.run(history), lab.run(history)
    same_decisions("another policy of the same factory", first.decisions(), second.decisions())


def same_decisions(who: str, expected: list[Fact], found: list[Fact]) -> None:
    """Compare decisions, and tell the first that differs."""
    for first, second in zip(expected, found, strict=False):
        assert first == second, f"step {first.at}: {who} decides {_short(second)} instead of {_short(first)}"
    assert len(expected) == len(found), f"{who} makes {len(found)} decisions instead of {len(expected)}"


def _short(fact: Fact) -> str:
    values = fact._asdict()
    charged = f", charged {values['charged']}" if "charged" in values else ""
    return f"{type(fact).__name__} {values.get('id')}{charged}"


CHECK = Check(
    name="determinism",
    claim="two policies of the same factory decide alike",
    run=check,
    data=anything,
)
