"""Keeps a gateway's copies of the shared ledgers in step with Redis, one ledger per worker.

Reports go out when somebody waits for news, and otherwise at the configured interval. While Redis is away every
gateway goes on alone, and tries again now and then: nothing that it serves waits for Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from math import inf
from time import monotonic
from typing import Any
from uuid import uuid4

import attrs
from attrs import define

from fairprefix.core.config import PolicyConfig
from fairprefix.core.routing import WorkerName
from fairprefix.core.shared_ledger import Ask
from fairprefix.gateway.shared.config import RedisConfig
from fairprefix.gateway.shared.connection import TROUBLE, connect
from fairprefix.gateway.shared.replica import ReplicaLedger, ReplicaPolicy
from fairprefix.gateway.shared.script import SYNC

_HUNGRY_SHARE = 5
"""Who waits for news asks so many times as often."""
_FORGET_S = 86_400
_MOST_CLIENTS = 10_000
_RETRY_S = (0.1, 2.0)


@define
class SharingFigures:
    """How well gateways know of each other."""

    connected: bool = False
    gateways: int = 0
    """Gateways that were heard of within the lease, this one included."""
    reports: int = 0
    failures: int = 0
    """Reports that were not answered."""
    staleness_s: float = 0.0
    """Longest time between two answers while connected: so old may be what is known of the others' charges."""
    unreported: int = 0
    """The most that was charged to one client here without being reported, in service units."""
    delta: int = 0
    """The same, summed over all other gateways: by so much a client's credit may be overestimated here."""
    rounds: int = 0
    """Refills, over all workers and gateways."""


class LedgerSync:
    """The shared ledgers of one gateway.

    Args:
        config: where Redis is.
        on_trouble: told in one sentence when Redis is lost, and when it is back.
    """

    def __init__(
        self,
        config: RedisConfig,
        on_trouble: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.config = config
        self.figures: SharingFigures = SharingFigures()
        self.name: str = f"{socket.gethostname()}/{uuid4().hex[:12]}"
        self._changed: Callable[[WorkerName], None] = lambda _worker: None
        self._on_trouble = on_trouble
        self._ledgers: dict[WorkerName, ReplicaLedger] = {}
        self._rounds: dict[WorkerName, int] = {}
        self._reported_at: dict[WorkerName, float] = {}
        self._wake = asyncio.Event()
        self._client = connect(config)
        self._sync = self._client.register_script(SYNC)
        self._answered_at = -inf
        self._warned = False

    def policy(self, worker: WorkerName, config: PolicyConfig, ask: Ask = lambda _request: 0) -> ReplicaPolicy:
        """Return the policy of a worker's queue."""
        # What is outstanding at other gateways is not known: the credit gate does not apply.
        own = attrs.evolve(config, policy="dlpm", gate="deficit", overdraft=0)
        ledger = self._ledgers[worker] = ReplicaLedger(own, self.name)
        return ReplicaPolicy(ledger, ask, self._wake.set)

    def ledgers(self) -> Iterator[tuple[WorkerName, ReplicaLedger]]:
        """Yield the copies by worker."""
        yield from self._ledgers.items()

    def state(self) -> dict[str, int | float | bool]:
        """Return the figures, as plain data."""
        return attrs.asdict(self.figures)

    async def run(self, changed: Callable[[WorkerName], None]) -> None:
        """Report until cancelled.

        Args:
            changed: told of a worker whose balances may have changed: its queue may let somebody in now.
        """
        self._changed = changed
        wait, interval = 0.0, self.config.interval_ms / 1000
        try:
            while True:
                await self._pause(wait)
                answered = await self._report_all()
                if _is_cancelled():  # a client's time limit that ended at the same moment may have swallowed it
                    raise asyncio.CancelledError
                wait = interval if answered else min(max(2 * wait, _RETRY_S[0]), _RETRY_S[1])
        finally:
            with contextlib.suppress(*TROUBLE):
                await self._client.aclose()

    async def _pause(self, seconds: float) -> None:
        """Wait, less long if somebody waits for news, but never without an end."""
        shortest = self.config.interval_ms / 1000 / _HUNGRY_SHARE
        if not self.figures.connected:
            await asyncio.sleep(seconds)
            return
        await asyncio.sleep(min(shortest, seconds))
        # Not `wait_for`, which may lose a cancellation before Python 3.12.
        alarm = asyncio.get_running_loop().call_later(max(seconds - shortest, 0), self._wake.set)
        try:
            await self._wake.wait()
        finally:
            alarm.cancel()

    async def _report_all(self) -> bool:
        """Report for every worker; return whether Redis has answered."""
        self._wake.clear()
        began = monotonic()
        try:
            for worker, ledger in self._ledgers.items():
                if not ledger.quiet or self._heard(worker) > self.config.lease_ms / 2000:
                    await self._report(worker, ledger)
        except TROUBLE as problem:
            self._lost(problem)
            return False
        figures = self.figures
        if figures.connected:
            figures.staleness_s = max(figures.staleness_s, monotonic() - self._answered_at)
        elif self._warned:
            self._on_trouble("Redis is back: service is shared out over all gateways again")
        self._answered_at = began
        self._warned = False
        figures.connected = True
        return True

    async def _report(self, worker: WorkerName, ledger: ReplicaLedger) -> None:
        report = ledger.write()
        peak = ledger.largest_unreported
        arguments: list[Any] = [
            *(ledger.name, report.serial, self.config.lease_ms, ledger.config.quantum, int(report.wants_refill)),
            *(_MOST_CLIENTS, _FORGET_S, peak),
            *_flat(report.changes),
            *_flat(report.waiting),
            *report.clients,
        ]
        answer = await self._sync(keys=self._keys(worker), args=arguments)
        alive, others, rounds = (int(number) for number in answer[:3])
        ledger.read([int(balance) for balance in answer[3:]])
        ledger.connected = True
        figures = self.figures
        figures.reports += 1
        figures.gateways = alive
        figures.unreported = max(figures.unreported, peak)
        figures.delta = max(figures.delta, others)
        self._rounds[worker] = rounds
        self._reported_at[worker] = monotonic()
        figures.rounds = sum(self._rounds.values())
        if report.waiting:
            self._changed(worker)

    def _heard(self, worker: WorkerName) -> float:
        """Return how many seconds ago the others heard of a worker's queue here."""
        return monotonic() - self._reported_at.get(worker, -inf)

    def _lost(self, problem: BaseException) -> None:
        self.figures.failures += 1
        self.figures.connected = False
        for worker, ledger in self._ledgers.items():
            ledger.connected = False
            self._changed(worker)
        if not self._warned:
            self._warned = True
            self._on_trouble(
                f"Redis does not answer ({type(problem).__name__}): this gateway is fair on its own until then"
            )

    def _keys(self, worker: WorkerName) -> list[str]:
        # In a cluster all of a worker's keys have to be in one place: the part in braces.
        place = f"{self.config.namespace}:{{{worker.replace('{', '(').replace('}', ')')}}}"
        return [f"{place}:{name}" for name in ("balances", "gateways", "weights", "figures")]


def _flat(pairs: tuple[tuple[str, int], ...]) -> list[Any]:
    return [len(pairs), *(value for pair in pairs for value in pair)]


def _is_cancelled() -> bool:
    """Return whether this task was asked to end; before Python 3.11 tasks do not know."""
    return bool(getattr(asyncio.current_task(), "cancelling", int)())
