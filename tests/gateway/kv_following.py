"""Following event streams in tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fairprefix.gateway.feed import CacheIndex
from fairprefix.gateway.kv_events.feed import KvEventFeed


@asynccontextmanager
async def following(feeds: Sequence[KvEventFeed], indexes: Sequence[CacheIndex]) -> AsyncIterator[None]:
    """Follow streams for as long as the context lasts, each into an index of its own."""
    tasks = [asyncio.create_task(feed.run(index)) for feed, index in zip(feeds, indexes, strict=True)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, asyncio.CancelledError), outcome
