"""A real gateway with the exact index: real event streams decide where a prompt goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from fairprefix.cli.main import main
from fairprefix.core.catalog import make_policy
from fairprefix.core.request import Request
from fairprefix.core.router_catalog import make_router
from fairprefix.gateway.config import make_settings
from fairprefix.gateway.fleet import Fleet
from fairprefix.gateway.kv_events.chain import names_of
from fairprefix.gateway.tally import Tally
from tests.gateway.kv_publisher import Publisher, removed, stored
from tests.gateway.rig import Process, Running, gateway, mock

WORDS = [f"w{number}" for number in range(40)]
TEMPLATE = "{% for message in messages %}<s> {{ message['content'] }} {% endfor %}"


@pytest.fixture(scope="module")
def workers() -> Iterator[tuple[Process, Process]]:
    """Two workers."""
    with mock(step_ms=1) as one, mock(step_ms=1) as two:
        yield one, two


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer that knows forty words and begins texts with <s>; a chat template that does so itself."""
    folder = tmp_path_factory.mktemp("model")
    vocabulary = {word: id for id, word in enumerate(["<s>", "?", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return folder


def tokens(count: int) -> list[int]:
    """Return the tokens of the first words, as the model's tokenizer has them."""
    return [0, *range(2, count + 2)]


def settings(
    workers: tuple[Process, Process],
    publishers: list[Publisher],
    **limits: Any,  # noqa: ANN401
) -> dict[str, Any]:
    """Return the settings of a gateway that follows both."""
    tables = []
    for worker, publisher in zip(workers, publishers, strict=True):
        events, replay = (f"tcp://127.0.0.1:{port}" for port in publisher.ports)
        tables.append({"url": worker.url, "window": 4, "kv_events": events, "kv_replay": replay})
    return {
        "router": {"index": "exact", "block_size": 4},
        "workers": tables,
        "gateway": {"trusted": ["127.0.0.1"], **limits},
    }


def ask(front: Running, client: str, path: str = "completions", **body: Any) -> None:  # noqa: ANN401
    """Send one request."""
    answer = httpx.post(
        f"{front.url}/v1/{path}",
        json={"model": "m", "max_tokens": 2, **body},
        headers={"x-tenant-id": client},
        timeout=30,
    )
    assert answer.status_code == httpx.codes.OK, answer.text


def requests(front: Running) -> list[int]:
    """Return how many requests each worker has served."""
    return [worker["requests"] for worker in front.settled()["workers"]]


def play(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a story."""
    asyncio.run(story())


async def known(front: Running, *blocks: int) -> None:
    """Wait until the gateway knows of so many blocks of each worker."""
    for _ in range(600):
        events = (await asyncio.to_thread(front.state))["events"]
        if tuple(feed["blocks"] for feed in events.values()) == blocks:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(events)


@pytest.mark.parametrize("kind", ["ids", "text", "chat"])
def test_a_prompt_goes_where_it_is_cached(
    workers: tuple[Process, Process], model: Path, tmp_path: Path, kind: str
) -> None:
    """Whatever form it has: each client is new, and would go to either worker if its prompt were unknown."""
    bodies: dict[str, dict[str, Any]] = {
        "ids": {"prompt": tokens(31)},
        "text": {"prompt": " ".join(WORDS[:31])},
        "chat": {"messages": [{"role": "user", "content": " ".join(WORDS[:31])}], "path": "chat/completions"},
    }
    body = bodies[kind]

    async def story() -> None:
        publishers = [Publisher(), Publisher("array")]
        publishers[1].keep(stored(list(range(8)), tokens(31)))
        with gateway(settings=settings(workers, publishers, tokenizer=str(model)), folder=tmp_path) as front:
            await known(front, 0, 8)
            for number in range(4):
                await asyncio.to_thread(ask, front, f"client-{number}", **body)
            assert await asyncio.to_thread(requests, front) == [0, 4]
            await publishers[1].publish(removed(list(range(8))))
            await publishers[0].publish(stored(list(range(50, 58)), tokens(31)))
            await known(front, 8, 0)
            for number in range(4):
                await asyncio.to_thread(ask, front, f"other-{number}", **body)
            assert await asyncio.to_thread(requests, front) == [4, 4]
            figures = await asyncio.to_thread(front.metrics)
            assert figures[f'fairprefix_kv_events_blocks{{worker="{workers[0].url}"}}'] == 8
        for publisher in publishers:
            await publisher.close()

    play(story)


def test_queues_order_and_charge_by_what_is_reported() -> None:
    """A worker's queue takes as cached what that worker has reported, not what was sent to it."""
    prompt = tokens(31)
    values = {
        "router": {"index": "exact", "block_size": 4},
        "workers": [{"url": f"http://{name}:1", "kv_events": f"tcp://{name}:5557"} for name in "ab"],
    }
    given = make_settings(values, "here")
    router = make_router(given.router)
    fleet = Fleet(
        given,
        router,
        lambda _worker, policy, prefixes: make_policy(policy, prefixes),
        Tally(given.policy, names=10),
    )
    router.stored("http://b:1", names_of(prompt, 4)[:5])
    request = Request("r", "c", len(prompt), 8, names_of(prompt, 4))
    turn = fleet.enter(request, 8)
    assert (turn.worker, turn.cached_tokens) == ("http://b:1", 20)
    assert [worker.cached(request) for worker in fleet.workers.values()] == [0, 20]
    router.removed("http://b:1", names_of(prompt, 4))
    assert [worker.cached(request) for worker in fleet.workers.values()] == [0, 0]
    for change in (fleet.suspend, lambda worker, _why: fleet.resume(worker)):
        router.stored("http://b:1", names_of(prompt, 4)[:2])
        change(fleet.workers["http://b:1"], "a test")
    assert fleet.workers["http://b:1"].cached(request) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"router": {}}, "kv_events is of no use"),
        ({"workers": [{"url": "http://a:1"}]}, "kv_events is missing"),
        ({"workers": [{"url": "http://a:1", "kv_events": "a:5"}]}, "kv_events = 'a:5'"),
        ({"workers": [{"url": "http://a:1", "kv_replay": "tcp://a:5"}]}, "kv_replay"),
        ({"gateway": {"tokenizer": "/nowhere"}}, "tokenizer.json"),
        ({"redis": {"url": "nowhere"}}, "redis url"),
        ({"redis": {"url": "redis://a:1", "password_env": "NOT_SET_HERE"}}, "NOT_SET_HERE"),
        ({"gateway": {"state": "redis:"}}, "redis:NAME"),
    ],
)
def test_settings_that_do_not_fit_end_it_with_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], message: str
) -> None:
    """Exit code 2, and a message that names the setting."""
    base = {
        "router": {"index": "exact"},
        "workers": [{"url": "http://a:1", "kv_events": "tcp://a:5557"}],
        "gateway": {"port": 0, "admin_port": 0},
    }
    file = tmp_path / "gateway.json"
    file.write_text(json.dumps({**base, **change}))
    assert main(["gateway", "--config", str(file)]) == 2
    assert message in capsys.readouterr().err
