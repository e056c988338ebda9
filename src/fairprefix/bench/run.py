"""Drives a workload through a real engine in closed loop, and takes down what comes back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Protocol

from attrs import define, field, frozen

from fairprefix.bench.texts import Texts
from fairprefix.core.cost import CostWeights
from fairprefix.core.request import Client
from fairprefix.sim.metrics import NS_PER_S, latency_summary
from fairprefix.sim.programfigures import program_figures
from fairprefix.workload import Call, Part, Workload


@frozen
class Reply:
    """What an engine answered."""

    text: str
    input_tokens: int
    """Length of the prompt as the engine counts."""
    cached_tokens: int
    """How much of it the engine had cached; 0 where it does not say."""
    output_tokens: int
    first_token_s: float
    """Seconds from the call to the first token."""
    latency_s: float


class SendError(Exception):
    """A call failed; the message says how."""


class Target(Protocol):
    """An engine."""

    characters_per_token: float

    async def send(self, client: Client, prompt: str, max_tokens: int) -> Reply:
        """Ask, and wait for the whole answer.

        Raises:
            SendError: there is none.
        """
        ...


@define(eq=False)
class BenchRecord:
    """What happened, in the terms of the simulator's figures."""

    client_view: dict[Client, list[tuple[int, int]]] = field(factory=dict)
    timeline: dict[Client, list[tuple[int, int]]] = field(factory=dict)
    finished_ns: dict[int, int] = field(factory=dict)
    latencies_ns: dict[int, int] = field(factory=dict)
    replies: list[Reply] = field(factory=list)
    failures: list[str] = field(factory=list)

    def charge(self, client: Client, at: int, reply: Reply, cost: CostWeights) -> None:
        """Count a reply, at its end."""
        extend = reply.input_tokens - reply.cached_tokens
        for points, prompt in ((self.client_view, reply.input_tokens), (self.timeline, extend)):
            total = points.setdefault(client, [])
            total.append((at, (total[-1][1] if total else 0) + cost.service(prompt, reply.output_tokens)))


async def drive(
    workload: Workload,
    target: Target,
    texts: Texts,
    *,
    concurrency: int = 256,
    on_reply: Callable[[int], None] = lambda _count: None,
) -> dict[str, Any]:
    """Run a workload in real time and return its figures, with the names of the virtual engine's.

    A program whose call fails ends there; the failure is counted and told.

    Args:
        workload: the programs.
        target: the engine.
        texts: gives the parts their text.
        concurrency: the most calls that are out at once.
        on_reply: hears how many calls have been answered.
    """
    run = _Drive(workload, target, texts, concurrency, on_reply)
    await asyncio.gather(*(run.program(number) for number in range(len(workload.programs))))
    return run.figures()


class _Drive:
    """One run."""

    def __init__(
        self,
        workload: Workload,
        target: Target,
        texts: Texts,
        concurrency: int,
        on_reply: Callable[[int], None],
    ) -> None:
        self._workload, self._target, self._texts = workload, target, texts
        self._slots = asyncio.Semaphore(concurrency)
        self._on_reply = on_reply
        self._cost = CostWeights()
        self._record = BenchRecord()
        self._start = time.perf_counter_ns()

    def _now(self) -> int:
        return time.perf_counter_ns() - self._start

    async def program(self, number: int) -> None:
        """Run one program from its arrival to its end."""
        program = self._workload.programs[number]
        await asyncio.sleep(max(0.0, (program.arrival_ns - self._now()) / NS_PER_S))
        answers: dict[int, str] = {}
        calls: list[asyncio.Task[Reply]] = []
        for call in program.calls:
            before = [calls[earlier] for earlier in call.after]
            calls.append(asyncio.create_task(self._call(program.client, call, before, answers)))
        try:
            replies = await asyncio.gather(*calls)
        except SendError as problem:
            self._record.failures.append(str(problem))
            for task in calls:
                task.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            return
        now = self._now()
        self._record.finished_ns[number] = now
        latency = now - program.arrival_ns
        if self._workload.judged_by == "first_token":
            latency -= round((replies[-1].latency_s - replies[-1].first_token_s) * NS_PER_S)
        self._record.latencies_ns[number] = latency

    async def _call(
        self, client: Client, call: Call, before: list[asyncio.Task[Reply]], answers: dict[int, str]
    ) -> Reply:
        if before:
            await asyncio.gather(*before)
        await asyncio.sleep(call.delay_ns / NS_PER_S)
        prompt = "\n".join(answers.get(part.id) or self._text(part) for part in call.prompt)
        async with self._slots:
            reply = await self._target.send(client, prompt, call.output.tokens)
        answers[call.output.id] = reply.text
        self._record.charge(client, self._now(), reply, self._cost)
        self._record.replies.append(reply)
        self._on_reply(len(self._record.replies))
        return reply

    def _text(self, part: Part) -> str:
        return self._texts.of(part, max(1, round(part.tokens * self._target.characters_per_token)))

    def figures(self) -> dict[str, Any]:
        """Return what came out."""
        record = self._record
        replies = record.replies
        prompts = sum(reply.input_tokens for reply in replies)
        tpot = [(r.latency_s - r.first_token_s) / (r.output_tokens - 1) for r in replies if r.output_tokens > 1]
        return {
            **program_figures(self._workload, record, self._now()),
            "requests": len(replies),
            "failed": len(record.failures),
            "failures": sorted(set(record.failures))[:5],
            "total_input": prompts,
            "total_output": sum(reply.output_tokens for reply in replies),
            "hit_rate": round(sum(r.cached_tokens for r in replies) / prompts, 6) if prompts else 0.0,
            **latency_summary("ttft", [reply.first_token_s * NS_PER_S for reply in replies]),
            **latency_summary("tpot", [seconds * NS_PER_S for seconds in tpot]),
            **latency_summary("e2el", [reply.latency_s * NS_PER_S for reply in replies]),
        }
