"""What the gateway costs, beside the routers of vLLM and SGLang, in one run: latency, throughput per core, chunks.

    make bench-gateway        # installs both routers into an environment of their own (.venv-routers)

Two static backends answer at once; prompts are chats of 2,000 characters that share 16 beginnings. Printed, as
medians over the rounds, each of which measures everybody in turn:

* p50 of a request when there is one at a time, and how much of it was added to asking the backend directly;
* processor time of the router's process per request when there are 16 at a time: its inverse is the throughput per
  core, given as a ratio to vLLM's router (Rust);
* processor time per chunk of a stream.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

Message = MutableMapping[str, Any]
ROUTERS = Path(".venv-routers/bin")
CHUNKS = 256
TICKS = os.sysconf("SC_CLK_TCK")
HEADERS = b"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
USAGE = {"prompt_tokens": 500, "completion_tokens": 16, "total_tokens": 516}
MESSAGE = {"role": "assistant", "content": "hi"}
ANSWER = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "usage": USAGE,
          "choices": [{"index": 0, "finish_reason": "stop", "message": MESSAGE}]}  # fmt: skip
CHUNK = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m",
         "choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]}  # fmt: skip


async def backend(scope: Message, receive: Callable[[], Awaitable[Message]], send: Any) -> None:  # noqa: ANN401
    """Answer at once, as an ASGI application."""
    raw = b""
    while True:
        message = await receive()
        raw += message.get("body", b"")
        if not message.get("more_body"):
            break
    if b'"stream":true' in raw.replace(b" ", b""):
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
        )
        for _ in range(CHUNKS):
            await send({"type": "http.response.body", "body": b"data: %s\n\n" % _BYTES, "more_body": True})
            await asyncio.sleep(0.001)
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})
        return
    body = json.dumps(ANSWER if scope["method"] == "POST" else {"object": "list", "data": [{"id": "m"}]}).encode()
    length = str(len(body)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", length)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


_BYTES = json.dumps(CHUNK).encode()


def serve_backend(port: int) -> None:
    """Run a backend until killed."""
    import uvicorn  # noqa: PLC0415 (in this process alone)

    uvicorn.run(backend, port=port, access_log=False, log_level="critical", lifespan="off", http="httptools")


class Load:
    """Asks over connections that are kept open, with as little effort as possible."""

    def __init__(self, port: int, requests: list[bytes]) -> None:
        self._port = port
        self._requests = requests

    async def run(self, count: int, at_once: int) -> list[float]:
        """Return the seconds that each of `count` requests took."""
        taken: list[float] = []
        await asyncio.gather(*(self._some(first, count, at_once, taken) for first in range(at_once)))
        return taken

    async def _some(self, first: int, count: int, step: int, taken: list[float]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        for number in range(first, count, step):
            began = time.perf_counter()
            writer.write(self._requests[number % len(self._requests)])
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            if b" 200 " not in head[:16]:
                raise SystemExit(f"port {self._port} answered {head[:100]!r}")
            if b"content-length:" in head:
                await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))
            else:
                await reader.readuntil(b"0\r\n\r\n")
            taken.append(time.perf_counter() - began)
        writer.close()


def requests(*, stream: bool) -> list[bytes]:
    """Return 16 requests of 2,000 characters."""
    made = []
    for base in range(16):
        text = (f"document {base} " * 200)[:1900] + f" question {base}" * 8
        body = {"model": "m", "messages": [{"role": "user", "content": text[:2000]}], "stream": stream}
        raw = json.dumps(body).encode()
        made.append(HEADERS + b"content-length: %d\r\n\r\n" % len(raw) + raw)
    return made


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process so far, in seconds."""
    figures = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(figures[11]) + int(figures[12])) / TICKS


