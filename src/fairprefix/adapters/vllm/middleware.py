"""`--middleware fairprefix.adapters.vllm.ClientIdMiddleware`: writes into each request whose it is.

The name comes from the configured sources (a header, the API key, a field of the body). Whatever the client itself
wrote into our field is overwritten, or removed when no source names anybody: nobody can pass for somebody else.

Generation requests carry the name in the field `vllm_xargs` of their body, which vLLM hands to its scheduler. For
other requests (pooling, transcription) the request's id carries it, or that nobody is named: what their bodies may
hold of that kind does not count then. A mark that a client wrote into an id is taken off.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any
from uuid import uuid4

from fairprefix.adapters.vllm.client import FIELD, mark, unmark
from fairprefix.adapters.vllm.config import read_config
from fairprefix.adapters.vllm.ranks import HEADER, Routed, rank_router
from fairprefix.core.config import PolicyConfig
from fairprefix.core.request import Client
from fairprefix.hosting import Identity
from fairprefix.hosting.ranks import RankRouter, rank_config

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_GENERATION = re.compile(r"/(chat/completions(/batch)?|completions|responses|messages)/?$")
_REQUEST_ID = b"x-request-id"


class ClientIdMiddleware:
    """An ASGI middleware.

    Args:
        app: what it stands in front of.
        sources: where to look for the client; by default what the server's configuration says.
    """

    def __init__(self, app: App, sources: Sequence[str] | None = None) -> None:
        self._app = app
        self._identity = None if sources is None else _identity(sources)
        rank_config(PolicyConfig())  # a wrong setting ends the server at its start
        self._ranks: RankRouter | None = None
        self._asked = False
        """Whether it is known if ranks are chosen here."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, with the client's name in it."""
        if scope["type"] == "http" and scope["method"] == "POST":
            body = await _read(receive) if _has_json(scope) else None
            parsed = _parse(body)
            if self._identity is None:
                self._identity = _identity(_configured(scope).identity)
            client = _client(self._identity, scope, parsed)
            if _GENERATION.search(scope["path"]):
                if parsed is not None:
                    body = _with_client(parsed, client)
                scope = _with_headers(scope, body, None)
            else:
                scope = _with_headers(scope, body, client)
            if body is not None:
                receive = _replay(body, receive)
            if parsed is not None and _GENERATION.search(scope["path"]) and self._routes(scope):
                await self._route(scope, receive, send, client, parsed)
                return
        await self._app(scope, receive, send)

    def _routes(self, scope: Message) -> bool:
        if not self._asked:
            self._asked = True
            state = getattr(scope.get("app"), "state", None)
            self._ranks = rank_router(getattr(state, "vllm_config", None))
        return self._ranks is not None

    async def _route(
        self, scope: Message, receive: Receive, send: Send, client: Client, body: dict[str, Any]
    ) -> None:
        """Pass a request on to the rank that the router chooses, and watch its answer."""
        assert self._ranks is not None
        routed = Routed(self._ranks, client, body)

        async def watched(message: Message) -> None:
            routed.sent(message)
            await send(message)

        try:
            if routed.rank is not None:
                others = [pair for pair in scope["headers"] if pair[0].lower() != HEADER]
                scope = {**scope, "headers": [*others, (HEADER, b"%d" % routed.rank)]}
            await self._app(scope, receive, watched)
        finally:
            routed.over()


def _identity(sources: Sequence[str]) -> Identity:
    return Identity(sources, default="")


def _configured(scope: Message) -> PolicyConfig:
    """Return the configuration of the server that this middleware is part of."""
    state = getattr(scope.get("app"), "state", None)
    return read_config(getattr(state, "vllm_config", None))


def _client(identity: Identity, scope: Message, body: dict[str, Any] | None) -> Client:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return identity.resolve(
        headers=headers,
        body=body or {},
        api_key=token.strip() if scheme.lower() == "bearer" else headers.get("x-api-key"),
    )


def _has_json(scope: Message) -> bool:
    kind = next(
        (value for name, value in scope["headers"] if name.lower() == b"content-type"), b"application/json"
    )
    return b"json" in kind.lower()


async def _read(receive: Receive) -> bytes | None:
    """Return the whole body; None when the client went away before it was complete."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _parse(body: bytes | None) -> dict[str, Any] | None:
    """Return a body that is a JSON object; anything else is for vLLM to refuse."""
    try:
        parsed = json.loads(body or b"")
    except (ValueError, RecursionError):
        return None
    return parsed if isinstance(parsed, dict) else None


def _with_client(body: dict[str, Any], client: Client) -> bytes:
    extra = body.get("vllm_xargs")
    if isinstance(extra, dict):
        extra.pop(FIELD, None)
    if client and (extra is None or isinstance(extra, dict)):
        body["vllm_xargs"] = {**(extra or {}), FIELD: client}
    if isinstance(body.get("request_id"), str):
        body["request_id"] = unmark(body["request_id"])
    return json.dumps(body).encode()


def _with_headers(scope: Message, body: bytes | None, client: Client | None) -> Message:
    """Return the scope with the body's length, and with a request id that carries `client` ("": nobody).

    With None it carries nothing: the body does.
    """
    headers = []
    request_id = ""
    for name, value in scope["headers"]:
        if name.lower() == _REQUEST_ID:
            request_id = unmark(value.decode("latin-1"))
        elif name.lower() != b"content-length" or body is None:
            headers.append((name, value))
    if body is not None and not _chunked(scope):
        headers.append((b"content-length", str(len(body)).encode()))
    if client is not None:
        request_id = mark(client, request_id or uuid4().hex)
    if request_id:
        headers.append((_REQUEST_ID, request_id.encode("latin-1")))
    return {**scope, "headers": headers}


def _chunked(scope: Message) -> bool:
    return any(name.lower() == b"transfer-encoding" for name, _ in scope["headers"])


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the body first, and then whatever comes, such as the news of a disconnect."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay
