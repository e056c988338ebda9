"""Cold requests beside hot prefixes that keep arriving, in real SGLang servers: its LPM against DLPM.

    make sglang-venv
    PYTHONPATH=tests/sglang/stubs:. .venv-sglang/bin/python benchmarks/sglang_starvation.py

After a report of SGLang's users (sgl-project/sglang issue 31954): prompts with hot prefixes keep arriving, 5 % of
all requests have a prompt that nobody has sent before, and under LPM those wait until the hot ones let up.

Both servers are started as users start them, with the tiny model of the tests on the CPU, 8 requests at once; the
second one has fairprefix configured. Each of 6 clients keeps 8 hot requests outstanding, and with every 19th of
them a cold one is sent. Hot prompts have 512 tokens and begin with one of 16 prefixes of 448; cold ones have 512
of their own. So few requests wait that SGLang never falls back from LPM to arrival order, as it does beyond 128.
Wall-clock time: seconds depend on the machine, their ratio hardly does. `benchmarks/cold_starvation.py` does the
same on the virtual engine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import aiohttp
from attrs import frozen

from fairprefix.sim.metrics import percentile
from tests.sglang import traffic
from tests.sglang.real_prompts import prompt
from tests.sglang.server import Server, running
from tests.sglang.tiny import write_model

PROMPT = 512
SHARED = 448
PREFIXES = 16
CLIENTS = 6
OUTSTANDING = 8
OUTPUT = 16
HOT_PER_COLD = 19
MEMORY = ("--max-total-tokens", "65536")
MOST_WAITING = 128
"""Beyond this SGLang's LPM is arrival order."""


@frozen
class Outcome:
    """What one server did."""

    cold: list[traffic.Answer]
    hot: list[traffic.Answer]
    seconds: float

    def p99(self, answers: list[traffic.Answer]) -> float:
        """Return the 99th percentile of the time to the first token, in seconds."""
        return percentile(sorted(answer.ttft_s for answer in answers), 0.99)

    @property
    def cold_share(self) -> float:
        """Share of the cold requests in all time to first token."""
        cold = sum(answer.ttft_s for answer in self.cold)
        return cold / (cold + sum(answer.ttft_s for answer in self.hot))

    @property
    def hit_rate(self) -> float:
        """Cached tokens as a share of all prompt tokens."""
        return traffic.Run([*self.cold, *self.hot], self.seconds).hit_rate


def calls(client: int, hot: int) -> Iterator[tuple[traffic.Call, traffic.Call | None]]:
    """Yield a client's hot requests, each 19th of them with a cold one; the same for every server."""
    rng = random.Random(client)
    name = f"c{client}"
    for number in range(1, hot + 1):
        own = 1_000_000 * (client + 1) + 2 * number
        shared = prompt(rng.randrange(PREFIXES), SHARED)
        cold = traffic.Call(name, prompt(own + 1, PROMPT), OUTPUT) if number % HOT_PER_COLD == 0 else None
        yield traffic.Call(name, shared + prompt(own, PROMPT - SHARED), OUTPUT), cold


async def serve(server: Server, hot: int) -> Outcome:
    """Send everything, and wait for all answers."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    hot_answers: list[traffic.Answer] = []
    late: list[asyncio.Task[traffic.Answer]] = []
    timeout, connector = aiohttp.ClientTimeout(total=None), aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:

        async def one_after_the_other(wanted: Iterator[tuple[traffic.Call, traffic.Call | None]]) -> None:
            for call, cold in wanted:
                if cold is not None:
                    late.append(asyncio.create_task(traffic.answer_to(session, server.url, cold)))
                hot_answers.append(await traffic.answer_to(session, server.url, call))

        loads = [calls(client, hot // CLIENTS) for client in range(CLIENTS)]
        await asyncio.gather(*(one_after_the_other(load) for load in loads for _ in range(OUTSTANDING)))
        cold_answers = await asyncio.gather(*late)
    return Outcome(cold_answers, hot_answers, loop.time() - began)


def run(model: Path, log: Path, hot: int, config: dict[str, object] | None) -> Outcome:
    """Start a server, serve everything, and check that the policy has not failed."""
    settings = {"FAIRPREFIX_CONFIG": json.dumps(config)} if config else {}
    with running(model, log, "--schedule-policy", "lpm", *MEMORY, **settings) as server:
        outcome = asyncio.run(serve(server, hot))
        errors = [value for name, value in server.metrics().items() if "fairprefix_policy_errors_total" in name]
        assert errors == ([0] if config else []), "the policy failed: what was measured is SGLang's own order"
    return outcome


def main() -> None:
    """Print both outcomes, the ratio of the cold requests' p99 and the difference of the hit rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hot", type=int, default=1400, help="hot requests in all")
    parser.add_argument("--wait", type=int, default=8, help="DLPM's bounded_wait")
    args = parser.parse_args()
    waiting = CLIENTS * OUTSTANDING + args.hot // HOT_PER_COLD
    if waiting > MOST_WAITING:
        parser.error(f"--hot {args.hot}: {waiting} may wait; beyond {MOST_WAITING} SGLang's LPM is arrival order")
    configs: dict[str, dict[str, object] | None] = {
        "lpm": None,
        "dlpm": {"policy": "dlpm", "gate": "credit", "bounded_wait": args.wait},
    }
    with tempfile.TemporaryDirectory() as folder:
        model = write_model(Path(folder) / "model")
        outcomes = {name: run(model, Path(folder) / name, args.hot, each) for name, each in configs.items()}
    print("policy  cold  TTFT p99 s  hot TTFT p99 s  cold share of TTFT  hit rate  all done s")
    for name, got in outcomes.items():
        print(
            f"{name:6}  {len(got.cold):4} {got.p99(got.cold):11.2f} {got.p99(got.hot):15.2f} "
            f"{got.cold_share:19.1%} {got.hit_rate:9.3f} {got.seconds:11.1f}"
        )
    lpm, dlpm = outcomes["lpm"], outcomes["dlpm"]
    print(
        f"cold p99 {lpm.p99(lpm.cold) / dlpm.p99(dlpm.cold):.1f}x lower, "
        f"hit rate {100 * (dlpm.hit_rate - lpm.hit_rate):+.1f} points"
    )


if __name__ == "__main__":
    main()
