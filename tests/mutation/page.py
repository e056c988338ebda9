"""The outcome of mutation testing as a page to read: docs/mutation.md."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.mutation.outcome import Measured, Outcome, Survivor

INTRODUCTION = """\
# Mutation testing of the core

A *mutant* is the core with one small change: a comparison turned, an argument left out, a constant off by one.
Each is run against the tests; one that no test notices *survives*. Survivors show what the tests do not pin down.

    make mutation

goes on where it was interrupted, measures again only functions that have changed since this page was written, and
then writes this page and `mutation.json`, which holds the SHA-256 of every file measured; a test compares them
with the sources. Measured with {tool}: each mutant runs in a process of its own, against the tests in
`tests/core` and `tests/property` that reach the changed function, the quickest first, until one fails. A mutant
that takes four times as long as these tests together has been noticed as well (*timed out*). Hypothesis tries
fewer histories than in CI (profile `mutation` in `tests/conftest.py`), so that a survivor here may still be
noticed there.

Not mutated: the text of error messages and of what a bound says about itself, constants at module and class
level, properties and other decorated functions.
"""


def page(outcome: Outcome) -> str:
    """Return the page."""
    noticed = outcome.mutants - len(outcome.survivors)
    head = INTRODUCTION.format(tool=outcome.tool)
    total = f"**{noticed:,} of {outcome.mutants:,} mutants are noticed: {outcome.killed_share:.1%}.**"
    if outcome.pending:
        total += f" {outcome.pending} functions have changed, or been added, and are not measured yet."
    return "\n".join([head, total, "", *_table(outcome), "", "## Survivors", "", *_survivors(outcome)])


def _table(outcome: Outcome) -> Iterator[str]:
    yield "| file | mutants | killed | timed out | survived | noticed | functions not measured yet |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for measured in outcome.files:
        if measured.mutants or measured.pending:
            yield _row(measured)


def _row(measured: Measured) -> str:
    killed = measured.mutants - measured.survived - measured.timeout
    share = f"{1 - measured.survived / measured.mutants:.1%}" if measured.mutants else "-"
    figures = f"{measured.mutants} | {killed} | {measured.timeout} | {measured.survived} | {share}"
    return f"| {measured.file} | {figures} | {len(measured.pending) or ''} |"


def _survivors(outcome: Outcome) -> Iterator[str]:
    by_reason: dict[str, list[Survivor]] = {}
    for survivor in outcome.survivors:
        by_reason.setdefault(survivor.reason(), []).append(survivor)
    if not by_reason:
        yield "None."
    for reason in sorted(by_reason, key=lambda reason: (not reason, -len(by_reason[reason]), reason)):
        survivors = by_reason[reason]
        yield f"**{reason or 'Not explained yet.'}** ({len(survivors)})"
        yield ""
        for survivor in survivors:
            yield f"* `{Path(survivor.file).stem}.{survivor.function}`: {_told(survivor)}"
        yield ""


def _told(survivor: Survivor) -> str:
    """Return a change in one line."""
    before = " ".join(line[1:].strip() for line in survivor.change if line.startswith("-"))
    after = " ".join(line[1:].strip() for line in survivor.change if line.startswith("+"))
    return f"`{before}` becomes `{after}`"
