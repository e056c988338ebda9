"""What costs no tokens, or is unknown: passed on to any worker that is alive, past the queues."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fairprefix.gateway.errors import BAD_GATEWAY, GatewayError, Headers
from fairprefix.gateway.gateway import Gateway
from fairprefix.gateway.upstream import Answer, UpstreamError

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]


async def relay(gateway: Gateway, method: str, target: str, headers: Headers, body: bytes, send: Send) -> None:
    """Pass a request on, and its answer back.

    Raises:
        GatewayError: no worker answers.
    """
    answer = await _answer(gateway, method, target, headers, body)
    try:
        await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
        async for piece in answer.pieces():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    except UpstreamError as problem:
        raise GatewayError(BAD_GATEWAY, "worker_failed", f"the worker failed in the middle: {problem}") from None
    finally:
        answer.close()


async def _answer(gateway: Gateway, method: str, target: str, headers: Headers, body: bytes) -> Answer:
    """Return the first answer; what may be repeated is tried with one worker after the other."""
    tries = 1 + (gateway.settings.gateway.retries if method in ("GET", "HEAD", "OPTIONS") else 0)
    for left in reversed(range(tries)):
        worker = gateway.fleet.any_alive()
        try:
            return await gateway.upstreams[worker.name].send(method, target, headers, body or None)
        except UpstreamError as problem:
            gateway.fleet.failed(worker, str(problem), gone=problem.gone)
            if not left:
                raise GatewayError(BAD_GATEWAY, "worker_failed", f"the worker failed: {problem}") from None
    raise AssertionError("unreachable: the last try returns or raises")
