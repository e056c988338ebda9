"""Connections to workers: pools that are kept open, and what can go wrong on them."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import AsyncIterator, Iterable
from urllib.parse import quote

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from fairprefix.core.errors import ConfigError, FairprefixError
from fairprefix.gateway.config import GatewayConfig, WorkerConfig
from fairprefix.gateway.errors import Headers

_HOP_BY_HOP = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection"),
        *(b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    )
)
# Answers have to be readable, and lengths are those of the bodies that are sent.
_NOT_SENT = _HOP_BY_HOP | {b"host", b"content-length", b"accept-encoding", b"expect"}
_NOT_RETURNED = _HOP_BY_HOP | {b"content-length", b"date", b"server"}
_LARGE = 1 << 20
_IDLE_S = 4.0
"""Less than the usual servers' keep-alive of five seconds, or they would close what is about to be used."""


class UpstreamError(FairprefixError):
    """A worker did not answer, or stopped in the middle.

    Args:
        why: what happened, without addresses or contents.
        gone: whether the worker is not there at all.
    """

    def __init__(self, why: str, *, gone: bool = False) -> None:
        super().__init__(why)
        self.gone = gone


class Answer:
    """A worker's answer, whose head has come."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status: int = response.status
        self.headers: Headers = [
            (lowered, value)
            for name, value in response.raw_headers
            if (lowered := name.lower()) not in _NOT_RETURNED
        ]
        self.is_stream: bool = response.content_type == "text/event-stream"
        self._response = response

    async def whole(self) -> bytes:
        """Return the whole body.

        Raises:
            UpstreamError: it broke off.
        """
        try:
            return await self._response.read()
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as problem:
            raise explained(problem) from problem

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes.

        Raises:
            UpstreamError: it broke off.
        """
        try:
            async for piece in self._response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as problem:
            raise explained(problem) from problem

    def close(self) -> None:
        """Break the connection off, unless the whole answer has come: the worker need not go on."""
        self._response.close()


class Upstream:
    """All connections to one worker.

    Args:
        worker: the operator's settings.
        limits: the gateway's.
        hides_authorization: whether what clients show is for the gateway alone.
        naming: headers that name clients: they are the gateway's to set.

    Raises:
        ConfigError: the worker's key is not where it should be.
    """

    def __init__(
        self,
        worker: WorkerConfig,
        limits: GatewayConfig,
        *,
        hides_authorization: bool,
        naming: Iterable[bytes] = (),
    ) -> None:
        self._url = worker.url
        self._urls: dict[str, URL] = {}
        self._own: list[tuple[str, str]] = []
        self._fair = worker.fairprefix
        if worker.api_key_env:
            key = os.environ.get(worker.api_key_env, "")
            if not key:
                raise ConfigError(f"worker {worker.name}: api_key_env: {worker.api_key_env} is not set")
            self._own = [("authorization", f"Bearer {key}")]
        hidden = {b"authorization"} if hides_authorization or self._own else set()
        self._not_sent = _NOT_SENT | hidden | frozenset(naming)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_S, enable_cleanup_closed=False)
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept", "Content-Type"),
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=limits.connect_timeout_s, sock_read=limits.read_timeout_s
            ),
            read_bufsize=1 << 18,
        )

    async def send(
        self, method: str, target: str, headers: Headers, body: bytes | None, client: str = ""
    ) -> Answer:
        """Send a request, and wait for the head of the answer.

        Args:
            method: HTTP's.
            target: path and query.
            headers: the client's; those that are none of the worker's business are left out.
            body: the whole of it.
            client: whose it is, for a worker that wants to know.

        Raises:
            UpstreamError: there is no answer.
        """
        sent = CIMultiDict(
            [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in headers
                if name not in self._not_sent
            ]
        )
        sent.extend(self._own)
        if client and self._fair:
            sent.extend(carried(self._fair, client))
        # A large body goes out piece by piece, so that others get their turn meanwhile.
        data = io.BytesIO(body) if body is not None and len(body) > _LARGE else body
        try:
            response = await self._session.request(
                method, self._to(target), headers=sent, data=data, allow_redirects=False
            )
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as problem:
            raise explained(problem) from problem
        return Answer(response)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    def _to(self, target: str) -> URL:
        url = self._urls.get(target)
        if url is None:
            url = URL(self._url + target, encoded=True)
            if len(self._urls) < 64:  # noqa: PLR2004 (the usual endpoints; queries are endless)
                self._urls[target] = url
        return url


def carried(fair: str, client: str) -> list[tuple[str, str]]:
    """Return the headers in which an engine that runs fairprefix is told of a client.

    A name that no header can hold (beyond Latin-1) is written in percent-encoded UTF-8.
    """
    try:
        client.encode("latin-1")
    except UnicodeEncodeError:
        client = quote(client)
    name = "x-smg-routing-key" if fair == "sglang" else "x-llm-d-inference-fairness-id"
    return [(name, client)]


def explained(problem: BaseException) -> UpstreamError:
    """Return what happened in words that hold nothing of a request."""
    if isinstance(problem, aiohttp.ClientConnectorError):
        return UpstreamError("it refuses connections", gone=True)
    if isinstance(problem, asyncio.TimeoutError):
        return UpstreamError("it did not answer in time")
    if isinstance(problem, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError | OSError):
        return UpstreamError("the connection broke")
    return UpstreamError(f"its answer is no valid HTTP ({type(problem).__name__})")
