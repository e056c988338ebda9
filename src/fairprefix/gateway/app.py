"""The public side: an ASGI application that reads requests, sends them through, and says what went wrong."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from itertools import count
from secrets import token_hex
from typing import Any

from fairprefix.core.request import Request
from fairprefix.gateway.ask import Ask, read_ask
from fairprefix.gateway.errors import (
    NOT_FOUND,
    SERVER_ERROR,
    TOO_LARGE,
    UNAVAILABLE,
    GatewayError,
    Headers,
)
from fairprefix.gateway.exchange import Exchange
from fairprefix.gateway.gateway import Gateway
from fairprefix.gateway.relay import relay

LOG = logging.getLogger("fairprefix.gateway")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_WATCH_AFTER_S = 0.02
"""Most requests that take less need nobody to watch whether their client is still there."""
ABORT = "fairprefix.abort"
"""The extension of a server that can break a connection off."""
_JSON = b"json"
_LONGEST_OUTPUT = 4096
"""What a request may produce that sets no limit: tokens that a first guess counts with."""


class ClientGoneError(Exception):
    """The client went away before its request was complete."""


class GatewayApp:
    """See above.

    Args:
        gateway: what is behind.
    """

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._settings = gateway.settings.gateway
        self._run = token_hex(4)
        """Makes the ids of requests different from those of earlier runs."""
        self._number = count()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await _refuse_other(scope, receive, send)
            return
        sent = _Sent(send)
        try:
            await self._serve(scope, receive, sent)
        except GatewayError as problem:
            self._gateway.responses[problem.status] += 1
            await sent.error(problem)
        except (ClientGoneError, asyncio.CancelledError):
            # The client's own doing (see `_watched`), or the end of the server: nobody waits for an answer.
            await sent.end()
        except Exception:
            LOG.exception("%s %s failed", scope["method"], scope["path"])
            await sent.error(GatewayError(SERVER_ERROR, "gateway_failed", "the gateway failed: see its log"))

    async def _serve(self, scope: Message, receive: Receive, send: _Sent) -> None:
        path, method = scope["path"], scope["method"]
        if path == "/health":
            await self._health(send)
            return
        # A worker's proxy might follow the dots to what manages the worker.
        if not path.startswith(self._settings.pass_through) or ".." in path.split("/"):
            raise GatewayError(NOT_FOUND, "not_found", f"{path} is not passed on (see the setting pass_through)")
        gateway = self._gateway
        if gateway.draining:
            raise GatewayError(UNAVAILABLE, "draining", "the gateway is about to stop: try another one")
        headers: Headers = scope["headers"]
        address = scope["client"][0] if scope.get("client") else None
        body = await _body(headers, receive, self._settings.max_body)
        if method == "POST" and path.startswith("/v1/"):
            ask = read_ask(path, body, json=_is_json(headers), prompt=gateway.prompt)
            await self._through_queue(ask, scope, address, receive, send)
            return
        gateway.callers.client(headers, address, None)
        await _watched(receive, relay(gateway, method, _target(scope), headers, body, send))

    async def _through_queue(
        self, ask: Ask, scope: Message, address: str | None, receive: Receive, send: _Sent
    ) -> None:
        gateway, headers = self._gateway, scope["headers"]
        client = gateway.callers.client(headers, address, ask.body)
        fleet, estimates = gateway.fleet, gateway.estimates
        tally = fleet.tally.of(client)
        tally.requests += 1
        try:
            fleet.check_room(client)
            reserve = estimates.output(ask, client)
            request = Request(
                id=f"{self._run}-{next(self._number)}",
                client=client,
                input_tokens=estimates.prompt(ask),
                max_output=ask.limit or max(reserve, _LONGEST_OUTPUT * ask.places),
                blocks=ask.blocks,
            )
            turn = fleet.enter(request, reserve, places=ask.places)
        except GatewayError:
            tally.refused += 1
            raise
        exchange = Exchange(fleet, gateway.upstreams, estimates, ask, _target(scope), headers, turn, send)
        exchange.abort = (scope.get("extensions") or {}).get(ABORT, {}).get("now")
        gateway.exchanges.add(exchange)
        try:
            await _watched(receive, exchange.run(), exchange.client_left)
        except GatewayError:
            tally.failed += 1
            raise
        finally:
            gateway.exchanges.discard(exchange)

    async def _health(self, send: _Sent) -> None:
        gateway = self._gateway
        alive = any(worker.alive for worker in gateway.fleet.workers.values())
        if gateway.draining or not alive:
            code = "draining" if gateway.draining else "no_worker"
            raise GatewayError(
                UNAVAILABLE, code, "the gateway is about to stop" if gateway.draining else "no worker"
            )
        await send.whole(200, [(b"content-type", b"application/json")], b'{"status":"ok"}')


class _Sent:
    """ASGI's `send`, which remembers how far the response has come."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self.over = False

    async def __call__(self, message: Message) -> None:
        self.started = True
        if not message.get("more_body", True) or (
            message["type"] == "http.response.body" and "more_body" not in message
        ):
            self.over = True
        await self._send(message)

    async def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Send a response in one piece."""
        headers = [*headers, (b"content-length", b"%d" % len(body))]
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self({"type": "http.response.body", "body": body, "more_body": False})

    async def error(self, problem: GatewayError) -> None:
        """Say what went wrong, as far as that is still possible."""
        if not self.started:
            await self.whole(problem.status, problem.headers(), problem.body())
        elif not self.over:
            await self({"type": "http.response.body", "body": problem.event(), "more_body": False})

    async def end(self) -> None:
        """End a response that nobody reads."""
        if not self.started:
            await self.whole(499, [], b"")
        elif not self.over:
            await self({"type": "http.response.body", "body": b"", "more_body": False})


async def _watched(receive: Receive, work: Awaitable[None], left: Callable[[], None] = lambda: None) -> None:
    """Do the work, unless the client goes away: then it is cancelled."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    watch: asyncio.Task[None] | None = None

    async def until_gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        left()
        task.cancel()

    def begin() -> None:
        nonlocal watch
        watch = loop.create_task(until_gone())

    timer = loop.call_later(_WATCH_AFTER_S, begin)
    try:
        await work
    finally:
        timer.cancel()
        if watch is not None:
            watch.cancel()


async def _body(headers: Headers, receive: Receive, most: int) -> bytes:
    """Return the body, and stop reading when it gets too long.

    Raises:
        GatewayError: it is too long.
        ClientGoneError: the client went away.
    """
    too_large = GatewayError(TOO_LARGE, "body_too_large", f"the body is too large: expected at most {most} bytes")
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and int(value) > most:
            raise too_large
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        return bytes(message.get("body", b""))
    data = bytearray()
    while True:
        if message["type"] != "http.request":
            raise ClientGoneError
        data += message.get("body", b"")
        if len(data) > most:
            raise too_large
        if not message.get("more_body", False):
            return bytes(data)
        message = await receive()


def _is_json(headers: Headers) -> bool:
    for name, value in headers:
        if name == b"content-type":
            return _JSON in value.lower()
    return True


def _target(scope: Message) -> str:
    """Return path and query as the client wrote them."""
    raw = scope.get("raw_path") or scope["path"].encode()
    path = raw.partition(b"?")[0].decode("latin-1")
    query = scope.get("query_string", b"")
    return f"{path}?{query.decode('latin-1')}" if query else path


async def _refuse_other(scope: Message, receive: Receive, send: Send) -> None:
    """Answer what is no HTTP request: start and end of the server, or a web socket."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1000})
