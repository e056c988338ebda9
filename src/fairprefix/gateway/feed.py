"""The seam for what workers tell of their caches.

With the router's index "approximate" nothing is needed: what was sent to a worker counts as cached there. With
"exact" a source of events keeps `BaseRouter.stored`, `removed` and `cleared` up to date, and the prompts' hashes
have to be those of the events (`fairprefix.gateway.prefix.Prompt`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fairprefix.core.request import BlockHash
from fairprefix.core.routing import WorkerName


class CacheIndex(Protocol):
    """Who hears of a worker's cache: the router (`fairprefix.core.router_base.BaseRouter`)."""

    def stored(self, worker: WorkerName, blocks: Sequence[BlockHash], namespace: str = "") -> None:
        """Note that a worker has cached blocks."""
        ...

    def removed(self, worker: WorkerName, blocks: Sequence[BlockHash], namespace: str = "") -> None:
        """Note that a worker has evicted blocks."""
        ...

    def cleared(self, worker: WorkerName) -> None:
        """Note that a worker's cache is empty, or that events of it were lost."""
        ...


class WorkerEvents(Protocol):
    """A source of one worker's cache events. All calls come from the event loop's thread."""

    async def run(self, index: CacheIndex) -> None:
        """Feed the index until cancelled; reconnect by itself."""
        ...
