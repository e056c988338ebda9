"""One request through the gateway: it waits its turn, goes to a worker, and its answer to the client.

What may go wrong, and what follows:

* the client goes away: while it waits nothing is charged; afterwards its prompt, and what it was sent, is;
* the worker fails before anything was sent to the client: everything is given back, and another worker is tried;
* it fails later: what was sent is charged, and the client is told in a last event of the stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from time import monotonic
from typing import Any

from fairprefix.gateway.ask import Ask, upstream_body
from fairprefix.gateway.errors import BAD_GATEWAY, TIMEOUT, GatewayError, Headers
from fairprefix.gateway.estimate import Estimates
from fairprefix.gateway.fleet import Fleet
from fairprefix.gateway.stream import Stream
from fairprefix.gateway.turn import Place, Turn
from fairprefix.gateway.upstream import Answer, Upstream, UpstreamError
from fairprefix.gateway.usage import EventReader, Usage, text_bytes, usage_of
from fairprefix.gateway.worker import Worker

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

_RETRIED = frozenset((500, 502, 503, 504))
_OK = 200
_BAD = 400


class Exchange:
    """See above; `run` once.

    Args:
        fleet: the workers.
        upstreams: connections, by worker.
        estimates: learn from what it took.
        ask: what the client wants.
        target: path and query.
        headers: the client's.
        turn: the request, bound to a worker.
        send: ASGI's.
    """

    def __init__(
        self,
        fleet: Fleet,
        upstreams: dict[str, Upstream],
        estimates: Estimates,
        ask: Ask,
        target: str,
        headers: Headers,
        turn: Turn,
        send: Send,
    ) -> None:
        self.turn = turn
        self.blocked_since: float | None = None
        """Since when the client has not taken what it is sent (monotonic clock)."""
        self.abort: Callable[[], None] | None = None
        """Breaks the client's connection off, if the server can do that."""
        self._fleet = fleet
        self._upstreams = upstreams
        self._estimates = estimates
        self._ask = ask
        self._target = target
        self._headers = headers
        self._send = send
        self._started = False
        self._gone = False
        self._delivered = 0
        self._task: asyncio.Task[Any] | None = None
        self._deadline: float | None = None
        """When it has waited long enough, on the event loop's clock."""
        self._reader: EventReader | None = None
        self._coming: Stream | None = None

    async def run(self) -> None:
        """Carry it out; every way out of here settles the request, or gives it up.

        Raises:
            GatewayError: nothing was sent to the client, which has to be told.
        """
        self._task = asyncio.current_task()
        try:
            await self._until_answered()
        finally:
            self._end()

    async def _until_answered(self) -> None:
        fleet, turn, failures = self._fleet, self.turn, 0
        while True:
            if turn.place is not Place.INSIDE:
                await self._let_in()
            worker = fleet.workers[turn.worker]
            try:
                await self._attempt(worker, last=failures >= fleet.settings.gateway.retries)
            except UpstreamError as problem:
                fleet.failed(worker, str(problem), gone=problem.gone)
                if self._started:
                    await self._break_off(problem)
                    return
                failures += 1
                if failures > fleet.settings.gateway.retries:
                    raise GatewayError(BAD_GATEWAY, "worker_failed", f"the worker failed: {problem}") from None
                fleet.send_again(turn)
            else:
                return

    async def _let_in(self) -> None:
        """Wait until the request is inside.

        Raises:
            GatewayError: it took too long, or the last worker is gone.
        """
        turn = self.turn
        limit = self._fleet.settings.gateway.queue_timeout_s
        loop = asyncio.get_running_loop()
        if self._deadline is None:
            self._deadline = loop.time() + limit
        deadline = self._deadline
        while turn.place is not Place.INSIDE and turn.lost is None:
            turn.waiter = loop.create_future()
            timer = loop.call_at(deadline, turn.wake)
            try:
                await turn.waiter
            finally:
                timer.cancel()
                turn.waiter = None
            if turn.place is Place.WAITING and loop.time() >= deadline:
                raise GatewayError(TIMEOUT, "queue_timeout", f"{limit} seconds in the queue: try again later")
        if turn.lost is not None:
            raise turn.lost

    async def _attempt(self, worker: Worker, *, last: bool) -> None:
        ask, fair, client = self._ask, worker.config.fairprefix, self.turn.request.client
        body = upstream_body(ask, client if fair == "vllm" else "")
        answer = await self._upstreams[worker.name].send("POST", self._target, self._headers, body, client)
        try:
            if answer.status in _RETRIED and not last:
                raise UpstreamError(f"status {answer.status}")
            if answer.status in _RETRIED:
                self._fleet.failed(worker, f"status {answer.status}", gone=False)
            else:
                worker.failures_in_a_row = 0
            if answer.is_stream and answer.status < _BAD:
                await self._stream(answer)
            else:
                await self._whole(answer)
        finally:
            answer.close()

    async def _whole(self, answer: Answer) -> None:
        body = await answer.whole()
        if answer.status < _BAD:
            usage = usage_of(body)
            if usage is None:
                self._delivered = self._estimates.answer(text_bytes(body))
            self._settle(usage)
        else:
            self._fleet.give_up(self.turn)
        await self._begin(answer, len(body))
        await self._write(body, more=False)

    async def _stream(self, answer: Answer) -> None:
        reader = self._reader = EventReader(strip=self._ask.adds_usage)
        stream = self._coming = Stream(answer, reader, self._produced, lambda: self._settle(reader.usage))
        try:
            while (data := await stream.next()) is not None:
                if not self._started:
                    await self._begin(answer, None)
                await self._write(data, more=True)
        finally:
            stream.stop()
        if not self._started:
            await self._begin(answer, None)
        await self._write(b"", more=False)

    def _produced(self, tokens: int) -> None:
        self._delivered += tokens
        self._fleet.delivered(self.turn, tokens)

    async def _break_off(self, problem: UpstreamError) -> None:
        error = GatewayError(BAD_GATEWAY, "worker_failed", f"the worker failed in the middle: {problem}")
        self._end()
        await self._write(error.event(), more=False)

    # To the client.

    async def _begin(self, answer: Answer, length: int | None) -> None:
        self._started = True
        headers = answer.headers
        if length is not None:
            headers = [*headers, (b"content-length", b"%d" % length)]
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})

    async def _write(self, data: bytes, *, more: bool) -> None:
        self.blocked_since = monotonic()
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        self.blocked_since = None

    # The books.

    def _settle(self, usage: Usage | None) -> None:
        turn, request = self.turn, self.turn.request
        if usage is None:
            self._fleet.settle(
                turn, prompt=request.input_tokens, cached=turn.cached_tokens, output=self._delivered
            )
            return
        cached = min(turn.cached_tokens, max(usage.prompt - 1, 0)) if usage.cached is None else usage.cached
        self._estimates.learn(self._ask, request.client, usage.prompt, usage.output)
        self._fleet.settle(turn, prompt=usage.prompt, cached=cached, output=usage.output)

    def _end(self) -> None:
        """Settle what is not settled: an answer that broke off, or a client that went away."""
        turn = self.turn
        if turn.place is Place.INSIDE and (self._started or self._gone):
            self._settle(self._reader.usage if self._reader else None)
        else:
            self._fleet.give_up(turn)

    def client_left(self) -> None:
        """Note that nobody reads the answer any more."""
        self._gone = True

    def read_ahead(self) -> None:
        """Let the worker finish although the client takes its time."""
        if self._coming is not None:
            self._coming.read_ahead()

    def cut_off(self) -> None:
        """End it: its client does not read."""
        self.client_left()
        if self._task is not None:
            self._task.cancel()
        if self.abort is not None:
            self.abort()
