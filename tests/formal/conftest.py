"""Fixtures of the formal tests, and the tables that they print at the end."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.formal import report
from tests.formal.smt.induction import TALLY
from tests.sim.conftest import TRACES


@pytest.fixture
def measured_run() -> Callable[[str], Path]:
    """Return a function from the name of a measured run to its file.

    Where the folder of traces is absent the test is skipped; in continuous integration (CI=true) it fails.
    """

    def find(name: str) -> Path:
        path = TRACES / "vtc_a10g_measured" / f"{name}.jsonl.gz"
        if not path.exists():
            reason = f"measured run {name!r} is absent: expected in shared/traces beside the checkout"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        return path

    return find


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was found."""
    if TALLY.obligations:
        terminalreporter.section("proofs by SMT")
        terminalreporter.line(f"{TALLY.obligations} obligations proved, {TALLY.runs} transitions shown to happen")
    for table in report.TABLES:
        if table.rows:
            terminalreporter.section(table.title)
            for line in table.lines():
                terminalreporter.line(line)
