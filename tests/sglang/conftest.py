"""These tests need SGLang itself: `make test-sglang` makes an environment for them; elsewhere they are left out."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

collect_ignore_glob = [] if find_spec("sglang") else ["test_*.py"]


@pytest.fixture(scope="session", autouse=True)
def _configured() -> None:
    from tests.sglang import real

    real.configure()
