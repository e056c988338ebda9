"""The same history gives the same decisions, in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def decision_log(hash_seed: int) -> str:
    """Return what `decision_log.py` prints in a process with that seed for the hashes of strings."""
    return subprocess.run(
        [sys.executable, "-m", "tests.core.decision_log"],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_decisions_do_not_depend_on_the_process() -> None:
    """Over 2,000 events every policy decides alike whatever seed Python hashes strings with."""
    first, second = decision_log(1), decision_log(2)
    assert first.splitlines() == second.splitlines()
    assert first.count(" charged ") > 1000
    assert first.count("nobody") > 10
