"""The kit finds what it is there for: every wrong variant is caught, no correct policy is accused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.testing import Claims, check_policy
from fairprefix.testing.checks import CHECKS
from fairprefix.testing.mutants import EVENTS, EXAMPLES, MUTANTS, Mutant, kill, kill_matrix
from tests.support import sized

PAGE = Path(__file__).parents[2] / "docs" / "kill-matrix.md"

HISTORIES = sized(1_000, nightly=20_000, mutation=100) // 25
"""For each of some 25 checks, so many in all, for each policy."""

CORRECT: tuple[dict[str, Any], ...] = (
    {"policy": "fcfs"},
    {"policy": "lpm"},
    {"policy": "lpm", "bounded_wait": 3},
    {"policy": "vtc"},
    {"policy": "vtc", "vtc_charge": "extend", "recompute": "charged"},
    {},
    {"gate": "credit"},
    {"gate": "credit", "slack": 0, "recompute": "charged"},
    {"overdraft": 7, "bounded_wait": 2},
    {"weights": {"a": 2, "b": 3}, "recompute": "charged"},
    {"quantum": 2048, "slack": 65536},
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: str(mutant.name))
def test_a_wrong_variant_is_caught(mutant: Mutant) -> None:
    """The check that is named for it fails within the examples allowed, with a short story and a seed."""
    verdict = kill(mutant)
    assert verdict.status == "failed", f"{mutant.name} survives {EXAMPLES} examples of {mutant.killed_by}"
    assert verdict.detail
    drawn = {check.name for check in CHECKS if check.data is not None}
    assert (verdict.story is not None) == (mutant.killed_by in drawn), "histories that are drawn have a story"
    if verdict.story is not None:
        assert len(verdict.story.history.events) <= EVENTS, str(verdict.story)
        assert verdict.story.lines[-1] == f"=> {verdict.detail}"


@pytest.mark.parametrize("settings", CORRECT, ids=lambda settings: "-".join(map(str, settings.values())) or "dlpm")
def test_a_correct_policy_is_not_accused(settings: dict[str, Any]) -> None:
    """The shipping policies pass every check that their claims switch on, over all histories asked for."""
    config = PolicyConfig(**({"quantum": 10, "slack": 20} | settings))
    report = check_policy(
        make_policy, claims=Claims.of(config), config=config, examples=HISTORIES, time_limit_s=3600
    )
    report.raise_if_failed()
    assert [verdict.detail for verdict in report.verdicts if "time ran out" in verdict.detail] == []
    assert all(verdict.status in ("passed", "skipped") for verdict in report.verdicts)


def test_the_published_matrix_is_up_to_date() -> None:
    """docs/kill-matrix.md is what the list of mutants says, with twenty of them or more."""
    assert PAGE.read_text(encoding="utf-8") == kill_matrix()
    assert len(MUTANTS) >= 20
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
