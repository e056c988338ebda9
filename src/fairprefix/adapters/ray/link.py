"""A router's side of the conversation with the ledger: asks, tells in batches, and outlives it.

A ledger that does not answer never holds up requests: the router then decides by itself, by the requests that it
has sent and that are not over, and tells the next ledger of all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any, Protocol

from fairprefix.adapters.ray.key import RouteKey
from fairprefix.core.routing import WorkerName

LOG = logging.getLogger("fairprefix.ray")
HELLO = "hello"
Question = tuple[str, RouteKey, list[WorkerName]]
"""Which replica for this request, if not one of those?"""
_FLUSH_S = 0.02
_UNDER_WAY = 2
"""Calls with questions that are under way at a time: whatever is asked meanwhile travels together."""
_UNKNOWN = "\0unknown"
"""In place of an answer: the ledger could not be asked."""
_RETRY_S, _LONGEST_RETRY_S = 0.25, 2.0
"""Between attempts to reach a ledger; doubled each time, since looking for it is work for all of Ray."""


class LedgerHandle(Protocol):
    """The ledger's methods, as coroutines (`fairprefix.adapters.ray.ledger.Ledger`)."""

    def exchange(
        self,
        epoch: str,
        router: str,
        events: list[tuple[Any, ...]],
        asks: list[Question] = [],  # noqa: B006 (nobody changes it)
        want_checkpoint: bool = False,  # noqa: FBT001, FBT002 (positional arguments are cheaper in Ray)
    ) -> Awaitable[tuple[str, Any]]:
        """See `Ledger.exchange`."""
        ...

    def hello(
        self,
        router: str,
        members: list[str],
        sent: list[tuple[str, RouteKey, str]],
        checkpoint: Any,  # noqa: ANN401
    ) -> Awaitable[str]:
        """See `Ledger.hello`."""
        ...


Find = Callable[[], Awaitable[LedgerHandle]]
"""Finds the ledger; raises whatever it likes if there is none."""


