"""These tests need Dynamo: `make test-dynamo` runs them in an environment of their own."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

if find_spec("dynamo") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is configured outside does not count."""
    for name in ("FAIRPREFIX_CONFIG", "FAIRPREFIX_POLICY"):
        monkeypatch.delenv(name, raising=False)
