"""What a light client gets beside one with 60 streams, on three workers that are first-come-first-served inside.

    make bench-gateway-fairness
    python -m benchmarks.gateway_fairness             # workers that take an engine's time, and compute nothing
    python -m benchmarks.gateway_fairness --engine    # the reference engine with a model, on the processor
    python -m benchmarks.gateway_fairness --quantum 64 256 1024 4096    # the gateway alone, by quantum

One client keeps 60 requests under way, two keep 3 each, for the same time in every arrangement:

* the gateway: D2LPM, and a DLPM queue with a bounded window in front of each worker;
* the same gateway with cache_aware routing and no queues (everything goes to the workers at once);
* sglang-router, where it is installed (.venv-routers); not with --engine.

Printed: p50 of the worse-off light client and its ratio, throughput and prefix hit rate, with their ratios; with
--engine also tokens per second of the workers' processor time, whatever else the machine does meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import aiohttp
from attrs import Factory, define

from benchmarks.gateway import ROUTERS, free_port, processor_seconds, running

MOCK = Path(__file__).parent.parent / "tests" / "gateway" / "mock_worker.py"
STREAMS = {"heavy": 60, "light": 3, "other": 3}
FAMILIES = {"heavy": 24, "light": 4, "other": 4}
"""Documents that a client asks about: enough of the heavy one's for it to be everywhere."""
GATEWAY = "gateway: d2lpm, dlpm queues"
BARE = "cache_aware, no queues"


@define
class Scale:
    """How large everything is."""

    slots: int
    seconds: float
    warm_up: float
    document: int
    """Words of a document, which all requests about it begin with."""
    heavy_output: int
    light_output: int
    documents: dict[str, int] = Factory(FAMILIES.copy)
    cache_blocks: int = 600
    """Blocks of 16 tokens that a worker without an engine keeps cached."""
    quantum: int | None = None
    """None: the gateway's default."""


MOCKED = Scale(slots=8, seconds=20, warm_up=5, document=240, heavy_output=64, light_output=16)
REAL = Scale(slots=4, seconds=40, warm_up=25, document=60, heavy_output=12, light_output=4,
             documents={"heavy": 12, "light": 2, "other": 2})  # fmt: skip
"""A processor computes few prompts: with more documents the caches would still be filling after the warm-up."""


@define
class Figures:
    """What was measured of one arrangement."""

    p50: dict[str, float]
    """Seconds, by client."""
    throughput: float
    """Tokens (prompt and output) of finished requests per second."""
    hit_rate: float
    requests: int
    efficiency: float
    """The same tokens per second of processor time of the workers."""

    @property
    def worse_off(self) -> float:
        """Seconds: p50 of the light client that waits longer."""
        return max(self.p50["light"], self.p50["other"])


