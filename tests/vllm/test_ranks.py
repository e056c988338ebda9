"""Two data-parallel ranks of a real vLLM: D2LPM chooses between them, and their own cache events prove it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from fairprefix.gateway.kv_events.chain import names_of
from fairprefix.gateway.kv_events.feed import FeedConfig, KvEventFeed
from tests.gateway.kv_following import following
from tests.gateway.kv_publisher import Cache
from tests.gateway.ports import port_pairs
from tests.gateway.waiting import soon
from tests.vllm.server import Server, page_blocks
from tests.vllm.tiny import make_model

BLOCK = 32
PROMPTS = {"anna": "Anna counts stars. " * 16, "bert": "Bert counts sheep at night. " * 12}
COMMAND = next(block for block in page_blocks() if "FAIRPREFIX_RANK_ROUTER" in block)
"""As the documentation shows it."""
ROUTER = {"router": "d2lpm", "quantum": 1000}


@pytest.fixture(scope="module")
def ports() -> tuple[int, int]:
    """Where rank 0 publishes and replays; rank 1 is one port further."""
    return port_pairs(ranks=2)


@pytest.fixture(scope="module")
def server(ports: tuple[int, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two ranks, each with fairprefix's scheduler, which publish what they cache."""
    events = {"enable_kv_cache_events": True, "publisher": "zmq", "topic": "kv-events"}
    events |= {"endpoint": f"tcp://*:{ports[0]}", "replay_endpoint": f"tcp://*:{ports[1]}"}
    settings = {
        "FAIRPREFIX_CONFIG": json.dumps({"identity": ["header:x-tenant-id"]}),
        "PROMETHEUS_MULTIPROC_DIR": str(tmp_path_factory.mktemp("figures")),
    }
    command = COMMAND.replace("ROUTER=d2lpm", f"ROUTER='{json.dumps(ROUTER)}'").rstrip()
    model = make_model(Path(sys.prefix) / "tiny-llama")
    with Server(f"{command} --kv-events-config '{json.dumps(events)}'", model, settings) as running:
        yield running.ready()


def complete(server: Server, client: str, prompt: str, **headers: str) -> dict[str, int]:
    """Send one request; return its usage."""
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 4}
    answer = httpx.post(
        f"{server.url}/v1/completions", json=body, headers={"x-tenant-id": client, **headers}, timeout=60
    )
    assert answer.status_code == httpx.codes.OK, answer.text
    usage: dict[str, int] = answer.json()["usage"]
    return usage


def blocks(server: Server, prompt: str) -> set[bytes]:
    """Return the names of a prompt's blocks, by the server's own tokenizer."""
    answer = httpx.post(f"{server.url}/tokenize", json={"model": "tiny", "prompt": prompt}, timeout=60)
    return set(names_of(answer.json()["tokens"], BLOCK))


def test_a_client_stays_at_one_rank_until_its_quantum_is_spent(server: Server, ports: tuple[int, int]) -> None:
    """Each client's prefix is cached at one rank, whatever header it sends; a spent quantum takes it to both."""
    wanted = {client: blocks(server, prompt) for client, prompt in PROMPTS.items()}
    assert all(len(names) >= 3 for names in wanted.values())
    caches = [Cache(), Cache()]
    feeds = [
        KvEventFeed(
            f"rank {rank}",
            FeedConfig(
                endpoint=f"tcp://127.0.0.1:{ports[0] + rank}",
                replay=f"tcp://127.0.0.1:{ports[1] + rank}",
                topic="kv-events",
                block_size=BLOCK,
            ),
        )
        for rank in range(2)
    ]

    async def story() -> None:
        async with following(feeds, caches):
            for _ in range(2):
                for client, prompt in PROMPTS.items():
                    await asyncio.to_thread(complete, server, client, prompt, **{"X-data-parallel-rank": "1"})
            await soon(lambda: all(any(names <= cache.held for cache in caches) for names in wanted.values()))
            for names in wanted.values():
                assert sum(bool(names & cache.held) for cache in caches) == 1
            assert all(cache.held for cache in caches)
            assert all(
                feed.figures.malformed == feed.figures.resets == feed.figures.unknown == 0 for feed in feeds
            )
            for _ in range(20):
                await asyncio.to_thread(complete, server, "anna", PROMPTS["anna"])
            await soon(lambda: all(wanted["anna"] <= cache.held for cache in caches))

    asyncio.run(story())
    server.idle()
    for rank in range(2):
        label = f'engine="{rank}"'
        assert server.total("fairprefix_request_total", label, 'fairness_id="anna"') > 0
        assert [
            value for key, value in server.metrics("fairprefix_policy_errors_total").items() if label in key
        ] == [0]


def test_who_connects_late_learns_all_from_the_replay(server: Server, ports: tuple[int, int]) -> None:
    """A gateway that is started after the engine knows what the engine has cached, from its replay socket."""
    prompt = "Carl counts on us. " * 16
    complete(server, "carl", prompt)
    wanted = blocks(server, prompt)
    caches = [Cache(), Cache()]
    feeds = []
    for rank in range(2):
        addresses = [f"tcp://127.0.0.1:{port + rank}" for port in ports]
        feeds.append(
            KvEventFeed(str(rank), FeedConfig(endpoint=addresses[0], replay=addresses[1], block_size=BLOCK))
        )

    async def story() -> None:
        async with following(feeds, caches):
            await soon(lambda: any(wanted <= cache.held for cache in caches))
            assert sum(feed.figures.replayed for feed in feeds) > 0

    asyncio.run(story())
