"""The shipping arithmetic of one client, executed symbolically: for all integers, not for examples.

crosshair runs the contracts of `tests/formal/symbolic.py` and reports each condition as confirmed over all paths,
refuted, or neither. A contract that it did not read would be reported as nothing at all: that fails here as well.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

CONTRACTS = Path(__file__).with_name("symbolic.py")
LONGEST_S = 60
_VERDICT = re.compile(r":(\d+): (\w+): (.*)")
_FUNCTIONS = [node for node in ast.parse(CONTRACTS.read_text()).body if isinstance(node, ast.FunctionDef)]
_CONDITIONS = {node.name: (ast.get_docstring(node) or "").count("post:") for node in _FUNCTIONS}
CLAIMS = [name for name, conditions in _CONDITIONS.items() if conditions and not name.startswith("planted_")]
PLANTED = [name for name in _CONDITIONS if name.startswith("planted_")]

Verdicts = Mapping[str, Sequence[str]]
"""What was said about each condition of each function."""


@pytest.fixture(scope="module")
def verdicts() -> Verdicts:
    """Run crosshair once, in a process of its own."""
    command = [sys.executable, "-m", "crosshair", "check", str(CONTRACTS)]
    options = ["--analysis_kind=PEP316", "--report_all", "--per_condition_timeout=20"]
    done = subprocess.run(  # noqa: S603 (our own interpreter and file)
        [*command, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST_S,
        cwd=CONTRACTS.parents[2],
    )
    said: dict[str, list[str]] = {name: [] for name in _CONDITIONS}
    for line, level, text in _VERDICT.findall(done.stdout):
        said[_function_at(int(line))].append(f"{level}: {text}")
    assert any(said.values()), done.stdout + done.stderr
    return said


def _function_at(line: int) -> str:
    return next(node.name for node in _FUNCTIONS if node.lineno <= line <= (node.end_lineno or 0))


@pytest.mark.parametrize("claim", CLAIMS)
def test_the_shipping_arithmetic_keeps_its_contract_for_all_integers(claim: str, verdicts: Verdicts) -> None:
    """Every condition is confirmed over all paths."""
    assert verdicts[claim] == ["info: Confirmed over all paths."] * _CONDITIONS[claim]


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_bug_is_found(planted: str, verdicts: Verdicts) -> None:
    """The method can say no: each contract that is wrong on purpose is refuted by an example."""
    assert [text.startswith("error: false when calling") for text in verdicts[planted]] == [True]
