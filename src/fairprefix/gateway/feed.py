"""The seams for what comes from elsewhere: what workers tell of their caches, what gateways tell each other.

With the router's index "approximate" nothing is needed: what was sent to a worker counts as cached there. With
"exact" a source of events keeps `BaseRouter.stored`, `removed` and `cleared` up to date, and the prompts' hashes
have to be those of the events (`fairprefix.gateway.prefix.Prompt`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from fairprefix.core.config import PolicyConfig
from fairprefix.core.policy import Policy
from fairprefix.core.request import BlockHash
from fairprefix.core.routing import WorkerName
from fairprefix.core.shared_ledger import Ask


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

    worker: WorkerName

    async def run(self, index: CacheIndex) -> None:
        """Feed the index until cancelled; reconnect by itself."""
        ...

    def state(self) -> Mapping[str, int | bool]:
        """Return its figures."""
        ...


class SharedLedgers(Protocol):
    """Deficits that several gateways share."""

    def policy(self, worker: WorkerName, config: PolicyConfig, ask: Ask) -> Policy:
        """Return the policy of a worker's queue."""
        ...

    async def run(self, changed: Callable[[WorkerName], None]) -> None:
        """Keep in step with the others until cancelled; tell of workers whose queue may let somebody in."""
        ...

    def state(self) -> Mapping[str, int | float | bool]:
        """Return its figures."""
        ...
