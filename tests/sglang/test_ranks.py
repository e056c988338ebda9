"""Two data-parallel ranks of a real SGLang: D2LPM chooses between them, and their own cache events prove it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from fairprefix.gateway.kv_events.chain import names_of
from fairprefix.gateway.kv_events.feed import FeedConfig, KvEventFeed
from tests.gateway.kv_following import following
from tests.gateway.kv_publisher import Cache
from tests.gateway.ports import port_pairs
from tests.gateway.waiting import soon
from tests.sglang import traffic
from tests.sglang.server import Server, running
from tests.sglang.tiny import write_model

BLOCK = 16
PROMPTS = {"anna": "Anna counts stars. " * 16, "bert": "Bert counts sheep at night. " * 12}
SETTINGS = {
    "SGLANG_CPU_OMP_THREADS_BIND": "0|1",
    "FAIRPREFIX_CONFIG": '{"policy": "dlpm", "quantum": 512}',
    "FAIRPREFIX_RANK_ROUTER": '{"router": "d2lpm", "quantum": 1000}',
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model."""
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    """Where rank 0 publishes and replays; rank 1 is one port further."""
    return port_pairs(ranks=2)


@pytest.fixture(scope="module")
def server(model: Path, ports: tuple[int, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two ranks which publish what they cache; a page has four tokens."""
    events = {"publisher": "zmq", "topic": "kv-events", "endpoint": f"tcp://*:{ports[0]}"}
    flags = ("--dp-size", "2", "--page-size", "4", "--kv-events-config")
    log = tmp_path_factory.mktemp("ranks") / "log"
    replay = {"replay_endpoint": f"tcp://*:{ports[1]}"}
    with running(model, log, *flags, json.dumps(events | replay), **SETTINGS) as started:
        yield started


def complete(server: Server, client: str, prompt: str) -> None:
    """Send one request."""
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 4, "temperature": 0}
    traffic.post(server.url, "/v1/completions", body, {"x-smg-routing-key": client})


def test_a_client_stays_at_one_rank_until_its_quantum_is_spent(
    server: Server, model: Path, ports: tuple[int, int]
) -> None:
    """Each client's prefix is cached at one rank; a spent quantum takes it to both."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    wanted = {client: set(names_of(tokenizer(prompt).input_ids, BLOCK)) for client, prompt in PROMPTS.items()}
    assert all(len(names) >= 3 for names in wanted.values())
    caches = [Cache(), Cache()]
    feeds = [
        KvEventFeed(
            f"rank {rank}",
            FeedConfig(
                endpoint=f"tcp://127.0.0.1:{ports[0] + rank}",
                replay=f"tcp://127.0.0.1:{ports[1] + rank}",
                block_size=BLOCK,
            ),
        )
        for rank in range(2)
    ]

    async def story() -> None:
        async with following(feeds, caches):
            for _ in range(2):
                for client, prompt in PROMPTS.items():
                    await asyncio.to_thread(complete, server, client, prompt)
            await soon(lambda: all(any(names <= cache.held for cache in caches) for names in wanted.values()))
            for names in wanted.values():
                assert sum(bool(names & cache.held) for cache in caches) == 1
            assert all(
                feed.figures.malformed == feed.figures.resets == feed.figures.unknown == 0 for feed in feeds
            )
            for _ in range(20):
                await asyncio.to_thread(complete, server, "anna", PROMPTS["anna"])
            await soon(lambda: all(wanted["anna"] <= cache.held for cache in caches))

    asyncio.run(story())
    errors = [
        value for name, value in server.metrics().items() if name.startswith("fairprefix_policy_errors_total")
    ]
    assert not any(errors), server.log.read_text()[-3000:]
    assert "SGLang chooses ranks itself" not in server.log.read_text()