class Load:
    """Closed-loop clients."""

    def __init__(self, url: str, model: str, scale: Scale, workers: list[int]) -> None:
        self._workers = workers
        self._url, self._model, self._scale = f"{url}/v1/completions", model, scale
        self._taken: dict[str, list[float]] = {name: [] for name in STREAMS}
        self._tokens = self._prompt = self._cached = 0
        self._counting = False

    async def run(self) -> Figures:
        """Load it for as long as the scale says."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=None)
        ) as session:
            tasks = [
                asyncio.create_task(self._stream(session, name, number))
                for name, count in STREAMS.items()
                for number in range(count)
            ]
            await asyncio.sleep(self._scale.warm_up)
            self._counting = True
            began, worked = time.monotonic(), self._work()
            await asyncio.sleep(self._scale.seconds)
            took, worked = time.monotonic() - began, self._work() - worked
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        p50 = {name: statistics.median(taken) if taken else float("inf") for name, taken in self._taken.items()}
        hits = self._cached / self._prompt if self._prompt else 0.0
        count = sum(map(len, self._taken.values()))
        return Figures(p50, self._tokens / took, hits, count, self._tokens / max(worked, 0.01))

    def _work(self) -> float:
        """Return the processor time of the workers so far, in seconds."""
        return sum(map(processor_seconds, self._workers))

    async def _stream(self, session: aiohttp.ClientSession, name: str, number: int) -> None:
        scale, turn = self._scale, 0
        output = scale.heavy_output if name == "heavy" else scale.light_output
        while True:
            turn += 1
            family = f"{name}{(number + turn) % scale.documents[name]} "
            body = {
                "model": self._model,
                "prompt": family * scale.document + f"question {number} {turn}",
                "max_tokens": output,
                "ignore_eos": True,
            }
            began = time.monotonic()
            async with session.post(self._url, json=body, headers={"x-tenant-id": name}) as answer:
                got = await answer.json()
                if answer.status != 200:
                    raise SystemExit(f"{self._url} answered {answer.status}: {got}")
            if self._counting:
                self._taken[name].append(time.monotonic() - began)
                usage = got["usage"]
                self._tokens += usage["total_tokens"]
                self._prompt += usage["prompt_tokens"]
                self._cached += (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)


def start_workers(stack: ExitStack, scale: Scale, *, engine: bool, model: str) -> dict[str, int]:
    """Start three workers; return their process ids by URL."""
    workers = {}
    for _ in range(3):
        port = free_port()
        slots = str(scale.slots)
        command = [sys.executable, str(MOCK), "--port", str(port), "--slots", slots, "--step-ms", "20",
                   "--prefill-us", "100", "--cache-blocks", str(scale.cache_blocks)]  # fmt: skip
        if engine:
            command = [sys.executable, "-m", "fairprefix", "serve", model, "--policy", "fcfs", "--port", str(port),
                       "--max-batch", slots, "--kv-tokens", "8192", "--max-waiting", "10000"]  # fmt: skip
        workers[f"http://127.0.0.1:{port}"] = stack.enter_context(running(command, port))
    return workers


def arrangements(urls: list[str], scale: Scale, *, peers: bool) -> dict[str, tuple[list[str], int]]:
    """Return how each arrangement is started, and its port."""

    def gateway(options: str, *more: str) -> tuple[list[str], int]:
        port = free_port()
        workers = [word for url in urls for word in ("--worker", url + options)]
        base = [sys.executable, "-m", "fairprefix", "gateway", "--port", str(port), "--admin-port", "0"]
        return [*base, "--trust", "127.0.0.1", *more, *workers], port

    quantum = ("--quantum", str(scale.quantum)) if scale.quantum else ()
    found = {
        BARE: gateway(",fairprefix=serve", "--router", "cache_aware"),
        # One more than run: a place that gets free is filled at once, not after a question and an answer.
        GATEWAY: gateway(f",window={scale.slots + 1}", *quantum),
    }
    if peers and (ROUTERS / "sglang-router").exists():
        port = free_port()
        more = ["--host", "127.0.0.1", "--port", str(port), "--policy", "cache_aware"]
        more += ["--prometheus-port", str(free_port())]
        found["sglang-router, cache_aware"] = (
            [str(ROUTERS / "sglang-router"), "launch", "--worker-urls", *urls, *more],
            port,
        )
    return found


def main(args: argparse.Namespace) -> None:
    """Measure every arrangement, each with workers of its own, and print the comparison."""
    scale = REAL if args.engine else MOCKED
    if args.seconds:
        scale.seconds = args.seconds
    if args.documents:
        scale.documents["heavy"] = args.documents
    if args.cache_blocks:
        scale.cache_blocks = args.cache_blocks
    peers = not args.engine  # which ask their workers for more than OpenAI's endpoints
    if args.quantum:
        by_quantum(args, scale)
        return
    names = list(arrangements([], scale, peers=peers))
    report([{name: measure(name, args, scale, peers=peers) for name in names} for _ in range(args.rounds)])


def measure(name: str, args: argparse.Namespace, scale: Scale, *, peers: bool = False) -> Figures:
    """Measure one arrangement, with workers of its own."""
    with ExitStack() as stack:
        workers = start_workers(stack, scale, engine=args.engine, model=args.model)
        command, port = arrangements(list(workers), scale, peers=peers)[name]
        stack.enter_context(running(command, port))
        time.sleep(3)  # routers ask their workers first
        model = args.model if args.engine else "mock"
        return asyncio.run(Load(f"http://127.0.0.1:{port}", model, scale, list(workers.values())).run())


def by_quantum(args: argparse.Namespace, scale: Scale) -> None:
    """Measure the gateway with one quantum after the other, and print a table."""
    measured = {}
    for scale.quantum in args.quantum:
        measured[f"quantum {scale.quantum}"] = measure(GATEWAY, args, scale)
    table(measured)


def table(measured: dict[str, Figures]) -> None:
    """Print a table."""
    print(
        f"{'':32}{'requests':>9}{'heavy p50':>11}{'light p50':>11}{'other p50':>11}{'tokens/s':>10}"
        f"{'per CPU s':>11}{'hits':>8}"
    )
    for name, of in measured.items():
        times = "".join(f"{of.p50[client]:9.2f} s" for client in STREAMS)
        print(f"{name:32}{of.requests:9}{times}{of.throughput:10.0f}{of.efficiency:11.0f}{of.hit_rate:8.3f}")


def report(rounds: list[dict[str, Figures]]) -> None:
    """Print a table for each round, and how the gateway compares with the others: medians over the rounds."""
    for measured in rounds:
        table(measured)
    for name in rounds[0]:
        if name != GATEWAY:
            pairs = [(measured[GATEWAY], measured[name]) for measured in rounds]
            lower = statistics.median(of.worse_off / own.worse_off for own, of in pairs)
            faster = statistics.median(own.throughput / of.throughput for own, of in pairs)
            dearer = statistics.median(own.efficiency / of.efficiency for own, of in pairs)
            hits = statistics.median(own.hit_rate - of.hit_rate for own, of in pairs)
            print(
                f"than with {name}: the worse-off light client's p50 {lower:.2f}x lower, throughput "
                f"{faster:.3f}x, per CPU second {dearer:.3f}x, hit rate {100 * hits:+.1f} points"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="What a light client gets beside one with 60 streams.")
    parser.add_argument(
        "--engine", action="store_true", help="the reference engine instead of workers that compute nothing"
    )
    parser.add_argument("--model", default="smollm2", help="for --engine (default: smollm2)")
    parser.add_argument("--quantum", type=int, nargs="+", metavar="N", help="the gateway alone, by quantum")
    parser.add_argument("--documents", type=int, metavar="N", help="that the heavy client asks about")
    parser.add_argument("--cache-blocks", type=int, metavar="N", help="of a worker that computes nothing")
    parser.add_argument("--rounds", type=int, default=1, help="of all arrangements in turn (default: 1)")
    parser.add_argument("--seconds", type=float, help="how long to measure each arrangement")
    main(parser.parse_args())
