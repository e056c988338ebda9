"""Clients of a server: the official one, many at once."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from attrs import asdict, define, field
from openai import AsyncOpenAI

MODEL = "tiny"
_PAUSE_S = 0.15
"""Between requests of a light client."""


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
    """Send one request whose answer comes in one piece: this costs sender and front little."""
    whole = await server.completions.create(
        model=MODEL, prompt=prompt, max_tokens=tokens, extra_body={"ignore_eos": True}
    )
    assert whole.usage
    details = whole.usage.prompt_tokens_details
    cached = (details and details.cached_tokens) or 0
    return Answer(0.0, whole.usage.completion_tokens, whole.usage.prompt_tokens, cached)


async def flood_and_light(url: str, salt: str, *, requests: int = 48, light: int = 8, tokens: int = 64) -> Result:
    """Let one client send everything at once, and when the rest is a queue, another one a request now and then.

    The flood is a process of its own: sending it takes seconds, in which the other client could not send either.
    Its first answer tells that the server's front is through with it, and that the engine is what it waits for.

    Args:
        url: of the server.
        salt: makes the prompts new to its cache.
        requests: of the client that floods.
        light: requests of the other one.
        tokens: of each answer: so many that the engine is what is waited for.
    """
    shared = f"{salt} " + "You are a helpful assistant. " * 8
    began = time.monotonic()
    flood = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.vllm.load", "flood", url, shared, str(requests), str(tokens)),
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
    )
    assert flood.stdout
    await flood.stdout.readline()
    answers = []
    async with client(url, "light") as modest:
        for n in range(light):
            answers.append(asyncio.create_task(ask(modest, f"{shared} Please answer {n}.", tokens)))
            await asyncio.sleep(_PAUSE_S)
        told, _ = await flood.communicate()
        whole = [Answer(**answer) for answer in json.loads(told)]
        return Result(whole, await asyncio.gather(*answers), time.monotonic() - began)


async def _flood(url: str, shared: str, requests: int, tokens: int) -> None:
    """Ask many questions at once, say when the first has its answer, and tell what came back."""
    async with client(url, "flood") as crowd:
        asked = (ask_for_all(crowd, f"{shared} Question {n}: why?", tokens) for n in range(requests))
        answers = [asyncio.create_task(question) for question in asked]
        await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        sys.stdout.write("answered\n")
        sys.stdout.flush()
        sys.stdout.write(json.dumps([asdict(answer) for answer in await asyncio.gather(*answers)]))


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
    if sys.argv[1] == "flood":
        asyncio.run(_flood(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])))
    else:
        asyncio.run(_hang_on(sys.argv[2], int(sys.argv[3])))
