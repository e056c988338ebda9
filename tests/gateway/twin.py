"""Two small gateways in front of one worker: queues under a shared ledger, real time, a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.policy import Policy
from fairprefix.core.request import Request
from fairprefix.gateway.shared.config import RedisConfig
from fairprefix.gateway.shared.replica import ReplicaPolicy
from fairprefix.gateway.shared.sync import LedgerSync

PROMPT, OUTPUT = 100, 50
COST = PROMPT + 2 * OUTPUT
CONFIG = PolicyConfig(quantum=1000, weights={"heavy": 4, "light": 1})


class Worker:
    """Serves so many requests at a time, each in the same time, first come, first served."""

    def __init__(self, slots: int = 4, seconds: float = 0.002) -> None:
        self.slots = asyncio.Semaphore(slots)
        self.seconds = seconds
        self.served: dict[str, int] = {}

    async def serve(self, client: str) -> None:
        """Serve one request."""
        async with self.slots:
            await asyncio.sleep(self.seconds)
        self.served[client] = self.served.get(client, 0) + COST


class Host:
    """A gateway's queue for the worker: keeps `depth` requests of each of its clients waiting."""

    _ids = count()

    def __init__(self, worker: Worker, redis: RedisConfig | None, window: int = 4) -> None:
        self.troubles: list[str] = []
        self.sync = LedgerSync(redis, self.troubles.append) if redis else None
        self.policy: Policy = self.sync.policy("w", CONFIG) if self.sync else make_policy(CONFIG)
        self._worker = worker
        self._window = window
        self._inside = 0
        self.served = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._once: set[str] = set()

    def flood(self, client: str, depth: int = 8) -> None:
        """Keep a client backlogged from now on."""
        for _ in range(depth):
            self._arrive(client)
        self.pump()

    def once(self, client: str) -> None:
        """Let one request of a client come."""
        self._once.add(self._arrive(client))
        self.pump()

    def changed(self, worker: str) -> None:
        """Hear of new balances."""
        assert worker == "w"
        self.pump()

    def pump(self) -> None:
        """Let in whom the policy offers."""
        while self._inside < self._window and (request := self.policy.peek()):
            self.policy.take(request.id, extend=PROMPT, reserve=OUTPUT)
            self._inside += 1
            task = asyncio.ensure_future(self._run(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _arrive(self, client: str) -> str:
        request = Request(f"r{next(self._ids)}", client, PROMPT, OUTPUT)
        self.policy.arrive(request)
        return request.id

    async def _run(self, request: Request) -> None:
        await self._worker.serve(request.client)
        self.policy.produced({request.client: OUTPUT})
        self.policy.finish(request.id, output=OUTPUT)
        self._inside -= 1
        self.served += 1
        if request.id not in self._once:
            self._arrive(request.client)
        self.pump()


@asynccontextmanager
async def running(*hosts: Host) -> AsyncIterator[None]:
    """Run hosts for as long as the context lasts."""
    tasks = [asyncio.ensure_future(host.sync.run(host.changed)) for host in hosts if host.sync]
    try:
        yield
    finally:
        for host in hosts:
            await host.close()
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(outcome, asyncio.CancelledError), outcome
        for host in hosts:
            assert not host.sync or isinstance(host.policy, ReplicaPolicy)
            host.policy.validate()
