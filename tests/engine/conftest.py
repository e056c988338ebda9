"""What the tests of the engine share: Triton's interpreter, one thread, and a real model that is fetched once."""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"  # before triton is imported: our kernels run on a CPU
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from pathlib import Path

import pytest
import torch

from fairprefix.gpu_ref_engine.library import fetch


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """Return the file of SmolLM2-135M-Instruct; fetch it into the user's cache where it is not there yet."""
    return fetch("smollm2")


@pytest.fixture(scope="session", autouse=True)
def threads() -> None:
    """Leave a core to others."""
    torch.set_num_threads(max(torch.get_num_threads() // 2, 1))
