"""Cost of the order: SGLang's own LPM, its fallback beyond 128 requests off, against ours, in one process.

    make sglang-venv
    PYTHONPATH=tests/sglang/stubs:. .venv-sglang/bin/python benchmarks/sglang_order.py

N requests wait, from 20 clients, with prompts of 512 to 4,096 tokens of which a system prompt of 256 is cached,
in SGLang's default tree. `order` is what takes the place of SGLang's `calc_priority`: the hook, questions to the
tree, the plan, moving the chosen requests to the head of the list. `charge` is what the plugin does when the batch
is formed; SGLang has nothing like it. The ratio compares `order` with SGLang's `calc_priority`.

Two budgets: SGLang's default of 16,384 prefill tokens, which about 8 of these prompts use up, and one that never
ends, so that all 16 free places are filled. After each step, outside of the clock, the admitted requests finish
and as many arrive. Process time, medians; SGLang's own order is timed before each tenth step, on the same list.

`--alone` compares SGLang's `calc_priority` with a whole step of the policies and the prefix index without any
adapter, as `policy_step.py` measures it: 256 output charges, 8 requests finish, 8 are admitted, cached and evicted
runs are reported.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
from array import array
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from attrs import frozen

from benchmarks import policy_step
from fairprefix.adapters.sglang.hooks import SchedulerHooks
from fairprefix.core.config import PolicyConfig
from fairprefix.core.request import BlockHash
from tests.sglang import real

CLIENTS = 20
ROOM = 16
SYSTEM = real.prompt(0, 256)
UNLIMITED = 10**9
WARM_UP = 10
STEPS_PER_STOCK = 10


@frozen
class Step:
    """Microseconds of process time, and what a step did."""

    order: float
    charge: float
    admitted: float


class Load:
    """Makes requests with the same system prompt."""

    def __init__(self) -> None:
        self._random = random.Random(1)
        self._made = 0

    def request(self) -> Any:
        """Return a new request."""
        self._made += 1
        rng = self._random
        own = array("q", rng.choices(range(30_000), k=rng.randint(256, 3840)))
        client = f"c{rng.randrange(CLIENTS)}"
        return real.request(f"r{self._made}", [*SYSTEM, *own], client=client, output=256)


class Stock:
    """SGLang's LPM without its fallback."""

    def __init__(self, tree: Any) -> None:
        self._policy = real.schedule(tree)
        self._policy._determine_active_policy = lambda _queue: self._policy.policy

    def time(self, waiting: list[Any]) -> float:
        """Return the time of one `calc_priority`."""
        queue = list(waiting)
        begin = time.process_time_ns()
        self._policy.calc_priority(queue, None)
        return (time.process_time_ns() - begin) / 1000


def both(tree: Any, waiting: list[Any], load: Load, budget: int, steps: int) -> tuple[float, Step]:
    """Return the time of SGLang's `calc_priority` and of one of our steps, taken in turns on the same list."""
    scheduler = real.Scheduler(tree, room=ROOM, budget=budget)
    config = PolicyConfig(policy="dlpm", gate="credit", reservation="none", bounded_wait=8)
    bridge = scheduler.attach(config).bridge
    scheduler.add(*waiting)
    hooked = type(scheduler.policy).calc_priority
    stock = Stock(tree)
    theirs, order, charge, admitted = [], [], [], []
    for number in range(steps + WARM_UP):
        if number % STEPS_PER_STOCK == 0:
            theirs.append(stock.time(scheduler.waiting_queue))
        began = time.process_time_ns()
        SchedulerHooks.order(hooked, scheduler.policy, scheduler.waiting_queue, None)
        ordered = time.process_time_ns()
        batch = _admit(scheduler, budget)
        formed = time.process_time_ns()
        bridge.restore()
        bridge.admitted(batch)
        charged = time.process_time_ns()
        order.append(ordered - began)
        charge.append(charged - formed)
        admitted.append(len(batch.reqs))
        _finish(batch)
        bridge.processed(batch)
        scheduler.add(*(load.request() for _ in batch.reqs))
    assert not bridge.policy.errors, "the policy failed: what was measured is arrival order"
    return statistics.median(theirs), Step(
        statistics.median(order[WARM_UP:]) / 1000,
        statistics.median(charge[WARM_UP:]) / 1000,
        statistics.mean(admitted[WARM_UP:]),
    )


