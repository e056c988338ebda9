"""Clients of a server: the official one, many at once."""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Sequence

from attrs import define, field
from openai import AsyncOpenAI

from tests.vllm.server import Server

MODEL = "tiny"
_PAUSE_S = 0.15
"""Between requests of a light client."""
_FLOODED_S = 60


def client(url: str, name: str) -> AsyncOpenAI:
    """Return a client that a gateway has named."""
    return AsyncOpenAI(
        base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300, default_headers={"X-Tenant-ID": name}
    )


@define
class Answer:
    """What came back for one request."""

    first: float = 0.0
    """Seconds from the request to the first token; 0 where it is not known."""
    tokens: int = 0
    prompt: int = 0
    cached: int = 0


@define
class Result:
    """What came back for a flood and a light client."""

    flood: Sequence[Answer]
    light: Sequence[Answer]
    seconds: float
    steps: int = 0
    """Of the engine."""
    hit_rate: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        answers = [*self.flood, *self.light]
        self.hit_rate = sum(a.cached for a in answers) / sum(a.prompt for a in answers)

    @property
    def light_ttft(self) -> float:
        """The light client's mean time to the first token, in seconds."""
        return statistics.mean(answer.first for answer in self.light)

    @property
    def tokens(self) -> int:
        """Tokens that were computed for somebody."""
        return sum(a.tokens + a.prompt - a.cached for a in [*self.flood, *self.light])


async def ask(server: AsyncOpenAI, prompt: str, tokens: int) -> Answer:
    """Send one request, streaming."""
    began, answer = time.monotonic(), Answer()
    stream = await server.completions.create(
        model=MODEL,
        prompt=prompt,
        max_tokens=tokens,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
    )
    async for chunk in stream:
        if chunk.choices and not answer.first:
            answer.first = time.monotonic() - began
        if chunk.usage:
            details = chunk.usage.prompt_tokens_details
            answer.tokens, answer.prompt = chunk.usage.completion_tokens, chunk.usage.prompt_tokens
            answer.cached = (details and details.cached_tokens) or 0
    return answer


async def ask_for_all(server: AsyncOpenAI, prompt: str, tokens: int) -> Answer:
    """Send one request whose answer comes in one piece: this costs the sender little."""
    whole = await server.completions.create(
        model=MODEL, prompt=prompt, max_tokens=tokens, extra_body={"ignore_eos": True}
    )
    assert whole.usage
    details = whole.usage.prompt_tokens_details
    cached = (details and details.cached_tokens) or 0
    return Answer(0.0, whole.usage.completion_tokens, whole.usage.prompt_tokens, cached)


async def flood_and_light(
    server: Server, salt: str, *, requests: int = 160, light: int = 8, tokens: int = 48, queued: int = 0
) -> Result:
    """Let one client send everything at once, and another one a request now and then.

    Sending takes a busy machine a while: the other one begins when there is a queue.

    Args:
        server: the server.
        salt: makes the prompts new to its cache.
        requests: of the client that floods.
        light: requests of the other one.
        tokens: of each answer.
        queued: requests of the flood that wait in the server when the light one begins.
    """
    crowd, modest = client(server.url, "flood"), client(server.url, "light")
    shared = f"{salt} " + "You are a helpful assistant. " * 8
    began = time.monotonic()
    questions = [f"{shared} Question {n}: why?" for n in range(requests)]
    flood = [asyncio.create_task(ask_for_all(crowd, question, tokens)) for question in questions]
    await asyncio.sleep(2 * _PAUSE_S)
    while await asyncio.to_thread(server.total, "vllm:num_requests_waiting") < queued:
        assert time.monotonic() - began < _FLOODED_S, "the server works faster than we can send"
        await asyncio.sleep(_PAUSE_S)
    answers = []
    for n in range(light):
        answers.append(asyncio.create_task(ask(modest, f"{shared} Please answer {n}.", tokens)))
        await asyncio.sleep(_PAUSE_S)
    return Result(await asyncio.gather(*flood), await asyncio.gather(*answers), time.monotonic() - began)


async def _hang_on(url: str, requests: int) -> None:
    """Open streams, and say so when all of them have begun."""
    server = client(url, "killed")
    started = []

    async def read(n: int) -> None:
        stream = await server.completions.create(
            model=MODEL, prompt=f"Forever {n}", max_tokens=900, stream=True, extra_body={"ignore_eos": True}
        )
        started.append(n)
        async for _ in stream:
            if n == 0:
                sys.stdout.write("reading\n")
                sys.stdout.flush()

    await asyncio.gather(*(read(n) for n in range(requests)))


if __name__ == "__main__":
    asyncio.run(_hang_on(sys.argv[1], int(sys.argv[2])))
