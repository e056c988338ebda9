"""Traffic against a running server, and what its clients see of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
from attrs import frozen

from tests.sglang import real_prompts


@frozen
class Call:
    """One request to be sent."""

    client: str
    prompt: Sequence[int]
    output: int
    delay_s: float = 0.0
    priority: int | None = None


@frozen
class Answer:
    """What came back."""

    client: str
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    ttft_s: float

    @property
    def service(self) -> int:
        """Service units by the default weights: computed prompt tokens, and output tokens doubly."""
        return self.prompt_tokens - self.cached_tokens + 2 * self.output_tokens


@frozen
class Run:
    """All answers, and how long they took together."""

    answers: list[Answer]
    seconds: float

    def of(self, client: str) -> list[Answer]:
        """Return a client's answers."""
        return [answer for answer in self.answers if answer.client == client]

    def ttft(self, client: str) -> float:
        """Return a client's mean time to the first token, in seconds."""
        times = [answer.ttft_s for answer in self.of(client)]
        return sum(times) / len(times)

    @property
    def hit_rate(self) -> float:
        """Return the cached share of all prompt tokens."""
        return sum(a.cached_tokens for a in self.answers) / sum(a.prompt_tokens for a in self.answers)

    def service(self) -> dict[str, int]:
        """Return what each client got, in service units."""
        totals: dict[str, int] = {}
        for answer in self.answers:
            totals[answer.client] = totals.get(answer.client, 0) + answer.service
        return totals


def send(url: str, calls: Sequence[Call]) -> Run:
    """Send all calls, each after its delay, and wait for their answers."""
    return asyncio.run(_send_all(url, calls))


def post(url: str, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Any:
    """Send one request and return the reply."""
    return asyncio.run(_post(url + path, body, headers or {}))


def flood_and_light() -> list[Call]:
    """100 requests of A on four documents, and half a second later 8 of B on a document of its own."""
    documents = [real_prompts.prompt(number, 160) for number in range(5)]
    flood = [Call("A", documents[n % 4] + real_prompts.prompt(100 + n, 48), 48) for n in range(100)]
    light = [Call("B", documents[4] + real_prompts.prompt(300 + n, 48), 48, 0.5) for n in range(8)]
    return flood + light


def mixed(count: int, clients: int) -> list[Call]:
    """Requests of several clients, some on a document that all share, of different lengths."""
    shared = real_prompts.prompt(1, 96)
    calls = []
    for n in range(count):
        own = real_prompts.prompt(1000 + n, 24 + 37 * n % 120)
        calls.append(Call(f"c{n % clients}", shared + own if n % 3 else own, 4 + n % 13, 0.002 * n))
    return calls


async def _send_all(url: str, calls: Sequence[Call]) -> Run:
    began = time.monotonic()
    timeout = aiohttp.ClientTimeout(total=300)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        answers = await asyncio.gather(*(answer_to(session, url, call) for call in calls))
    return Run(list(answers), time.monotonic() - began)


async def answer_to(session: aiohttp.ClientSession, url: str, call: Call) -> Answer:
    """Send a call after its delay; return what came back."""
    await asyncio.sleep(call.delay_s)
    body: dict[str, Any] = {
        "model": "tiny",
        "prompt": list(call.prompt),
        "max_tokens": call.output,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if call.priority is not None:
        body["priority"] = call.priority
    usage: dict[str, Any] = {}
    began, first = time.monotonic(), 0.0
    headers = {"x-smg-routing-key": call.client}
    async with session.post(f"{url}/v1/completions", json=body, headers=headers) as reply:
        assert reply.status == 200, await reply.text()
        async for line in reply.content:
            if not line.startswith(b"data: {"):
                continue
            event = json.loads(line[len(b"data: ") :])
            if event["choices"] and not first:
                first = time.monotonic() - began
            usage = event.get("usage") or usage
    details = usage.get("prompt_tokens_details") or {}
    return Answer(
        call.client,
        usage["prompt_tokens"],
        details.get("cached_tokens") or 0,
        usage["completion_tokens"],
        first,
    )


async def _post(url: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> Any:
    async with aiohttp.ClientSession() as session, session.post(url, json=body, headers=headers) as reply:
        assert reply.status == 200, await reply.text()
        return await reply.json() if "json" in reply.content_type else await reply.text()
