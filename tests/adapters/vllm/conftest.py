"""Fixtures of the adapter's tests."""

from __future__ import annotations

import socket

import pytest


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is configured outside does not count."""
    for name in ("FAIRPREFIX_CONFIG", "FAIRPREFIX_POLICY", "FAIRPREFIX_METRICS_PORT", "PROMETHEUS_MULTIPROC_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
