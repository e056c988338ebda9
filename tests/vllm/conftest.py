"""These tests need vLLM: `make test-vllm` runs them in an environment of their own."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

os.environ |= {
    "VLLM_TARGET_DEVICE": "cpu",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "OMP_NUM_THREADS": "1",
}

if find_spec("vllm") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is configured outside does not count."""
    for name in ("FAIRPREFIX_CONFIG", "FAIRPREFIX_POLICY", "FAIRPREFIX_METRICS_PORT", "PROMETHEUS_MULTIPROC_DIR"):
        monkeypatch.delenv(name, raising=False)
