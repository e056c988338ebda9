"""Fixtures of the simulator's tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

TRACES = Path(__file__).parents[3] / "shared" / "traces"
"""Real traces: a folder beside the checkout, too large and too differently licensed to be part of it."""


@pytest.fixture
def shared_trace() -> Callable[[str], Path]:
    """Return a function from a trace's name to its path.

    Where the folder of traces is absent the test is skipped; in continuous integration (CI=true) it fails.
    """

    def find(name: str) -> Path:
        path = TRACES / name
        if not path.exists():
            reason = f"real trace {name!r} is absent: expected in shared/traces beside the checkout"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        return path

    return find
