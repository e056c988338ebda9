"""The committed outcome of mutation testing is that of the sources, and good enough."""

from __future__ import annotations

import pytest
from attrs import evolve

from tests.mutation.measure import as_record, functions_of, noted
from tests.mutation.outcome import PAGE, core_files, mangled, read_outcome, readable, sha256_of
from tests.mutation.page import page

LEAST = 0.95
OUTCOME = read_outcome()


@pytest.mark.parametrize("file", core_files())
def test_the_outcome_is_that_of_the_sources(file: str) -> None:
    """Every file of the core is as it was when the outcome was written; otherwise `make mutation` is due."""
    measured = {each.file: each.sha256 for each in OUTCOME.files}
    assert measured.get(file) == sha256_of(file), f"{file} has changed: `make mutation`, or `make mutation-note`"


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


def test_a_written_outcome_is_what_the_next_run_begins_with() -> None:
    """The tool's records made from the committed outcome say the same about every function."""
    for each in OUTCOME.files:
        record = as_record(each)
        mutated = {name: function for name, function in each.functions.items() if function.mutants}
        assert functions_of(record["exit_code_by_key"], record["hash_by_function_name"]) == mutated


def test_what_has_changed_is_noted() -> None:
    """Without a change in the core the outcome stays; a function that has changed is no longer measured."""
    assert noted(OUTCOME).files == OUTCOME.files
    first = next(each for each in OUTCOME.files if each.functions)
    name, function = next(iter(first.functions.items()))
    stale = evolve(first, functions={**first.functions, name: evolve(function, hash="of an older version")})
    found = noted(evolve(OUTCOME, files=tuple(stale if each is first else each for each in OUTCOME.files)))
    changed = next(each for each in found.files if each.file == first.file)
    assert name in changed.pending
    assert name not in changed.functions


@pytest.mark.parametrize("name", ["follow", "_debt", "Ledger.service", "Lane._oldest_is_due", "Entry.__init__"])
def test_names_go_there_and_back(name: str) -> None:
    """The tool's name of a function can be made from ours, and the other way round."""
    assert readable(mangled(name)) == name
