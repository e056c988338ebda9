"""Any endpoint that speaks OpenAI's completions API."""

from __future__ import annotations

import json
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fairprefix.bench.run import Reply, SendError
from fairprefix.core.errors import FairprefixError
from fairprefix.core.request import Client
from fairprefix.hosting.extras import need

if TYPE_CHECKING:
    import httpx

CLIENT_HEADER = "x-llm-d-inference-fairness-id"
_OK = 200
_SHOWN = 200
"""Characters of an error that are shown."""


class BenchError(FairprefixError):
    """An endpoint cannot be measured; the message says what to do."""


class Endpoint:
    """Sends completions and reads them as they stream.

    The client's name goes into the header that gateways take it from, and into OpenAI's `user` field. Answers have
    the wanted length where the engine understands `ignore_eos` (vLLM, SGLang, ours), else at most that.

    Args:
        url: the base, with or without /v1.
        model: its name; None asks the endpoint.
        key: the API key, if it wants one.
        timeout_s: for one call.
        transport: how requests travel; None: over the network.
    """

    characters_per_token: float = 4.0

    def __init__(
        self,
        url: str,
        *,
        model: str | None = None,
        key: str | None = None,
        timeout_s: float = 600.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        library = need("httpx", "bench")
        self._errors: type[Exception] = library.HTTPError
        base = url.rstrip("/")
        base = base if base.endswith("/v1") else f"{base}/v1"
        headers = {"authorization": f"Bearer {key}"} if key else {}
        limits = library.Limits(max_connections=None, max_keepalive_connections=None)
        self._http: httpx.AsyncClient = library.AsyncClient(
            base_url=base, headers=headers, timeout=timeout_s, limits=limits, transport=transport
        )
        self._model = model
        self.url = base

    async def __aenter__(self) -> Endpoint:  # noqa: PYI034  # Self: from Python 3.11 on
        """Find out the model, and thereby whether anybody is there.

        Raises:
            BenchError: nobody is, or what is there serves no model.
        """
        if self._model is None:
            try:
                listed = (await self._http.get("/models")).json()
                self._model = listed["data"][0]["id"]
            except self._errors as problem:
                await self._http.aclose()
                raise BenchError(f"--url {self.url}: nobody answers there ({problem})") from problem
            except (KeyError, IndexError, TypeError, ValueError) as problem:
                await self._http.aclose()
                raise BenchError(
                    f"--url {self.url}: lists no models where OpenAI's API does: give one with --model"
                ) from problem
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def send(self, client: Client, prompt: str, max_tokens: int) -> Reply:
        """Ask, and wait for the whole answer."""
        body = {
            "model": self._model,
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "user": client,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        try:
            return await self._stream(body, client)
        except self._errors as problem:
            raise SendError(f"{type(problem).__name__}: {problem}"[:_SHOWN]) from problem

    async def _stream(self, body: dict[str, Any], client: Client) -> Reply:
        start = time.perf_counter()
        first: float | None = None
        pieces: list[str] = []
        usage: dict[str, Any] = {}
        async with self._http.stream("POST", "/completions", json=body, headers={CLIENT_HEADER: client}) as answer:
            if answer.status_code != _OK:
                text = (await answer.aread()).decode("utf-8", "replace")
                raise SendError(f"HTTP {answer.status_code}: {text}"[:_SHOWN])
            async for line in answer.aiter_lines():
                if not line.startswith("data:") or line.endswith("[DONE]"):
                    continue
                chunk = _chunk(line)
                usage = chunk.get("usage") or usage
                for choice in chunk.get("choices") or ():
                    first = first if first is not None else time.perf_counter() - start
                    pieces.append(choice.get("text") or "")
        latency = time.perf_counter() - start
        if not usage:
            raise SendError("the endpoint reports no usage in streams (stream_options.include_usage)")
        details = usage.get("prompt_tokens_details") or {}
        return Reply(
            "".join(pieces),
            int(usage["prompt_tokens"]),
            int(details.get("cached_tokens") or 0),
            int(usage["completion_tokens"]),
            latency if first is None else first,
            latency,
        )


def _chunk(line: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(line.removeprefix("data:"))
    except json.JSONDecodeError as problem:
        raise SendError(f"a chunk that is not JSON: {line}"[:_SHOWN]) from problem
    if "error" in found:
        raise SendError(f"{found['error']}"[:_SHOWN])
    return found
