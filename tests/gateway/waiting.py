"""Waiting for what happens elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

_PATIENCE_S = 30


async def soon(condition: Callable[[], object], patience_s: float = _PATIENCE_S) -> None:
    """Wait until something holds; it fails if it never does."""
    deadline = monotonic() + patience_s
    while not condition():
        assert monotonic() < deadline, "what was awaited has not happened"
        await asyncio.sleep(0.005)
