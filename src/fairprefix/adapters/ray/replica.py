"""The replica's side: DLPM in front of the engine, and true figures for the ledger.

    @serve.deployment(**fair_options())
    class LLM(FairReplica):
        def __init__(self): self.fair(settings)

        async def generate(self, key: RouteKey, prompt):
            async with self.turn(key) as turn:
                async for token in engine.generate(prompt):
                    turn.produced(1)
                    yield token

or, where the engine has its own DLPM (the reference engine, vLLM and SGLang with this package), `gated=False`: the
replica then only reports.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from fairprefix.adapters.ray.key import RouteKey
from fairprefix.adapters.ray.settings import LedgerSettings
from fairprefix.core.request import Request
from fairprefix.hosting.gate import Gate, RecentPrompts, Ticket, log_failure

LOG = logging.getLogger("fairprefix.ray")
_BATCH_S = 0.05
Wrapped = TypeVar("Wrapped", bound=Callable[..., AsyncGenerator[Any, None]])

Turn = Ticket
"""A request that has been admitted: `produced(tokens)`, `found(extend)`."""
Tell = Callable[[str, list[tuple[str, int, int]], Any], Any]
"""Sends a replica's news to the ledger; a coroutine function."""


class FairReplica:
    """Mixin for a deployment's class: a gate in front of what it does, and reports to the ledger.

    `fair` sets it up; without a call, `turn` does so with the defaults.
    """

    _fair: Reporter | None = None

    def fair(
        self,
        settings: LedgerSettings | Mapping[str, Any] | None = None,
        *,
        cached: Callable[[Request], int] | None = None,
        gated: bool = True,
        ledger: str = "fairprefix",
        tell: Tell | None = None,
        worker: str | None = None,
    ) -> None:
        """Set up gate and reports.

        Args:
            settings: those that the deployment's ledger was given.
            cached: how many tokens of a prompt the engine has cached now; unless given, what it got last is taken
                to be cached.
            gated: False where the engine itself admits by DLPM.
            ledger: name of the deployment actor.
            tell: sends news to the ledger; by default to the deployment's.
            worker: name of this replica; by default the one that Serve gave it.
        """
        made = settings if isinstance(settings, LedgerSettings) else LedgerSettings.from_mapping(settings or {})
        self._fair = Reporter(made, cached, gated=gated, tell=tell or Teller(ledger), worker=worker or _own_name())

    def turn(self, key: RouteKey) -> Any:  # noqa: ANN401 (an asynchronous context manager of a Turn)
        """Wait for a request's turn: `async with self.turn(key) as turn`. It is in flight until the block ends."""
        if self._fair is None:
            self.fair()
        assert self._fair is not None
        return self._fair.turn(key)

    @property
    def gate(self) -> Gate:
        """The gate, for figures."""
        if self._fair is None:
            self.fair()
        assert self._fair is not None
        return self._fair.gate


def fair(generate: Wrapped) -> Wrapped:
    """Gate an asynchronous generator method of a `FairReplica` whose first argument is a `RouteKey`.

    Each item that it yields counts as one output token.
    """

    @functools.wraps(generate)
    async def gated(self: FairReplica, key: RouteKey, *args: Any, **named: Any) -> AsyncGenerator[Any, None]:  # noqa: ANN401
        async with self.turn(key) as turn, aclosing(generate(self, key, *args, **named)) as items:
            async for item in items:
                turn.produced(1)
                yield item

    return gated  # type: ignore[return-value]


class Reporter:
    """A gate, and what the ledger is told of it."""

    def __init__(
        self,
        settings: LedgerSettings,
        cached: Callable[[Request], int] | None,
        *,
        gated: bool,
        tell: Tell,
        worker: str,
    ) -> None:
        recent = RecentPrompts(settings.cache_blocks, settings.router.block_size)
        self.gate: Gate = Gate(
            settings.policy,
            settings.window if gated else 1 << 30,
            cached=cached or recent,
            sent=recent.sent if cached is None else _nobody,
            limits=settings.limits(),
            on_error=log_failure(LOG),
        )
        self._gated = gated
        self._period_s = settings.report_period_s
        self._worker = worker
        self._tell = tell
        self._finished: list[tuple[str, int, int]] = []
        self._epoch: Any = None
        """Of the ledger that has heard everything; None while there is none."""
        self._due = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def turn(self, key: RouteKey) -> AsyncIterator[Turn]:
        """Wait for a request's turn, and report what it cost in the end."""
        if not self._tasks:
            loop = asyncio.get_running_loop()
            self._tasks = [loop.create_task(self._tell_of_requests()), loop.create_task(self._tell_of_clients())]
        # The id of the call tells the ledger which dispatch this is; the gate needs one that is its own.
        call, ticket = _call_id(), None
        try:
            async with self.gate.admitted(key.request(f"{call}-{uuid.uuid4().hex}")) as ticket:
                yield ticket
        finally:
            # Who never got its turn has cost nothing.
            extend, output = (0, 0) if ticket is None else (ticket.extend, ticket.output)
            self._finished.append((call, extend, output))
            self._due.set()

    async def _tell_of_requests(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            await asyncio.sleep(_BATCH_S)
            finished, self._finished = self._finished, []
            try:
                await self._tell(self._worker, finished, None)
            except Exception:  # noqa: BLE001 (an actor may fail in many ways; serving goes on)
                LOG.warning("fairprefix: the ledger does not hear of %s requests", len(finished))

    async def _tell_of_clients(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            try:
                report = self.gate.report(everything=self._epoch is None) if self._gated else None
                epoch = await self._tell(self._worker, [], report)
            except Exception:  # noqa: BLE001 (likewise)
                epoch = None
            # A ledger that does not know what was reported before has to hear all of it.
            self._epoch = epoch if self._epoch in (None, epoch) else None


class Teller:
    """Sends news to the ledger of the deployment that this process is a replica of."""

    def __init__(self, ledger: str) -> None:
        self._name = ledger
        self._actor: Any = None

    async def __call__(self, worker: str, finished: list[tuple[str, int, int]], report: object) -> Any:  # noqa: ANN401
        """Send, and return the ledger's epoch."""
        from ray import serve  # noqa: PLC0415 (an extra)

        try:
            if self._actor is None:
                self._actor = await asyncio.to_thread(serve.get_deployment_actor, self._name)
            return await self._actor.replica.remote(worker, finished, report)
        except Exception:
            self._actor = None
            raise


def _own_name() -> str:
    from ray import serve  # noqa: PLC0415 (an extra)

    return str(serve.get_replica_context().replica_id.unique_id)


def _call_id() -> str:
    """Return the id of the call that is being served, as its router knows it; without Serve, a new one."""
    try:
        from ray.serve.context import _get_serve_request_context  # noqa: PLC0415 (an extra)
    except ImportError:
        return uuid.uuid4().hex
    return _get_serve_request_context()._internal_request_id or uuid.uuid4().hex  # noqa: SLF001 (not public)


def _nobody(_request: Request) -> None:
    """Keep nothing in mind."""
