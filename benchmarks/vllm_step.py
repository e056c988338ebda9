"""What FairScheduler costs a step of vLLM: thread CPU time of schedule(), against vLLM's own scheduler.

    make test-vllm                                                       # makes the environment
    .venv-vllm/bin/python benchmarks/vllm_step.py [--waiting 100 1000 10000] [--clients 16] [--rounds 40]

The same with the core compiled by mypyc, in front of the one that is installed there:

    make compiled PYTHON=python3.11 && python3 -m zipfile -e build/compiled/fairprefix-*.whl build/compiled/site
    PYTHONPATH=build/compiled/site .venv-vllm/bin/python benchmarks/vllm_step.py

Both schedulers are vLLM's real ones, without a model, one process each, measured in turns: 128 running requests,
8192 tokens a step, prompts of 512 tokens of which 256 are shared within a group, and a KV cache that is full, so
that every admission evicts. The queue has built up behind requests that run: what it shares was cached before.
Two kinds of steps: *saturated* (all seats taken) and *admitting* (about 25 seats have become free). Every step of
one side is paired with the next one of the other side, on the same core, or the cores would be compared as well.
Printed are each side's median, and the median of the pairs' ratios, which what else the machine does hardly moves.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import random
import statistics
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ |= {"VLLM_TARGET_DEVICE": "cpu", "VLLM_LOGGING_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"}
sys.path.insert(0, str(Path(__file__).parents[1]))

from fairprefix.adapters.vllm import FairScheduler
from fairprefix.core import dlpm
from tests.vllm import rig

SEATS, FREED, GROUPS = 128, 25, 16
BLOCKS = 6000
WARM_UP = 12
"""Pairs of steps that are taken before those that count: until the cache is full."""


class Side:
    """One scheduler with its running and waiting requests."""

    def __init__(self, make: Any, waiting: int, clients: int, policy: dict[str, Any]) -> None:  # noqa: ANN401
        config = rig.settings(seats=SEATS, budget=8192, blocks=BLOCKS, fairprefix=policy)
        self.scheduler = rig.make_scheduler(make or rig.stock(config), config)
        self._runner = rig.Runner(self.scheduler)
        self._draw = random.Random(7)  # noqa: S311 (to be repeatable is the point)
        self._clients = clients
        self._number = 0
        self._prefixes = [[self._draw.randrange(3, 1000) for _ in range(256)] for _ in range(GROUPS)]
        self.add(SEATS)
        while len(self.scheduler.running) < SEATS:
            self.step()
        self.add(waiting)

    def add(self, count: int) -> None:
        """Let requests arrive."""
        for _ in range(count):
            own = [self._draw.randrange(3, 1000) for _ in range(256)]
            prompt = self._draw.choice(self._prefixes) + own
            client = f"client {self._draw.randrange(self._clients)}"
            self.scheduler.add_request(rig.make_request(f"r{self._number}", prompt, 3000, client))
            self._number += 1

    def step(self) -> tuple[float, float]:
        """Take one step; return milliseconds of CPU of schedule() and of update_from_output()."""
        began = time.thread_time()
        plan = self.scheduler.schedule()
        planned = time.thread_time()
        output = self._runner._carry_out(plan)  # noqa: SLF001 (the drawing of tokens is not measured)
        drawn = time.thread_time()
        self.scheduler.update_from_output(plan, output)
        return 1e3 * (planned - began), 1e3 * (time.thread_time() - drawn)

    def saturated_step(self) -> tuple[float, float]:
        """Take a step in which all seats are taken and stay so."""
        times = self.step()
        assert len(self.scheduler.running) == SEATS, "memory ran out: fewer rounds, or more blocks"
        return times

    def admitting_step(self) -> tuple[float, float]:
        """Free some seats, take the step that fills them, and let as many arrive."""
        rig.abort(self.scheduler, *(request.request_id for request in self.scheduler.running[:FREED]))
        before = len(self.scheduler.running)
        times = self.step()
        admitted = len(self.scheduler.running) - before
        while len(self.scheduler.running) < SEATS:
            self.step()
        self.add(FREED)
        assert admitted > FREED // 2, admitted
        return times


Times = tuple[float, float]
"""Milliseconds of CPU of schedule() and of update_from_output()."""


def serve(orders: Connection, make: Any, waiting: int, clients: int, policy: dict[str, Any]) -> None:  # noqa: ANN401
    """Be one side, in a process of its own: take the steps that are asked for."""
    side = Side(make, waiting, clients, policy)
    gc.collect()
    gc.freeze()  # as vLLM does when it has started
    orders.send(None)
    while (step := orders.recv()) is not None:
        orders.send(getattr(side, step)())
    host = getattr(side.scheduler, "fairprefix", None)
    corrections = 0 if host is None else getattr(host.view, "corrections", 0)
    orders.send(host is None or host.policy.errors == host.shield.errors == corrections == 0)


def measure(step: str, sides: list[Connection], rounds: int) -> list[tuple[Times, Times]]:
    """Return pairs of the times of both sides, which take turns, one at a time."""
    pairs = []
    for number in range(WARM_UP + rounds):
        times: dict[int, Times] = {}
        for which in (0, 1) if number % 2 else (1, 0):
            sides[which].send(step)
            times[which] = sides[which].recv()
        pairs.append((times[0], times[1]))
    return pairs[WARM_UP:]


def summary(pairs: list[tuple[Times, Times]], call: int) -> tuple[float, float, float]:
    """Return the medians of stock, of fair, and of fair / stock within pairs; `call`: which of the times."""
    stock, fair = ([pair[side][call] for pair in pairs] for side in (0, 1))
    ratios = [ours / theirs for ours, theirs in zip(fair, stock, strict=True)]
    return statistics.median(stock), statistics.median(fair), statistics.median(ratios)


def compare(waiting: int, clients: int, policy: dict[str, Any], rounds: int) -> None:
    """Measure both sides and print their lines of the table."""
    # Both in one process would spoil the interpreter's inline caches for each other: they hold one class.
    spawn = multiprocessing.get_context("spawn")  # a fork would pay for every page that it is the first to touch
    ends, children = [], []
    for make in (None, FairScheduler):
        ours, theirs = spawn.Pipe()
        child = spawn.Process(target=serve, args=(theirs, make, waiting, clients, policy))
        child.start()
        theirs.close()  # or nobody would notice that a side has failed
        ends.append(ours)
        children.append(child)
    for end in ends:
        end.recv()
    for step, times in (("admitting_step", rounds), ("saturated_step", 4 * rounds)):
        pairs = measure(step, ends, times)
        name = "admitting" if step == "admitting_step" else "saturated"
        stock, fair, ratio = summary(pairs, 0)
        print(
            f"{waiting:>8} {name:>10} {stock:>9.2f} {fair:>9.2f} {ratio:>6.2f}   "
            "{:.2f} {:.2f} {:.2f}".format(*summary(pairs, 1)),
            flush=True,
        )
    for end, child in zip(ends, children, strict=True):
        end.send(None)
        assert end.recv(), "the policy, the adapter or the index of the cache failed"
        child.join()


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--waiting", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument(
        "--rounds", type=int, default=40, help="pairs of admitting steps; four times as many saturated"
    )
    parser.add_argument("--policy", default="dlpm")
    given = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    print("the core is " + ("interpreted" if str(dlpm.__file__).endswith(".py") else "compiled"))
    print(f"{'waiting':>8} {'step':>10} {'stock ms':>9} {'fair ms':>9} {'ratio':>6}   update: stock, fair, ratio")
    for waiting in given.waiting:
        compare(waiting, given.clients, {"policy": given.policy}, given.rounds)


if __name__ == "__main__":
    main()
