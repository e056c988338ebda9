"""One request's turn: where it stands between its arrival and its end."""

from __future__ import annotations

import asyncio
from enum import Enum

from attrs import define

from fairprefix.core.cost import Receipt
from fairprefix.core.request import Request
from fairprefix.core.routing import WorkerName


class Place(Enum):
    """Where a request is."""

    NOWHERE = "nowhere"
    """Bound to no worker."""
    WAITING = "waiting"
    """In a worker's queue."""
    INSIDE = "inside"
    """At the worker, in one of its window's places."""
    OVER = "over"


@define(eq=False)
class Turn:
    """A request on its way."""

    request: Request
    reserve: int
    """Output tokens that are set aside for it."""
    arrived_ns: int
    places: int = 1
    """Of the window: one for each answer that is computed."""
    place: Place = Place.NOWHERE
    worker: WorkerName = ""
    cached_tokens: int = 0
    """How much of the prompt the worker was taken to have cached when it was let in."""
    receipt: Receipt | None = None
    charged_output: int = 0
    """Output tokens that its client has been charged for this turn inside."""
    admitted_ns: int = 0
    counted: bool = False
    """Whether it counts among those that wait."""
    waiter: asyncio.Future[None] | None = None
    """Who waits for it to be let in."""
    lost: Exception | None = None
    """Why it cannot be let in any more."""

    def wake(self) -> None:
        """Tell whoever waits that the place has changed."""
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
