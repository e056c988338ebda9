"""The component: one dispatcher, a gate for each worker, and what to do when one of them dies.

Everything of Dynamo is behind `Backend`; `fairprefix.adapters.dynamo.run` puts the real one in.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Any, Protocol

from attrs import define, field

from fairprefix.adapters.dynamo.identity import namespace_of, policy_request
from fairprefix.adapters.dynamo.overlap import ToldOverlap
from fairprefix.adapters.dynamo.settings import Settings
from fairprefix.core.d2lpm import D2LPM
from fairprefix.core.errors import FairprefixError
from fairprefix.core.request import Request
from fairprefix.core.routing import WorkerName
from fairprefix.hosting.fleet import FleetMonitor
from fairprefix.hosting.gate import Gate, RecentPrompts, Ticket, WorkerLostError, log_failure
from fairprefix.hosting.identity import Identity

LOG = logging.getLogger("fairprefix.dynamo")
_LONGEST_SUSPENSION_S = 60.0
_LOOK_AGAIN_S = 0.05
_LEAD = 1
"""Tokens before its last one when a request's place at a worker is given to the next: it is on its way during the
step of the last token. A lead of two was measured beside it: no difference (0.985 and 0.986 of the native router's
throughput), and who is served is then decided a step earlier."""
_GIVE_UP_S = 30.0
"""How long a request waits while there is no worker at all."""

Chunk = Mapping[str, Any]


class Backend(Protocol):
    """The workers, as Dynamo shows them."""

    async def overlap(self, tokens: list[int], namespace: str) -> Mapping[WorkerName, int]:
        """Return how many leading blocks of a prompt each worker has in its memory now."""
        ...

    def generate(self, request: Mapping[str, Any], worker: WorkerName) -> AsyncGenerator[Chunk, None]:
        """Yield what one worker answers."""
        ...


class NoWorkerError(FairprefixError):
    """There is no worker that could take a request."""


@define(eq=False)
class _Worker:
    gate: Gate
    recent: RecentPrompts
    suspended_until: float | None = None
    failures: int = 0
    """In a row."""
    overlap: dict[str, int] = field(factory=dict)
    """Cached tokens of the prompts that wait here, as they were told when they were dispatched."""

    def cached(self, request: Request) -> int:
        """Return what is cached of a prompt: what was told, or what was sent here meanwhile."""
        return max(self.overlap.get(request.id, 0), self.recent(request))


class Component:
    """Takes requests as a Dynamo endpoint does, and passes them on to workers.

    Args:
        backend: the workers.
        settings: see there.
    """

    def __init__(self, backend: Backend, settings: Settings) -> None:
        self.settings = settings
        self.retried: int = 0
        """Requests that were sent again, after a worker had failed before their first token."""
        self.failed: int = 0
        """Requests that were lost after their first token."""
        self.monitor: FleetMonitor = FleetMonitor(settings.policy, settings.limits())
        self._backend = backend
        self._index = ToldOverlap()
        self.router: D2LPM = D2LPM(settings.dispatcher(), self._index)
        self._identity = Identity(settings.policy.identity)
        self._workers: dict[WorkerName, _Worker] = {}

    # Workers.

    def instances(self, names: Iterable[WorkerName]) -> None:
        """Take in the workers that there are now."""
        present = set(names)
        for name in sorted(self._workers.keys() - present):
            LOG.warning("fairprefix: worker %s has left", name)
            worker = self._workers.pop(name)
            # Its requests end by themselves: their streams break, or their turns do.
            self.router.worker_left(name)
            self.monitor.left(name)
            worker.gate.close(WorkerLostError(name))
        for name in sorted(present - self._workers.keys()):
            self._workers[name] = self._made()
            self.router.worker_joined(name)
            self.monitor.joined(name)
        now = time.monotonic()
        for name, worker in self._workers.items():
            if worker.suspended_until is not None and worker.suspended_until <= now:
                worker.suspended_until = None
                self.router.worker_resumed(name)

    def _made(self) -> _Worker:
        settings = self.settings
        recent = RecentPrompts(settings.dispatcher().worker_blocks, settings.block_size)
        gate = Gate(
            settings.policy,
            settings.window,
            cached=lambda request: worker.cached(request),  # noqa: PLW0108 (made below)
            sent=recent.sent,
            limits=settings.limits(),
            on_error=log_failure(LOG),
        )
        worker = _Worker(gate, recent)
        return worker

    def _suspend(self, name: WorkerName) -> None:
        """Leave a worker alone for a while, and send what waits for it elsewhere."""
        worker = self._workers.get(name)
        if worker is None:
            return
        if worker.suspended_until is None:
            self.router.worker_suspended(name)
            LOG.warning("fairprefix: worker %s has failed and is suspended", name)
            worker.failures += 1
        pause = self.settings.suspend_s * 2 ** min(worker.failures - 1, 8)
        worker.suspended_until = time.monotonic() + min(pause, _LONGEST_SUSPENSION_S)
        worker.gate.evict(WorkerLostError(name))

    def report(self) -> None:
        """Add up the counters of all gates."""
        for name, worker in self._workers.items():
            self.monitor.reported(name, worker.gate.report())

    @property
    def waiting(self) -> int:
        """Requests that wait in gates."""
        return sum(worker.gate.waiting for worker in self._workers.values())

    # Requests.

    async def generate(self, request: Mapping[str, Any]) -> AsyncGenerator[Chunk, None]:
        """Answer a preprocessed request of Dynamo's; a worker that dies before the first token costs only time.

        Raises:
            NoWorkerError: there has been no worker for a while.
            Exception: a worker died when it had answered in part already.
        """
        settings = self.settings
        made = policy_request(
            uuid.uuid4().hex, request, self._identity,
            block_size=settings.block_size, longest_output=settings.longest_output,
        )  # fmt: skip
        self.monitor.dispatched(made.client)
        try:
            async with aclosing(self._somewhere(request, made)) as chunks:
                async for chunk in chunks:
                    yield chunk
        finally:
            self.monitor.done(made.client)

    async def _somewhere(self, request: Mapping[str, Any], made: Request) -> AsyncGenerator[Chunk, None]:
        while True:
            name = await self._choose(request, made)
            answered = False
            try:
                async with aclosing(self._at(name, request, made)) as chunks:
                    async for chunk in chunks:
                        answered = True
                        yield chunk
            except WorkerLostError:
                self.retried += 1
            except Exception:
                if answered:
                    self.failed += 1
                    raise
                self.retried += 1
            else:
                return

    async def _choose(self, request: Mapping[str, Any], made: Request) -> WorkerName:
        until = time.monotonic() + _GIVE_UP_S
        while True:
            overlap = await self._backend.overlap(list(request["token_ids"]), namespace_of(request))
            self._index.tell({worker.slot: overlap.get(worker.name, 0) for worker in self.router.workers})
            choice = self.router.pick(made)
            if choice is not None:
                self._workers[choice.worker].overlap[made.id] = choice.cached_tokens
                return choice.worker
            if time.monotonic() > until:
                raise NoWorkerError(f"no worker for {_GIVE_UP_S:.0f} s: start one, or look why all have failed")
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _at(
        self, name: WorkerName, request: Mapping[str, Any], made: Request
    ) -> AsyncGenerator[Chunk, None]:
        """Answer a request at one worker; settle or refund it there in any case."""
        worker = self._workers[name]
        ticket: Ticket | None = None
        done = False
        try:
            async with worker.gate.admitted(made) as ticket:
                try:
                    async with aclosing(self._stream(name, request, ticket)) as chunks:
                        async for chunk in chunks:
                            worker.failures = 0
                            yield chunk
                except Exception:
                    # Before its place is free, or the next one would be sent there.
                    self._suspend(name)
                    if not ticket.output:
                        ticket.take_back()
                    raise
                done = True
        finally:
            worker.overlap.pop(made.id, None)
            if self.router.worker_of(made.id) is not None:
                output = 0 if ticket is None else ticket.output
                if ticket is not None and (done or output):
                    self.router.settle(made.id, output=output, extend=ticket.extend)
                else:
                    self.router.refund(made.id)

    async def _stream(
        self, name: WorkerName, request: Mapping[str, Any], ticket: Ticket
    ) -> AsyncGenerator[Chunk, None]:
        """Pass on what a worker answers, and charge it."""
        # What is cached now, and not when it was dispatched, is what is charged. The question goes out before the
        # request does, and nobody waits for its answer: the worker's place must not stay empty meanwhile.
        asking = asyncio.ensure_future(self._backend.overlap(list(request["token_ids"]), namespace_of(request)))
        await asyncio.sleep(0)
        try:
            async with aclosing(self._backend.generate(request, name)) as chunks:
                async for chunk in chunks:
                    if not ticket.output:
                        self._correct(name, ticket, await asking)
                    ticket.produced(len(chunk.get("token_ids") or ()))
                    if chunk.get("finish_reason"):
                        ticket.over()
                    elif ticket.output + _LEAD >= ticket.request.max_output:
                        ticket.nearly_over()
                    yield chunk
        finally:
            asking.cancel()

    def _correct(self, name: WorkerName, ticket: Ticket, overlap: Mapping[WorkerName, int]) -> None:
        """Charge the prompt for what its worker had not cached when it was sent."""
        tokens = ticket.request.input_tokens
        ticket.found(tokens - min(overlap.get(name, 0) * self.settings.block_size, tokens - 1))

    def described(self) -> dict[str, object]:
        """Return all figures, as JSON-serialisable data."""
        return {
            "waiting": self.waiting,
            "in_flight": {name: worker.gate.flying for name, worker in self._workers.items()},
            "suspended": [name for name, one in self._workers.items() if one.suspended_until is not None],
            "retried": self.retried,
            "failed_requests": self.failed,
            "service": self.monitor.service(),
            **self.monitor.described(),
        }
