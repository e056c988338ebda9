"""The small interface between a routing policy and what dispatches requests to several workers.

A router decides which worker serves a request. Like a worker's policy it is synchronous, single-threaded and
deterministic, and never calls back into its host, which reports what happens:

    pick -> (dispatched) -> settle   the request is done: what it really cost is charged
                         -> refund   it failed, or was never accepted: nothing is charged, `pick` may follow

`pick` is idempotent: whoever asks again for a request that is dispatched gets the same answer, and nothing is
charged twice. A worker goes through this life cycle:

    worker_joined -> USABLE <-> SUSPENDED (unreachable, draining...: keeps its requests, counters and cache)
                       |            |
                       +-- worker_left --> forgotten, with all that ran there; under the same name it may join anew

Where each piece of a prompt is cached comes from an index over block hashes (`fairprefix.core.worker_index`).
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol

from attrs import frozen

from fairprefix.core.request import Client, Request

WorkerName = str
"""What the host calls a worker: its address, its rank..."""


@frozen
class Choice:
    """Where a request goes."""

    request: str
    worker: WorkerName
    cached_tokens: int
    """How much of the prompt the worker is taken to have cached, as of the first answer."""
    again: bool
    """Whether this repeats an earlier answer."""


class Router(Protocol):
    """A routing policy.

    Every method raises `HostError` for a request or worker that is unknown or in the wrong state; nothing changes
    then.
    """

    def pick(self, request: Request, *, now: int = 0, avoid: Collection[WorkerName] = ()) -> Choice | None:
        """Choose the worker of a request and charge the dispatch; None while no worker can be used.

        Args:
            request: identified by its id until it is settled or refunded. If the worker chosen for it has been
                suspended meanwhile, or is to be avoided, it is refunded and another one is chosen.
            now: nanoseconds on any clock that never goes back; routers that look at no window ignore it.
            avoid: workers that must not be chosen this time.
        """
        ...

    def settle(self, id: str, *, output: int, extend: int | None = None) -> None:
        """Report that a request is done.

        Args:
            id: a dispatched request.
            output: output tokens that it produced.
            extend: prompt tokens that were computed, if the host knows.
        """
        ...

    def refund(self, id: str) -> None:
        """Report that a dispatch failed: it is as if it had never been charged."""
        ...

    def worker_joined(self, worker: WorkerName, *, weight: int = 1, blocks: int | None = None) -> None:
        """Take a worker into service.

        Args:
            worker: its name, unlike that of any other worker present.
            weight: its share of the work, relative to the others'.
            blocks: how many blocks its prefix cache holds; None for the configured number.
        """
        ...

    def worker_left(self, worker: WorkerName) -> tuple[str, ...]:
        """Forget a worker that is gone; return the requests that were there, all of them refunded."""
        ...

    def worker_suspended(self, worker: WorkerName) -> None:
        """Send a worker nothing until it is resumed."""
        ...

    def worker_resumed(self, worker: WorkerName) -> None:
        """Use a suspended worker again."""
        ...

    def reweigh(self, client: Client, weight: int) -> None:
        """Change a client's weight; debts stay as they are."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """Return the state, but for what is cached where, as JSON-serialisable data with a schema version."""
        ...

    def canonical(self) -> tuple[object, ...]:
        """Return a hashable form of the state, equal for states that behave alike from here on."""
        ...

    def validate(self) -> None:
        """Check every invariant of the state; raises AssertionError with the reason."""
        ...
