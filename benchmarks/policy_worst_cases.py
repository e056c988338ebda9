"""The longest steps that a hostile queue can cause: p99.9 and maximum of the policy's time, by case.

    python benchmarks/policy_worst_cases.py
    python benchmarks/policy_worst_cases.py --case evicted-prefix --waiting 10000

In each case requests wait under DLPM with bounded wait, and steps are made: the event of the case happens, then 8
requests are admitted, their outputs charged, and the same number arrives. Process time; the event is part of its
step. Limits that the project sets itself: p99.9 at most 5 ms, no step above 50 ms. The garbage collector is off
while steps are timed (--gc leaves it on): when it runs is a matter of the whole process, and engines freeze
what they hold once they are warm.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections import deque
from collections.abc import Callable, Iterator

from attrs import frozen

from fairprefix import PolicyConfig, PrefixIndex, Request, chain_hashes, make_policy

BLOCK = 16
BATCH = 8
PREFIX = tuple(range(1, 65))


@frozen
class Case:
    """Requests by their number, and what happens before each step."""

    request: Callable[[int], Request]
    event: Callable[[PrefixIndex, int], None]
    output: int = 16
    quantum: int = 2048


def own(number: int, blocks: int) -> tuple[int, ...]:
    """Return blocks that only this request has."""
    return tuple(10**9 + 1000 * number + place for place in range(blocks))


def nothing(index: PrefixIndex, step: int) -> None:
    """Let nothing happen."""


def prefix_comes_and_goes(index: PrefixIndex, step: int) -> None:
    """Cache a prefix that everybody shares, and evict it, by turns."""
    (index.evicted if step % 50 == 25 else index.cached)(PREFIX) if step % 25 == 0 else None


def prefix_dwindles(index: PrefixIndex, step: int) -> None:
    """Evict the prefix that everybody shares, block by block, then cache it again."""
    place = len(PREFIX) - 1 - step % len(PREFIX)
    index.evicted(PREFIX, start=place, end=place + 1)
    if place == 0:
        index.cached(PREFIX)


def block_is_new(index: PrefixIndex, step: int) -> None:
    """Cache the prefix that everybody shares, block by block, then evict it."""
    place = step % len(PREFIX)
    if place == 0:
        index.evicted(PREFIX)
    index.cached(PREFIX, start=place, end=place + 1)


def identical(number: int) -> Request:
    """One client asks the same again and again."""
    return Request(f"r{number}", "one", 1030, 64, PREFIX)


def sharing(number: int) -> Request:
    """Twenty clients share a prefix; each prompt ends in its own way."""
    return Request(f"r{number}", f"c{number % 20}", 1280, 64, PREFIX + own(number, 16))


def many_clients(number: int) -> Request:
    """Ten thousand clients."""
    return Request(f"r{number}", f"c{number % 10_000}", 2048, 64, PREFIX + own(number, 16))


def chain(number: int) -> Request:
    """Every prompt continues the one before it."""
    return Request(
        f"r{number}", f"c{number % 20}", BLOCK * (number % 20_000 + 1) + 1, 64, CHAIN[: number % 20_000 + 1]
    )


CHAIN = range(10**12, 10**12 + 20_001)
MILLION = range(10**12, 10**12 + 62_500)


def huge(number: int) -> Request:
    """Prompts of a million tokens, in two families."""
    return Request(f"r{number}", f"c{number % 20}", 1_000_000, 64, MILLION)


def chain_grows_and_shrinks(index: PrefixIndex, step: int) -> None:
    """Cache a long chain in pieces, and evict it from the end."""
    if step % 40 < 20:
        index.cached(CHAIN, start=step % 40 * 1000, end=(step % 40 + 1) * 1000)
    else:
        place = 39 - step % 40
        index.evicted(CHAIN, start=place * 1000, end=(place + 1) * 1000)


def huge_come_and_go(index: PrefixIndex, step: int) -> None:
    """Cache a million tokens, evict them."""
    (index.cached if step % 2 == 0 else index.evicted)(MILLION)


CASES = {
    "identical-prompts": Case(identical, prefix_dwindles),
    "evicted-prefix": Case(sharing, prefix_comes_and_goes),
    "dwindling-prefix": Case(sharing, prefix_dwindles),
    "new-block": Case(sharing, block_is_new),
    "10k-clients": Case(many_clients, prefix_comes_and_goes),
    "1000-quanta-in-debt": Case(many_clients, nothing, quantum=1, output=500),
    "chain": Case(chain, chain_grows_and_shrinks),
    "million-tokens": Case(huge, huge_come_and_go),
}


def steps_ns(case: Case, waiting: int, steps: int, *, collect: bool) -> Iterator[int]:
    """Yield the process time of each step."""
    index = PrefixIndex(BLOCK)
    policy = make_policy(PolicyConfig(bounded_wait=8, quantum=case.quantum), index)
    arrived = 0
    for _ in range(waiting):
        policy.arrive(case.request(arrived))
        arrived += 1
    gc.collect()
    gc.freeze()
    if not collect:
        gc.disable()
    running: deque[Request] = deque()
    for step in range(steps):
        fresh = [case.request(arrived + place) for place in range(BATCH)]
        arrived += BATCH
        began = time.process_time_ns()
        case.event(index, step)
        policy.begin_pass()
        for _ in range(BATCH):
            request = policy.peek()
            assert request is not None
            matched = index.matched_blocks(request.blocks)
            policy.take(request.id, extend=max(request.input_tokens - matched * BLOCK, 1), reserve=64)
            running.append(request)
        for request in fresh:
            policy.arrive(request)
        while len(running) > 64:
            request = running.popleft()
            policy.produced({request.client: case.output})
            policy.finish(request.id, output=case.output)
        yield time.process_time_ns() - began
    gc.enable()
    gc.unfreeze()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--case", choices=sorted(CASES), action="append", help="which; default: all")
    parser.add_argument("--waiting", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--gc", action="store_true", help="leave the garbage collector on")
    options = parser.parse_args()
    print(f"{'case':<22}{'waiting':>9}{'median us':>11}{'p99 us':>9}{'p99.9 us':>10}{'max us':>9}")
    for name in options.case or CASES:
        times = sorted(steps_ns(CASES[name], options.waiting, options.steps, collect=options.gc))
        figures = [times[min(int(share * len(times)), len(times) - 1)] / 1000 for share in (0.5, 0.99, 0.999, 1)]
        print(
            f"{name:<22}{options.waiting:>9,}" + "{:>11.0f}{:>9.0f}{:>10.0f}{:>9.0f}".format(*figures), flush=True
        )
    tokens = [*range(1_000_000)]
    began = time.process_time_ns()
    chain_hashes(tokens, BLOCK)
    print(f"\nhashing a prompt of 1,000,000 tokens: {(time.process_time_ns() - began) / 1e6:.1f} ns per token")


if __name__ == "__main__":
    main()