def _waiting(count: int) -> tuple[Any, list[Any], Load]:
    """Return a tree in which the system prompt is cached, and requests that wait."""
    tree, load = real.unified_tree("rust"), Load()
    real.insert(tree, SYSTEM)
    requests = [load.request() for _ in range(count)]
    gc.collect()
    gc.freeze()
    return tree, requests, load


def _admit(scheduler: real.Scheduler, budget: int) -> Any:
    """Do what SGLang does with the list: admit from its head while there is room and budget."""
    chosen: list[Any] = []
    for req in scheduler.waiting_queue:
        if len(chosen) == ROOM or budget <= 0:
            break
        chosen.append(req)
        budget -= len(req.origin_input_ids) - len(SYSTEM)
    taken = set(chosen)
    scheduler.waiting_queue = [req for req in scheduler.waiting_queue if req not in taken]
    extend = [len(req.origin_input_ids) - len(SYSTEM) for req in chosen]
    return SimpleNamespace(reqs=chosen, prefix_lens=[len(SYSTEM)] * len(chosen), extend_lens=extend)


def _finish(batch: Any) -> None:
    for req in batch.reqs:
        req.output_ids.append(1)
        req.finished_reason = SimpleNamespace()


def main() -> None:
    """Print both times and their ratio for each queue length."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--waiting", type=int, nargs="*", default=[100, 1_000, 10_000])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--alone", action="store_true", help="policies and index without the adapter")
    args = parser.parse_args()
    real.configure()
    (alone if args.alone else inside)(args.waiting, args.steps)


def alone(lengths: list[int], steps: int) -> None:
    """Compare `calc_priority` with steps of the policies and the index alone."""
    print("waiting  policy  stock ms  step ms   ratio")
    for waiting in lengths:
        tree, requests = _same_workload(waiting)
        clock = Stock(tree)
        stock = statistics.median(clock.time(requests) for _ in range(max(5, 5000 // waiting)))
        for name in ("dlpm", "vtc", "lpm"):
            step = policy_step.measure(name, waiting, CLIENTS, steps).step
            print(
                f"{waiting:7,} {name:>7} {stock / 1000:9.2f} {step / 1000:8.3f} {stock / step:6.0f}x", flush=True
            )


def _same_workload(waiting: int) -> tuple[Any, list[Any]]:
    """Return what `policy_step` measures, for SGLang: a tree with the same prompts cached, and who waits."""
    load, tree = policy_step.Load(CLIENTS), real.unified_tree("rust")
    for prefix in load.prefixes:
        real.insert(tree, _tokens(prefix))
    requests = [load.request() for _ in range(waiting)]
    cached = 0
    while cached < policy_step.CACHED_BLOCKS - 256:
        served = load.request()
        real.insert(tree, _tokens(served.blocks))
        cached += len(served.blocks)
    queue = [real.request(one.id, _tokens(one.blocks), client=one.client, output=256) for one in requests]
    gc.collect()
    gc.freeze()
    return tree, queue


def _tokens(blocks: Sequence[BlockHash]) -> list[int]:
    """Return tokens for each block: other ones for another block."""
    places = range(policy_step.BLOCK)
    return [(int(block) * 7919 + place * 104_729) % 30_011 for block in blocks for place in places]


def inside(lengths: list[int], steps: int) -> None:
    """Compare `calc_priority` with what takes its place."""
    print("waiting    budget  admitted  stock ms  order ms  charge ms   ratio")
    for waiting in lengths:
        for budget in (16_384, UNLIMITED):
            tree, requests, load = _waiting(waiting)
            stock, step = both(tree, requests, load, budget, steps)
            print(
                f"{waiting:7,} {'none' if budget == UNLIMITED else format(budget, ','):>9} {step.admitted:9.1f} "
                f"{stock / 1000:9.2f} {step.order / 1000:9.3f} {step.charge / 1000:10.3f} "
                f"{stock / step.order:6.0f}x"
            )


if __name__ == "__main__":
    main()
