"""Two thousand requests at once, of fifty clients: some go away, some send nonsense, some ask too much."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter

from attrs import define, field

from fairprefix.gpu_ref_engine.config import EngineConfig
from fairprefix.gpu_ref_engine.job import Finish, Job
from fairprefix.gpu_ref_engine.load import load_model
from tests.engine.http import Served, serving

REQUESTS, CLIENTS = 2000, 50
DOCUMENT = "All prompts begin with these words, which are cached. " * 3
KINDS = {"whole": 8, "stream": 6, "leaves": 3, "too long": 1, "too large": 1, "malformed": 1}
MAX_BODY = 20_000
LONG = 400
"""Tokens that only those ask for who leave."""


@define
class Seen:
    """What the clients saw."""

    statuses: dict[str, Counter[int]] = field(factory=dict)
    """By kind of request; 0: the connection was left, or brought nothing."""
    received: Counter[str] = field(factory=Counter)
    """Tokens by client, of requests that were answered to the end, to those who stayed."""
    partly: Counter[str] = field(factory=Counter)
    """Tokens by client, of requests whose client went away, or meant to."""


def body_of(kind: str, random_: random.Random) -> bytes:
    """Return a request's body."""
    if kind == "malformed":
        return random_.choice([b"{", b"", b"[1]", b'{"prompt": 3}', b'{"prompt": "x", "n": -1}', b"\xff"])
    prompt = DOCUMENT + "?" * random_.randrange(20)
    prompt = "x" * {"too long": 10_000, "too large": MAX_BODY}.get(kind, 0) or prompt
    tokens = random_.randrange(1, 12) if kind != "leaves" else LONG
    stream = kind == "stream" or (kind == "leaves" and random_.random() < 0.5)
    options = {"include_usage": True} if stream else None
    return json.dumps(
        {"prompt": prompt, "max_tokens": tokens, "logprobs": 0, "stream": stream, "stream_options": options,
         "ignore_eos": True}
    ).encode()  # fmt: skip


async def ask(served: Served, number: int, seen: Seen) -> None:
    """Send one request over a connection of its own, and read what comes, or leave."""
    random_ = random.Random(number)  # noqa: S311 (a load, no secret)
    kind = random_.choices(list(KINDS), list(KINDS.values()))[0]
    client, body = f"client-{number % CLIENTS}", body_of(kind, random_)
    host, port = served.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nx-tenant-id: {client}\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    answer = b""
    try:
        patience = random_.uniform(0, 20) if kind == "leaves" else None
        answer = await asyncio.wait_for(read(reader, answer_of := bytearray()), patience)
    except asyncio.TimeoutError:
        answer = bytes(answer_of)
    finally:
        writer.close()
    status = int(answer[9:12]) if answer else 0
    seen.statuses.setdefault(kind, Counter())[status] += 1
    tokens, complete = tokens_in(answer)
    (seen.received if complete and kind != "leaves" else seen.partly)[client] += tokens


async def read(reader: asyncio.StreamReader, into: bytearray) -> bytes:
    """Read to the end."""
    while data := await reader.read(65536):
        into += data
    return bytes(into)


def tokens_in(answer: bytes) -> tuple[int, bool]:
    """Return how many tokens an answer brought, counted one by one, and whether it is complete."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if b" 200 " not in head[:15]:
        return 0, True
    if b"text/event-stream" not in head:
        try:
            found = json.loads(body)
        except ValueError:
            return 0, False
        tokens = len(found["choices"][0]["logprobs"]["tokens"])
        assert tokens == found["usage"]["completion_tokens"]
        return tokens, True
    text = unchunked(body).decode(errors="ignore")
    events = [line.removeprefix("data: ") for line in text.split("\n\n") if line.startswith("data: ")]
    tokens = 0
    for event in events:
        try:
            found = json.loads(event)
        except ValueError:  # the last words of a stream
            continue
        tokens += sum(len(choice["logprobs"]["tokens"]) for choice in found["choices"])
    return tokens, events[-1:] == ["[DONE]"]


def unchunked(body: bytes) -> bytes:
    """Return what a body in HTTP's chunks holds."""
    whole = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        whole, body = whole + rest[:length], rest[length + 2 :]
    return whole


def test_a_storm_of_requests_leaves_nothing_behind_and_every_token_accounted_for() -> None:
    """No crash, no leaked page or request, every well-formed request answered, the ledger equals what came.

    The last part of it: for each client, output charged is what its complete answers brought, counted token by
    token, and what the requests that it left had produced: until then, or to the end if that was sooner.
    """
    runner, tokenizer = load_model("random", device="cpu", dtype="float32", kv_tokens=16_384)
    left: Counter[str] = Counter()
    aborted = 0
    seen = Seen()
    with serving(
        runner, tokenizer, engine=EngineConfig(max_batch=64), max_waiting=5000, max_body=MAX_BODY, max_output=LONG
    ) as served:
        noted = served.service.metrics.finished

        def note(job: Job) -> None:
            nonlocal aborted
            noted(job)
            aborted += job.over is Finish.ABORT
            if job.params.max_tokens == LONG:
                left[job.client] += job.produced

        served.service.metrics.finished = note  # type: ignore[method-assign]

        async def storm() -> None:
            await asyncio.gather(*(ask(served, number, seen) for number in range(REQUESTS)))

        asyncio.run(asyncio.wait_for(storm(), 400))
        asyncio.run(wait_until_quiet(served))
        figures = served.figures()
        errors = served.service.worker.engine.policy.errors  # type: ignore[attr-defined]
    assert errors == 0
    for kind in ("whole", "stream"):
        assert set(seen.statuses[kind]) == {200}, kind
    assert set(seen.statuses["too long"]) == {400}
    assert set(seen.statuses["too large"]) == {413}
    assert set(seen.statuses["malformed"]) == {400}
    assert aborted > 0
    for number in range(CLIENTS):
        client = f"client-{number}"
        charged = figures[client]["fairprefix_request_output_tokens_total"]
        assert charged == seen.received[client] + left[client], client
        assert seen.partly[client] <= left[client], client


async def wait_until_quiet(served: Served) -> None:
    """Wait for the server to notice that the last clients have gone."""
    for _ in range(500):
        if not served.service.worker.requests and not served.service.worker.engine.busy:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("requests are left over")
