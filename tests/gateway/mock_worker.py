"""A worker that takes the time of an engine and computes nothing: first come, first served, batched, with a cache.

    python tests/gateway/mock_worker.py --port 0 --slots 8 --step-ms 10 --prefill-us 20

It runs at most `slots` requests at once. A step takes `step-ms`, and `prefill-us` for each prompt token in it that
is not cached; each running request gets one token a step. Prompts are words, a word is a token; what was computed
stays cached in blocks of 16 tokens, least recently used first out. Answers are words, too: `tok` as often as told.
Whole answers (no streams) come in several parts for `n` and for a list of prompts, each of which runs by itself.

Fields of a request make it misbehave: `mock_status` (answers with it), `mock_break` (the connection breaks after
so many tokens), `mock_no_usage`. After GET /mock/health/STATUS /health answers with that, and with 0 never.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

import uvicorn

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
BLOCK = 16


class Sequence:
    """A request at the engine."""

    def __init__(self, tokens: list[str], wanted: int) -> None:
        self.tokens = tokens
        self.wanted = wanted
        self.cached = 0
        self.to_prefill = 0
        self.made = 0
        self.gone = False
        self.news = asyncio.Event()


class Engine:
    """Continuous batching on the wall clock."""

    def __init__(self, *, slots: int, step_s: float, prefill_s: float, cache_blocks: int, chunk: int) -> None:
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []
        self.slots, self.step_s, self.prefill_s, self.chunk = slots, step_s, prefill_s, chunk
        self.cache_blocks = cache_blocks
        self.cache: OrderedDict[int, None] = OrderedDict()
        self.prompt_tokens = self.cached_tokens = self.output_tokens = self.most_running = 0
        self._work = asyncio.Event()

    def add(self, sequence: Sequence) -> None:
        """Queue a request."""
        self.waiting.append(sequence)
        self._work.set()

    async def run(self) -> None:
        """Step for ever."""
        due = time.monotonic()
        while True:
            if not self.running and not self.waiting:
                self._work.clear()
                await self._work.wait()
                due = time.monotonic()
            due += self._step()
            await asyncio.sleep(max(due - time.monotonic(), 0))

    def _step(self) -> float:
        """Carry out a step; return the seconds that it takes."""
        self.running = [one for one in self.running if one.made < one.wanted and not one.gone]
        while self.waiting and len(self.running) < self.slots:
            one = self.waiting.popleft()
            if not one.gone:
                self._start(one)
                self.running.append(one)
        self.most_running = max(self.most_running, len(self.running))
        budget = self.chunk
        for one in self.running:
            part = min(one.to_prefill, budget)
            one.to_prefill -= part
            budget -= part
            if not one.to_prefill:
                one.made += 1
                self.output_tokens += 1
            one.news.set()
        return self.step_s + (self.chunk - budget) * self.prefill_s if self.running else 0.0

    def _start(self, one: Sequence) -> None:
        chain, matching, matched = 0, True, 0
        for start in range(0, len(one.tokens) - BLOCK + 1, BLOCK):
            chain = hash((chain, *one.tokens[start : start + BLOCK]))
            matching = matching and chain in self.cache
            matched += matching
            self.cache[chain] = None
            self.cache.move_to_end(chain)
        while len(self.cache) > self.cache_blocks:
            self.cache.popitem(last=False)
        one.cached = min(matched * BLOCK, len(one.tokens) - 1)
        one.to_prefill = len(one.tokens) - one.cached
        self.prompt_tokens += len(one.tokens)
        self.cached_tokens += one.cached


class App:
    """OpenAI's endpoints around it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.health = 200
        self.seen: list[dict[str, Any]] = []
        """Headers and bodies of the latest requests, for tests."""

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
        """Serve one request."""
        path = scope["path"]
        raw = b""
        while True:
            message = await receive()
            raw += message.get("body", b"")
            if not message.get("more_body"):
                break
        if path in ("/v1/completions", "/v1/chat/completions"):
            body = json.loads(raw)
            self.seen = [
                *self.seen[-20:],
                {"headers": _headers(scope), "body": body if len(raw) < 1 << 14 else {}},
            ]
            await self._generate(body, "chat" in path, receive, send)
        elif path.startswith(("/health", "/mock/health/")):
            await self._health(path, send)
        elif path == "/metrics":
            await _whole(send, 200, "".join(self._metrics()))
        elif path == "/v1/models":
            await _whole(send, 200, {"object": "list", "data": [{"id": "mock", "object": "model"}]})
        elif path == "/mock":
            names = ("prompt_tokens", "cached_tokens", "output_tokens", "most_running")
            await _whole(send, 200, {name: getattr(self.engine, name) for name in names} | {"seen": self.seen})
        elif path == "/v1/embeddings":
            await _whole(send, 200, {"data": [], "usage": {"prompt_tokens": 7, "total_tokens": 7}})
        else:
            await _whole(send, 200, {"path": path, "method": scope["method"], "bytes": len(raw)})

    async def _health(self, path: str, send: Send) -> None:
        if path != "/health":
            self.health = int(path.rpartition("/")[2])
            await _whole(send, 200, {})
            return
        while not self.health:  # noqa: ASYNC110 (whoever asks gives up)
            await asyncio.sleep(0.1)
        await _whole(send, self.health, {})

    def _metrics(self) -> Iterator[str]:
        for state, value in (("running", len(self.engine.running)), ("waiting", len(self.engine.waiting))):
            name = f"vllm:num_requests_{state}"
            yield f'# TYPE {name} gauge\n{name}{{model_name="mock"}} {value}.0\n'

    async def _generate(
        self,
        body: dict[str, Any],
        chat: bool,  # noqa: FBT001
        receive: Callable[[], Awaitable[Message]],
        send: Send,
    ) -> None:
        if body.get("mock_status"):
            await _whole(send, body["mock_status"], {"error": {"message": "as you wish"}})
            return
        given = " ".join(str(m["content"]) for m in body["messages"]) if chat else body["prompt"]
        prompts = given if isinstance(given, list) and given and isinstance(given[0], str) else [str(given)]
        wanted, answers = body.get("max_tokens") or 16, body.get("n") or 1
        all = [Sequence(text.split() or ["empty"], wanted) for text in prompts for _ in range(answers)]
        watch = asyncio.create_task(_until_gone(all, receive))
        for one in all:
            self.engine.add(one)
        try:
            if body.get("stream"):
                await self._stream(all[0], body, chat, send)
            else:
                await self._answer(all, answers, body, chat, send)
        finally:
            for one in all:
                one.gone = True
            watch.cancel()

    async def _answer(
        self,
        all: list[Sequence],
        answers: int,
        body: dict[str, Any],
        chat: bool,  # noqa: FBT001
        send: Send,
    ) -> None:
        for one in all:
            while one.made < one.wanted and not one.gone:
                await one.news.wait()
                one.news.clear()
        choices: list[dict[str, Any]] = []
        for index, one in enumerate(all):
            text = "tok " * one.made
            said = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            choices.append({"index": index, "finish_reason": "length"} | said)
        kind = "chat.completion" if chat else "text_completion"
        answer = {"id": "x", "object": kind, "created": 1, "model": "mock", "choices": choices}
        # A prompt counts once, however many answers there are to it.
        usage = _usage(all[::answers], sum(one.made for one in all))
        await _whole(send, 200, answer if body.get("mock_no_usage") else answer | {"usage": usage})

    async def _stream(self, one: Sequence, body: dict[str, Any], chat: bool, send: Send) -> None:  # noqa: FBT001
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        asked = bool((body.get("stream_options") or {}).get("include_usage"))
        kind = "chat.completion.chunk" if chat else "text_completion"
        base = {"id": "x", "object": kind, "created": 1, "model": "mock"} | ({"usage": None} if asked else {})
        if chat:
            await _event(send, base | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        sent = 0
        while sent < one.wanted and not one.gone:
            await one.news.wait()
            one.news.clear()
            while sent < one.made:
                sent += 1
                choice: dict[str, Any] = {"index": 0, "finish_reason": "length" if sent == one.wanted else None}
                choice |= {"delta": {"content": "tok "}} if chat else {"text": "tok "}
                await _event(send, base | {"choices": [choice]})
                if sent == body.get("mock_break"):
                    raise ConnectionAbortedError
        if asked and not body.get("mock_no_usage"):
            await _event(send, base | {"choices": [], "usage": _usage([one], one.made)})
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n", "more_body": False})


def _usage(prompts: list[Sequence], made: int) -> dict[str, Any]:
    tokens, cached = sum(len(one.tokens) for one in prompts), sum(one.cached for one in prompts)
    return {"prompt_tokens": tokens, "completion_tokens": made, "total_tokens": tokens + made,
            "prompt_tokens_details": {"cached_tokens": cached}}  # fmt: skip


async def _until_gone(all: list[Sequence], receive: Callable[[], Awaitable[Message]]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    for one in all:
        one.gone = True
        one.news.set()


def _headers(scope: Message) -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}


async def _event(send: Send, data: dict[str, Any]) -> None:
    await send(
        {"type": "http.response.body", "body": b"data: %s\n\n" % json.dumps(data).encode(), "more_body": True}
    )


async def _whole(send: Send, status: int, answer: Any) -> None:  # noqa: ANN401 (JSON, or text)
    body = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
    kind = b"text/plain" if isinstance(answer, str) else b"application/json"
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def main(args: argparse.Namespace) -> None:
    """Serve until killed."""
    engine = Engine(
        slots=args.slots,
        step_s=args.step_ms / 1000,
        prefill_s=args.prefill_us / 1e6,
        cache_blocks=args.cache_blocks,
        chunk=args.chunk,
    )
    listening = socket.create_server(("127.0.0.1", args.port), backlog=2048)
    print(f"mock worker at http://127.0.0.1:{listening.getsockname()[1]}", flush=True)  # noqa: T201
    config = uvicorn.Config(App(engine), log_level="critical", access_log=False, lifespan="off", http="httptools")
    work = asyncio.create_task(engine.run())
    await uvicorn.Server(config).serve(sockets=[listening])
    work.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A worker that takes the time of an engine.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--step-ms", type=float, default=10.0)
    parser.add_argument("--prefill-us", type=float, default=20.0)
    parser.add_argument("--cache-blocks", type=int, default=4096)
    parser.add_argument("--chunk", type=int, default=2048)
    asyncio.run(main(parser.parse_args()))
