"""The ledger as a deployment actor: one for all routers and replicas of a deployment.

Serve starts it with the deployment, watches it, and starts it anew if it dies. Alone in its module, since Ray
pickles that module by value. All it adds to `fairprefix.adapters.ray.book` is the clock.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fairprefix.adapters.ray.book import DispatchBook, Finished
from fairprefix.adapters.ray.key import RouteKey
from fairprefix.adapters.ray.settings import LedgerSettings
from fairprefix.hosting.fleet import FleetMonitor, WorkerReport

if TYPE_CHECKING:
    from fairprefix.adapters.ray.metrics import RayGauges

LOG = logging.getLogger("fairprefix.ray")
_TICK_S = 0.1
_LOG_EVERY_S = 30.0

HELLO = "hello"
"""What a router that does not know this ledger is answered: it has to introduce itself."""


class Ledger:
    """What routers and replicas call. Nothing is awaited within a call: each one is one step of the book.

    Args:
        settings: as JSON-serialisable data (`LedgerSettings.to_mapping`).
        gauges: whether figures go into Ray's metrics.
    """

    def __init__(self, settings: Mapping[str, Any], *, gauges: bool = False) -> None:
        self.epoch: str = uuid.uuid4().hex
        self._settings = made = LedgerSettings.from_mapping(settings)
        self._monitor = FleetMonitor(made.policy, made.limits())
        self._book = DispatchBook(made.dispatcher(), self._monitor, grace_s=made.grace_s, silence_s=made.silence_s)
        self._messages = 0
        self._restored = False
        self._known: set[str] = set()
        self._gauges: RayGauges | None = None
        if gauges:
            from fairprefix.adapters.ray import metrics  # noqa: PLC0415 (only where Ray is)

            self._gauges = metrics.RayGauges()
        self._ticking: asyncio.Task[None] | None = None

    async def exchange(
        self,
        epoch: str,
        router: str,
        events: Iterable[tuple[Any, ...]],
        asks: Sequence[tuple[str, RouteKey, Sequence[str]]] = (),
        want_checkpoint: bool = False,  # noqa: FBT001, FBT002 (positional arguments are cheaper in Ray)
    ) -> tuple[str, Any]:
        """Take in what has happened at a router, in order, then answer its questions, if any.

        Returns:
            This ledger's epoch; and for each question the worker's name or None, a checkpoint if it is wanted, or
            HELLO if nothing was taken in, because the router speaks to another incarnation.
        """
        self._count()
        now = time.monotonic()
        if epoch != self.epoch or router not in self._known:
            return self.epoch, HELLO
        self._book.heard(router, now)
        self._take_in(router, events, now)
        if asks:
            choices = [self._book.pick(router, *ask, now) for ask in asks]
            return self.epoch, [choice.worker if choice else None for choice in choices]
        return self.epoch, self._book.checkpoint() if want_checkpoint else None

    async def hello(
        self,
        router: str,
        members: Iterable[str],
        sent: Iterable[tuple[str, RouteKey, str]],
        checkpoint: Mapping[str, Any] | None,
    ) -> str:
        """Take in a router that is new here, with all that it knows; return this ledger's epoch."""
        self._count()
        now = time.monotonic()
        self._known.add(router)
        self._book.members(router, members, now)
        if checkpoint is not None and self._book.restore(checkpoint):
            self._restored = True
            LOG.warning("fairprefix: the ledger was rebuilt from a checkpoint")
        self._book.adopt(router, sent, now)
        return self.epoch

    async def replica(self, worker: str, finished: Iterable[Finished], report: WorkerReport | None) -> str:
        """Take in what a replica tells; return this ledger's epoch."""
        self._count()
        self._book.reported(worker, finished)
        if report is not None:
            self._monitor.reported(worker, report)
        return self.epoch

    async def figures(self) -> dict[str, Any]:
        """Return what is known, as JSON-serialisable data: counts, and the bound with its assumptions."""
        book = self._book
        return {
            "epoch": self.epoch,
            "restored": self._restored,
            "routers": book.routers,
            "out": book.out,
            "picks": book.picks,
            "settled": book.settled,
            "refunded": book.refunded,
            "unreported": book.unreported,
            "messages": self._messages,
            "loads": book.workers(),
            "service": self._monitor.service(),
            "report_period_s": self._settings.report_period_s,
            **self._monitor.described(),
        }

    async def deficit(self, client: str, worker: str) -> int:
        """Return the dispatcher's counter of a client at a worker, in service units."""
        policy: Any = self._book.policy
        return int(policy.deficit(client, worker))

    def _take_in(self, router: str, events: Iterable[tuple[Any, ...]], now: float) -> None:
        for kind, *what in events:
            if kind == "members":
                self._book.members(router, what[0], now)
            elif kind == "ended":
                id, worker, accepted = what
                self._book.ended(router, id, worker, accepted=accepted, now=now)
            elif kind == "forget":
                self._book.forget(router, what[0])
            else:
                self._book.died(what[0])

    def _count(self) -> None:
        self._messages += 1
        if self._ticking is None:
            self._ticking = asyncio.get_running_loop().create_task(self._tick())

    async def _tick(self) -> None:
        """Let time pass; say now and then what holds."""
        said = 0.0
        while True:
            await asyncio.sleep(_TICK_S)
            now = time.monotonic()
            try:
                self._book.expire(now)
                self._known &= set(self._book.routers)
                if now - said >= _LOG_EVERY_S:
                    said = now
                    self._say()
            except Exception:
                LOG.exception("fairprefix: the ledger's clock stumbled")

    def _say(self) -> None:
        """Write the bound that holds into the log, and all figures into Ray's metrics."""
        if self._gauges is not None:
            self._gauges.update(self._monitor.samples())
        LOG.info("%s", self._monitor.said())