def free_port() -> int:
    """Return a port that is free."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], port: int) -> Iterator[int]:
    """Start a server and wait until it listens; give its process id."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:  # noqa: S603
        try:
            for _ in range(600):
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    if process.poll() is not None:
                        raise SystemExit(f"it ended at once: {' '.join(command)}") from None
                    time.sleep(0.1)
            yield process.pid
        finally:
            process.kill()


def commands(workers: list[str]) -> dict[str, tuple[list[str], int]]:
    """Return how each router is started, and its port."""
    port, found = free_port(), {}
    own = [sys.executable, "-m", "fairprefix", "gateway", "--port", str(port), "--admin-port", "0"]
    found["fairprefix gateway"] = ([*own, *(word for worker in workers for word in ("--worker", worker))], port)
    for name, start in (("vllm-router", []), ("sglang-router", ["launch"])):
        if (ROUTERS / name).exists():
            port = free_port()
            common = ["--host", "127.0.0.1", "--port", str(port), "--policy", "cache_aware"]
            more = ["--prometheus-port", str(free_port())]
            found[name] = ([str(ROUTERS / name), *start, "--worker-urls", *workers, *common, *more], port)
    return found


def measure(port: int, pid: int, args: argparse.Namespace) -> dict[str, float]:
    """Return one round's figures of one server, in microseconds."""
    load, streams = Load(port, requests(stream=False)), Load(port, requests(stream=True))
    run = asyncio.run
    run(load.run(200, 4))
    alone = run(load.run(args.alone, 1))
    before = processor_seconds(pid)
    run(load.run(args.crowd, 16))
    between = processor_seconds(pid)
    run(streams.run(args.streams, 8))
    after = processor_seconds(pid)
    request = (between - before) / args.crowd
    return {
        "p50": statistics.median(alone) * 1e6,
        "request": request * 1e6,
        "chunk": ((after - between) / args.streams - request) / CHUNKS * 1e6,
    }


def main(args: argparse.Namespace) -> None:
    """Measure everybody, round after round, and print the medians."""
    with ExitStack() as stack:
        ports = [free_port(), free_port()]
        pids = [
            stack.enter_context(running([sys.executable, __file__, "--backend", str(port)], port))
            for port in ports
        ]
        servers = {"backend directly": (ports[0], pids[0])}
        for name, (command, port) in commands([f"http://127.0.0.1:{port}" for port in ports]).items():
            servers[name] = (port, stack.enter_context(running(command, port)))
        time.sleep(3)  # routers ask their workers first
        rounds = [{name: measure(*server, args) for name, server in servers.items()} for _ in range(args.rounds)]
    report(rounds)


def report(rounds: list[dict[str, dict[str, float]]]) -> None:
    """Print a table of medians, and the ratios."""

    def median(name: str, figure: str) -> float:
        return statistics.median(one[name][figure] for one in rounds)

    direct = median("backend directly", "p50")
    print(f"{'':20}{'p50 alone':>12}{'added':>12}{'CPU/request':>14}{'per core':>12}{'CPU/chunk':>12}")
    for name in rounds[0]:
        p50, request, chunk = (median(name, figure) for figure in ("p50", "request", "chunk"))
        print(
            f"{name:20}{p50 / 1000:9.2f} ms{(p50 - direct) / 1000:9.2f} ms{request:11.0f} us"
            f"{1e6 / request:8.0f}/s{chunk:9.1f} us"
        )
    for peer in rounds[0]:
        if peer.endswith("-router"):
            ratios = [one[peer]["request"] / one["fairprefix gateway"]["request"] for one in rounds]
            print(f"throughput per core, fairprefix gateway / {peer}: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What the gateway costs.")
    parser.add_argument("--backend", type=int, metavar="PORT", help="be a backend")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--alone", type=int, default=800, help="requests one at a time")
    parser.add_argument("--crowd", type=int, default=4000, help="requests 16 at a time")
    parser.add_argument("--streams", type=int, default=48)
    arguments = parser.parse_args()
    if arguments.backend:
        serve_backend(arguments.backend)
    else:
        main(arguments)
