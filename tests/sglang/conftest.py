"""These tests need SGLang itself: `make test-sglang` makes an environment for them."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from importlib.util import find_spec

import pytest

# Whoever ends the tests also ends the servers that they have started.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

collect_ignore_glob = [] if find_spec("sglang") else ["test_*.py"]


@pytest.fixture(scope="session", autouse=True)
def _configured() -> None:
    from tests.sglang import real

    real.configure()


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Callable[[str, list[float]], None]:
    """Show measured figures whether or not the test passes."""

    def show(what: str, figures: list[float]) -> None:
        with capsys.disabled():
            sys.stdout.write(f"\n{what}: {' -> '.join(f'{figure:.3f}' for figure in figures)}")

    return show
