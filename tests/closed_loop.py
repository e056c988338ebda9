"""Closed-loop clients, for tests of fleets: each loop asks, waits for the answer, and asks again."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from statistics import median

from attrs import frozen


@frozen
class Stream:
    """Some identical loops of one client."""

    client: str
    loops: int
    families: int
    """Prompts of the client begin in so many ways."""
    prefix_tokens: int
    own_tokens: int
    output_tokens: int


@frozen
class Outcome:
    """What an engine, or whoever stands in front of it, answered."""

    output_tokens: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    where: int = 0
    """Process that answered, where that is known."""
    problem: str = ""


@frozen
class Answer(Outcome):
    """What a request came to."""

    client: str = ""
    began_s: float = 0.0
    latency_s: float = 0.0

    @property
    def ended_s(self) -> float:
        """Time of the answer."""
        return self.began_s + self.latency_s


Ask = Callable[[Stream, int, int], Awaitable[Outcome]]
"""Sends a client's request of that family, with that number, and returns what came."""


def varied(tokens: int, number: int) -> int:
    """Return an output length that is `tokens` on average, and up to a quarter more or less.

    Requests of one length that begin together end together: then a worker's places become free all at once, again
    and again, and how long a light client waits is a matter of chance.
    """
    return tokens * (75 + number * 31 % 51) // 100


async def load(streams: Sequence[Stream], seconds: float, ask: Ask) -> list[Answer]:
    """Let clients ask for so long; return their answers, those that come later included."""
    answers: list[Answer] = []
    number = itertools.count()
    until = time.monotonic() + seconds

    async def loop(stream: Stream, place: int) -> None:
        turn = place
        while (began := time.monotonic()) < until:
            found = await ask(stream, turn % stream.families, next(number))
            turn += 1
            answers.append(
                Answer(
                    found.output_tokens, found.input_tokens, found.cached_tokens, found.where, found.problem,
                    stream.client, began, time.monotonic() - began,
                )
            )  # fmt: skip

    await asyncio.gather(*(loop(stream, place) for stream in streams for place in range(stream.loops)))
    return answers


def p50(answers: Sequence[Answer], client: str) -> float:
    """Return the median latency of a client in seconds."""
    return median(one.latency_s for one in answers if one.client == client)


def hit_rate(answers: Sequence[Answer]) -> float:
    """Return the share of prompt tokens that were cached."""
    return sum(one.cached_tokens for one in answers) / sum(one.input_tokens for one in answers)


def output_rate(answers: Sequence[Answer], *, warm_s: float = 2.0) -> float:
    """Return output tokens per second while the clients asked, less the beginning.

    Many requests finish at a time, so that counting them at the ends of an interval says little. The tokens of
    each are spread over the end of its latency, at the pace of the quickest answer: what falls into the interval
    counts.
    """
    began = min(one.began_s for one in answers) + warm_s
    ended = max(one.began_s for one in answers)
    pace_s = min(one.latency_s / one.output_tokens for one in answers if one.output_tokens)
    tokens = 0.0
    for one in answers:
        length = one.output_tokens * pace_s
        inside = min(one.ended_s, ended) - max(one.ended_s - length, began)
        tokens += one.output_tokens * max(inside, 0.0) / length if length else 0.0
    return tokens / (ended - began)
