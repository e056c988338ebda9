"""The kit as a test class and as a pytest plugin."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from unittest import SkipTest

import pytest

from fairprefix import PolicyConfig, make_policy
from fairprefix.testing import Claims, ConformanceError
from fairprefix.testing.checks import NAMES
from fairprefix.testing.suite import PolicySuite


class TestDLPM(PolicySuite):
    """The shipping DLPM, with one test for each check."""

    make_policy = staticmethod(make_policy)
    config = PolicyConfig(quantum=10, slack=20)
    claims = Claims.of(config)
    examples = 10


class Promises(PolicySuite):
    """FCFS, claiming what it does not keep."""

    make_policy = staticmethod(make_policy)
    config = PolicyConfig(policy="fcfs", quantum=10)
    claims = Claims(bound="dlpm")


def test_there_is_a_test_for_each_check() -> None:
    """Every check of the kit is a method of the suite, with its claim as docstring."""
    for name in NAMES:
        assert getattr(PolicySuite, f"test_{name}").__doc__


def test_a_broken_promise_fails_with_its_story() -> None:
    """A suite whose policy breaks its claim fails with the story as message."""
    with pytest.raises(ConformanceError, match="found with seed 0"):
        Promises().run_check("bound")


def test_what_is_not_claimed_is_skipped() -> None:
    """A check that needs a claim which is not made is skipped, and says which claim."""
    with pytest.raises(SkipTest, match="needs the claim"):
        Promises().run_check("weighted_bound")


SUITE = """
from fairprefix import make_policy
from fairprefix.testing.suite import PolicySuite

class TestMine(PolicySuite):
    make_policy = staticmethod(make_policy)
"""


def run_pytest(folder: Path, *arguments: str) -> str:
    """Run pytest on a folder in a process of its own and return what it printed."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *arguments, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder).stdout  # noqa: S603


def test_the_plugin_takes_options_and_is_silent_without(tmp_path: Path) -> None:
    """`-k` picks checks by name, the options reach the suite, and without them nothing is announced."""
    (tmp_path / "test_mine.py").write_text(SUITE)
    chosen = run_pytest(
        tmp_path, "-k", "termination", "-v", "--fairprefix-examples", "3", "--fairprefix-seed", "5"
    )
    assert "fairprefix: --fairprefix-examples 3, --fairprefix-seed 5" in chosen
    assert "1 passed" in chosen
    assert "fairprefix:" not in run_pytest(tmp_path, "-k", "nothing", "-v")
