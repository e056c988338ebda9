"""Prints every decision that each policy takes in one random history; run by test_determinism.py."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator

from fairprefix.core.base import BasePolicy
from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.policy import Refusal
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.core.request import Request

EVENTS = 2000
CONFIGS = (
    PolicyConfig(policy="fcfs"),
    PolicyConfig(policy="lpm", bounded_wait=3),
    PolicyConfig(policy="vtc", weights={"client-3": 2}, max_clients=6),
    PolicyConfig(policy="dlpm", quantum=40, overdraft=25, max_clients=6, bounded_wait=4),
    PolicyConfig(policy="dlpm", quantum=40, gate="credit", slack=30, weights={"client-3": 2}),
)


class History:
    """A policy, a cache, and random events."""

    def __init__(self, config: PolicyConfig, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311 (to be repeatable is the point)
        self.index = PrefixIndex(4)
        self.policy: BasePolicy = make_policy(config, self.index)
        self.running: dict[str, None] = {}
        self.output: dict[str, int] = {}
        """Tokens produced by each request."""
        self.client: dict[str, str] = {}

    def decisions(self) -> Iterator[str]:
        """Yield what the policy decides, event by event."""
        for n in range(EVENTS):
            event = self.random.choice(("arrive", "arrive", "pass", "produce", "cache", "end"))
            if event == "arrive":
                self.arrive(n)
            elif event == "pass":
                yield from self.scheduling_pass()
            elif event == "produce":
                self.produce()
            elif event == "cache":
                self.change_cache()
            else:
                self.end()
        yield json.dumps(self.policy.snapshot())
        yield repr(self.policy.canonical())

    def path(self) -> tuple[str, ...]:
        """Return a random chain of block names."""
        return tuple(f"{self.random.randrange(3)}" for _ in range(self.random.randrange(1, 4)))

    def blocks(self) -> tuple[int, ...]:
        """Return the cumulative hashes of a random chain."""
        path = self.path()
        return tuple(int("1" + "".join(path[: depth + 1])) for depth in range(len(path)))

    def arrive(self, n: int) -> None:
        """A request of one of nine clients arrives."""
        blocks = self.blocks()
        prompt = 4 * len(blocks) + self.random.randrange(1, 9)
        client = f"client-{self.random.randrange(9)}"
        self.client[f"request-{n}"] = client
        self.output[f"request-{n}"] = 0
        self.policy.arrive(Request(f"request-{n}", client, prompt, self.random.randrange(1, 30), blocks))

    def scheduling_pass(self) -> Iterator[str]:
        """A few requests are admitted or refused."""
        self.policy.begin_pass()
        yield "plan " + " ".join(request.id for request in self.policy.plan(5))
        for _ in range(self.random.randrange(4)):
            request = self.policy.peek()
            if request is None:
                yield "nobody"
                return
            answer = self.random.randrange(5)
            if answer == 0:
                self.policy.defer(request.id, Refusal.NO_ROOM)
            else:
                receipt = self.policy.take(request.id, extend=request.input_tokens, reserve=request.max_output)
                self.running[request.id] = None
                yield f"{request.id} charged {receipt.charged}"

    def produce(self) -> None:
        """Every running request produces a token."""
        tokens: dict[str, int] = {}
        for id in self.running:
            self.output[id] += 1
            tokens[self.client[id]] = tokens.get(self.client[id], 0) + 1
        self.policy.produced(tokens)

    def change_cache(self) -> None:
        """A chain becomes cached, or is evicted."""
        if self.random.randrange(2):
            self.index.cached(self.blocks())
        else:
            self.index.evicted(self.blocks())

    def end(self) -> None:
        """A running request finishes, or is preempted and queued again."""
        if self.running:
            id = self.random.choice(list(self.running))
            del self.running[id]
            if self.random.randrange(3):
                self.policy.finish(id, output=self.output[id])
            else:
                self.policy.preempt(id, output=self.output[id], keep_hold=False)


def main() -> None:
    """Print all decisions."""
    for config in CONFIGS:
        for line in History(config, seed=20250124).decisions():
            print(f"{config.policy} {config.gate}: {line}")  # noqa: T201 (this is what it is for)


if __name__ == "__main__":
    main()
