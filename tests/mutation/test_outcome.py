"""The committed outcome of mutation testing is that of the sources, and good enough."""

from __future__ import annotations

import pytest

from tests.mutation.outcome import PAGE, core_files, mangled, read_outcome, readable, sha256_of
from tests.mutation.page import page

LEAST = 0.95
OUTCOME = read_outcome()


@pytest.mark.parametrize("file", core_files())
def test_the_outcome_is_that_of_the_sources(file: str) -> None:
    """Every file of the core is as it was when its mutants were measured; otherwise `make mutation` is due."""
    measured = {each.file: each.sha256 for each in OUTCOME.files}
    assert measured.get(file) == sha256_of(file), f"{file} has changed since: run `make mutation`"


def test_no_other_file_was_measured() -> None:
    """What was measured exists."""
    assert [each.file for each in OUTCOME.files] == core_files()


def test_nearly_all_mutants_are_noticed() -> None:
    """At least 95 % of the mutants are killed."""
    assert OUTCOME.killed_share >= LEAST


def test_every_survivor_has_a_reason() -> None:
    """Of each mutant that survives it is said why no test could notice it."""
    unexplained = [survivor for survivor in OUTCOME.survivors if not survivor.reason()]
    assert unexplained == []


def test_survivors_are_those_that_are_counted() -> None:
    """The list of survivors and the counts of the functions agree."""
    counted = sorted(
        (each.file, name, number)
        for each in OUTCOME.files
        for name, function in each.functions.items()
        for number in function.survived
    )
    assert counted == sorted((s.file, s.function, s.number) for s in OUTCOME.survivors)


def test_the_page_shows_the_outcome() -> None:
    """docs/mutation.md is what is written from docs/mutation.json and the reasons."""
    assert PAGE.read_text(encoding="utf-8") == page(OUTCOME)


@pytest.mark.parametrize("name", ["follow", "_debt", "Ledger.service", "Lane._oldest_is_due", "Entry.__init__"])
def test_names_go_there_and_back(name: str) -> None:
    """The tool's name of a function can be made from ours, and the other way round."""
    assert readable(mangled(name)) == name
