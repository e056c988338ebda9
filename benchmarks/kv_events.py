"""What the exact index costs: an event, a name, a decision, a byte; and, apart from these, tokenising.

    python benchmarks/kv_events.py [TOKENIZER.JSON]

Both sides of each ratio are measured in one run. Process time, medians of several rounds.
"""

from __future__ import annotations

import random
import statistics
import sys
import tracemalloc
from collections.abc import Callable
from time import process_time_ns

import msgspec

from fairprefix.core.request import Request
from fairprefix.core.router_base import BaseRouter
from fairprefix.core.router_catalog import make_router
from fairprefix.core.router_config import RouterConfig
from fairprefix.gateway.kv_events.blocks import BlockMap
from fairprefix.gateway.kv_events.chain import names_of
from fairprefix.gateway.kv_events.wire import Removed, Stored, decode

BLOCK, PROMPT, WORKERS, PROMPTS = 16, 2048, 64, 250
WORDS = "The quick brown fox jumps over the lazy dog and runs away from there. "


def microseconds(work: Callable[[], object], rounds: int = 9) -> float:
    """Return the median process time of a call."""
    times = []
    for _ in range(rounds):
        began = process_time_ns()
        work()
        times.append((process_time_ns() - began) / 1000)
    return statistics.median(times)


def batch(draws: random.Random, number: int) -> tuple[bytes, bytes, list[int]]:
    """Return the messages that store and remove a prompt's blocks, and its tokens."""
    tokens = [draws.randrange(32_000) for _ in range(PROMPT)]
    ids = [number << 32 | block for block in range(PROMPT // BLOCK)]
    event: dict[str, object] = {
        "type": "BlockStored",
        "block_hashes": ids,
        "parent_block_hash": None,
        "token_ids": tokens,
    }
    event |= {"block_size": BLOCK, "lora_id": None, "medium": "GPU"}
    gone = {"type": "BlockRemoved", "block_hashes": ids, "medium": "GPU"}
    return msgspec.msgpack.encode([1.0, [event], 0]), msgspec.msgpack.encode([1.0, [gone], 0]), tokens


def take_in(blocks: BlockMap, payload: bytes, router: BaseRouter, worker: str) -> None:
    """Do what a feed does with a message."""
    for event in decode(payload).events:
        if isinstance(event, Stored):
            router.stored(worker, blocks.stored(event))
        elif isinstance(event, Removed):
            router.removed(worker, blocks.removed(event))


def main() -> None:
    """Measure, and print."""
    draws = random.Random(1)  # noqa: S311 (figures, not secrets)
    blocks_each = PROMPT // BLOCK
    messages = [batch(draws, number) for number in range(WORKERS * PROMPTS // 8)]
    router = make_router(RouterConfig(index="exact", block_size=BLOCK))
    maps = [BlockMap(BLOCK, 1_000_000) for _ in range(WORKERS)]
    for worker in range(WORKERS):
        router.worker_joined(str(worker))
    tracemalloc.start()
    for number, (stored, _, _) in enumerate(messages):
        take_in(maps[number % WORKERS], stored, router, str(number % WORKERS))
    held = sum(len(one) for one in maps)
    each = tracemalloc.get_traced_memory()[0] / held
    tracemalloc.stop()

    fresh, gone, tokens = batch(draws, 1 << 30)
    times = []
    for _ in range(9):
        for payload in (fresh, gone):
            began = process_time_ns()
            take_in(maps[0], payload, router, "0")
            times.append((process_time_ns() - began) / 1000 / blocks_each)
    parsed = microseconds(lambda: decode(fresh)) / blocks_each
    naming = microseconds(lambda: names_of(tokens, BLOCK))
    names = names_of(messages[5][2], BLOCK)

    def decide() -> None:
        router.pick(Request("r", "c", PROMPT, 100, names))
        router.settle("r", output=10)

    decide()
    deciding = microseconds(decide)
    print(f"{WORKERS} workers, {held} blocks of {BLOCK} tokens held; prompts of {PROMPT} tokens")
    print(f"an event, per block:  {statistics.median(times):.2f} us, of which reading it {parsed:.2f} us")
    print(f"memory, per block:    {each:.0f} bytes: index and map of one worker's hashes together")
    print(f"naming a prompt:      {naming:.0f} us")
    print(f"a decision:           {deciding:.0f} us with names at hand")
    if len(sys.argv) > 1:
        tokenizer = __import__("tokenizers").Tokenizer.from_file(sys.argv[1])
        text = WORDS * (PROMPT // len(tokenizer.encode(WORDS).ids))
        count = len(tokenizer.encode(text).ids)
        tokenising = microseconds(lambda: tokenizer.encode(text))
        ratio = tokenising / deciding
        print(f"tokenising, apart:    {tokenising:.0f} us for {count} tokens, {ratio:.0f}x a decision")


if __name__ == "__main__":
    main()