class LedgerLink:
    """What one router tells and asks the ledger.

    Args:
        name: of the router, unlike that of any other.
        find: finds the ledger.
        timeout_s: after which an answer is not waited for any longer.
        sync_s: how often a checkpoint is fetched.
    """

    def __init__(self, name: str, find: Find, *, timeout_s: float = 1.0, sync_s: float = 2.0) -> None:
        self.name = name
        self.alone: int = 0
        """Decisions that were made without the ledger."""
        self.asked: int = 0
        self.sent: dict[str, tuple[RouteKey, WorkerName]] = {}
        """What is out: sent through this router, and not over."""
        self._find, self._timeout_s, self._sync_s = find, timeout_s, sync_s
        self._ledger: LedgerHandle | None = None
        self._epoch = ""
        self._checkpoint: Any = None
        self._members: list[WorkerName] = []
        self._events: list[tuple[Any, ...]] = []
        self._connecting = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._due = asyncio.Event()
        self._questions: list[tuple[Question, asyncio.Future[Any]]] = []
        self._asking: set[asyncio.Task[None]] = set()
        self._retry_at = 0.0
        self._pause_s = _RETRY_S

    # What the router says.

    def start(self) -> None:
        """Begin to talk; within a running event loop."""
        if not self._tasks:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._flush_often()), loop.create_task(self._sync_often())]

    def stop(self) -> None:
        """Fall silent."""
        for task in (*self._tasks, *self._asking):
            task.cancel()
        self._tasks = []

    def members(self, names: Iterable[WorkerName]) -> None:
        """Tell which replicas there are."""
        self._members = sorted(names)
        self._tell("members", self._members)

    def died(self, worker: WorkerName) -> None:
        """Tell that a replica is dead."""
        self._tell("died", worker)

    def ended(self, id: str, worker: WorkerName, *, accepted: bool) -> None:
        """Tell that a request is over, as far as this router is concerned."""
        out = self.sent.get(id)
        if out is not None and out[1] == worker:
            del self.sent[id]
            self._tell("ended", id, worker, accepted)

    def given_up(self, id: str) -> None:
        """Tell that a request ended before it was accepted anywhere."""
        out = self.sent.get(id)
        if out is not None:
            self.ended(id, out[1], accepted=False)

    async def pick(self, id: str, key: RouteKey, avoid: Collection[WorkerName]) -> WorkerName | None:
        """Return the replica for a request; None when there is none to be had now."""
        self.sent.pop(id, None)
        try:
            worker = await self._answer((id, key, list(avoid)))
        except asyncio.CancelledError:
            self._tell("forget", id)
            raise
        if worker == _UNKNOWN:
            worker = self._decide(avoid)
            self.alone += 1
        else:
            self.asked += 1
        if worker is not None:
            self.sent[id] = (key, worker)
        return worker

    # Inside.

    async def _answer(self, question: Question) -> WorkerName | None:
        """Return what the ledger answers; _UNKNOWN if it cannot be asked."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._retry_at:
            return _UNKNOWN
        answer: asyncio.Future[WorkerName | None] = loop.create_future()
        self._questions.append((question, answer))
        if len(self._asking) < _UNDER_WAY:
            task = loop.create_task(self._ask())
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        return await answer

    async def _ask(self) -> None:
        """Put questions until there are none."""
        while self._questions:
            asked, self._questions = self._questions, []
            asked = [(question, answer) for question, answer in asked if not answer.done()]
            found: list[Any] = [_UNKNOWN] * len(asked)
            if asked and asyncio.get_running_loop().time() >= self._retry_at:
                try:
                    exchange = self._exchange([question for question, _ in asked], want_checkpoint=False)
                    found = await asyncio.wait_for(exchange, self._timeout_s)
                except Exception as problem:  # noqa: BLE001 (an actor may fail in many ways; serving goes on)
                    self._lose(problem)
            for (_, answer), worker in zip(asked, found, strict=True):
                if not answer.done():
                    answer.set_result(worker)

    def _decide(self, avoid: Collection[WorkerName]) -> WorkerName | None:
        """Choose the replica to which this router has sent least that is not over."""
        loads = dict.fromkeys((name for name in self._members if name not in avoid), 0)
        for _, worker in self.sent.values():
            if worker in loads:
                loads[worker] += 1
        return min(loads, key=lambda name: (loads[name], name), default=None)

    def _tell(self, *event: Any) -> None:  # noqa: ANN401
        self._events.append(event)
        self._due.set()

    async def _exchange(self, asks: list[Question], *, want_checkpoint: bool) -> Any:  # noqa: ANN401
        while True:
            ledger = self._ledger or await self._connect()
            events, self._events = self._events, []
            try:
                epoch, answer = await ledger.exchange(self._epoch, self.name, events, asks, want_checkpoint)
            except Exception:
                # Whether it was heard is not known; `hello` says it all again.
                self._ledger = None
                raise
            if epoch == self._epoch and answer != HELLO:
                return answer
            self._ledger = None

    async def _connect(self) -> LedgerHandle:
        async with self._connecting:
            if self._ledger is None:
                ledger = await self._find()
                self._events.clear()
                sent = [(id, key, worker) for id, (key, worker) in self.sent.items()]
                self._epoch = await ledger.hello(self.name, self._members, sent, self._checkpoint)
                self._ledger = ledger
                self._retry_at, self._pause_s = 0.0, _RETRY_S
            return self._ledger

    def _lose(self, problem: Exception) -> None:
        loop = asyncio.get_running_loop()
        if not self._retry_at:
            LOG.warning("fairprefix: the ledger does not answer (%r), routing goes on without it", problem)
        self._ledger = None
        self._retry_at = loop.time() + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_RETRY_S)

    async def _flush_often(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            await asyncio.sleep(_FLUSH_S)
            if self._events:
                await self._talk(want_checkpoint=False)

    async def _sync_often(self) -> None:
        while True:
            found = await self._talk(want_checkpoint=True)
            if found is not None:
                self._checkpoint = found
            await asyncio.sleep(self._pause_s if self._ledger is None else self._sync_s)

    async def _talk(self, *, want_checkpoint: bool) -> Any:  # noqa: ANN401
        with contextlib.suppress(asyncio.TimeoutError):
            try:
                return await asyncio.wait_for(
                    self._exchange([], want_checkpoint=want_checkpoint), 4 * self._timeout_s
                )
            except Exception as problem:  # noqa: BLE001 (likewise)
                self._lose(problem)
        return None
