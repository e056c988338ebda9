"""Gateways that share a ledger through a real Redis: weights hold over all of them, whatever happens to Redis."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from fairprefix.core.errors import ConfigError
from fairprefix.gateway.shared import sync as sync_module
from fairprefix.gateway.shared.config import RedisConfig
from tests.gateway.redis_server import RedisServer
from tests.gateway.twin import COST, PROMPT, Host, Worker, running
from tests.gateway.waiting import soon

ENOUGH = 1500 * COST
"""Service after which the ratio has settled: 300 refills of the lighter client."""


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of its own."""
    with RedisServer(tmp_path) as server:
        yield server


def play(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a story; one that hangs has failed."""
    asyncio.run(asyncio.wait_for(story(), 180))


async def skewed(worker: Worker, one: Host, two: Host) -> None:
    """Let nearly everything of one client come through one gateway, and of the other through the other one."""
    one.flood("heavy", 9)
    one.flood("light", 1)
    two.flood("light", 9)
    two.flood("heavy", 1)
    await soon(lambda: sum(worker.served.values()) > ENOUGH)


def ratio(worker: Worker) -> float:
    """Return the heavier client's service as a multiple of the lighter one's."""
    return worker.served["heavy"] / worker.served["light"]


def test_weights_hold_over_two_gateways_with_skewed_ingress(redis: RedisServer) -> None:
    """Weights 4:1 give service 4:1, however the clients spread over the gateways (NVIDIA Dynamo issue 15187)."""

    async def story() -> None:
        worker, config = Worker(), RedisConfig(url=redis.url)
        one, two = Host(worker, config), Host(worker, config)
        async with running(one, two):
            await skewed(worker, one, two)
            assert 3.6 <= ratio(worker) <= 4.4, worker.served
            for host in (one, two):
                assert host.sync
                assert host.sync.figures.gateways == 2
                assert host.sync.figures.failures == 0
                assert host.sync.figures.delta > 0

    play(story)


def test_without_sharing_the_weights_are_lost() -> None:
    """The control: the same gateways, each with a ledger of its own, give nothing like 4:1."""

    async def story() -> None:
        worker = Worker()
        one, two = Host(worker, None), Host(worker, None)
        async with running(one, two):
            await skewed(worker, one, two)
            assert ratio(worker) < 2.5, worker.served

    play(story)


def test_each_client_at_a_gateway_of_its_own(redis: RedisServer) -> None:
    """Even where no gateway sees more than one client."""

    async def story() -> None:
        worker, config = Worker(), RedisConfig(url=redis.url)
        one, two = Host(worker, config), Host(worker, config)
        async with running(one, two):
            one.flood("heavy")
            two.flood("light")
            await soon(lambda: sum(worker.served.values()) > ENOUGH)
            assert 3.6 <= ratio(worker) <= 4.4, worker.served

    play(story)


def test_a_client_that_is_alone_is_not_held_back(redis: RedisServer) -> None:
    """Nobody else waits anywhere: the worker is kept busy by one client of the lightest weight."""

    async def story() -> None:
        worker, config = Worker(), RedisConfig(url=redis.url)
        one, two = Host(worker, config), Host(worker, config)
        async with running(one, two):
            two.flood("light")
            await soon(lambda: worker.served.get("light", 0) > ENOUGH // 5)

    play(story)


def test_a_gateway_that_dies_holds_nobody_back(redis: RedisServer) -> None:
    """Its waiting clients are forgotten after the lease."""

    async def story() -> None:
        worker, config = Worker(), RedisConfig(url=redis.url, lease_ms=300)
        one, two = Host(worker, config, window=0), Host(worker, config)
        one.flood("heavy")
        two.flood("light")
        async with running(two):
            await soon(lambda: two.served)
            async with running(one):
                # It waits, and admits nobody: sooner or later it alone has credit.
                before = -1
                while before != worker.served["light"]:
                    before = worker.served["light"]
                    await asyncio.sleep(0.25)
                assert getattr(two.policy, "holds_back", False)
            await soon(lambda: worker.served["light"] > before + 20 * COST)

    play(story)


def test_redis_may_die_and_come_back(redis: RedisServer) -> None:
    """Without it both gateways go on serving, and with it they share again; each says so once."""

    async def story() -> None:
        worker, config = Worker(), RedisConfig(url=redis.url, timeout_ms=200)
        one, two = Host(worker, config), Host(worker, config)
        async with running(one, two):
            one.flood("heavy")
            two.flood("light")
            await soon(lambda: one.served > 50 and two.served > 10)
            await asyncio.to_thread(redis.kill)
            await soon(lambda: one.troubles and two.troubles)
            served = one.served, two.served
            await soon(lambda: one.served > served[0] + 100 and two.served > served[1] + 100)
            await asyncio.to_thread(redis.start)
            await soon(lambda: len(one.troubles) == len(two.troubles) == 2)
            worker.served.clear()
            await soon(lambda: sum(worker.served.values()) > ENOUGH)
            assert 3.6 <= ratio(worker) <= 4.4, worker.served
            assert "does not answer" in one.troubles[0]
            assert "is back" in one.troubles[1]

    play(story)


def test_invented_names_do_not_add_up(redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has credit and nothing waiting may be forgotten, here at once and in Redis when it gets crowded."""
    monkeypatch.setattr(sync_module, "_MOST_CLIENTS", 50)

    async def story() -> None:
        host = Host(Worker(seconds=0), RedisConfig(url=redis.url))
        sync = host.sync
        assert sync
        async with running(host):
            for number in range(400):
                host.once(f"invented-{number}")
                if number % 20 == 0:
                    await soon(lambda: host.served > number - 20)  # noqa: B023
            await soon(lambda: host.served == 400)
            ledger = next(ledger for _, ledger in sync.ledgers())
            await soon(lambda: not ledger._clients)
            known = await sync._client.hlen(sync._keys("w")[0])
            assert known <= 50 + 21

    play(story)


def test_an_answer_that_is_lost_is_not_charged_twice(redis: RedisServer) -> None:
    """The same report sent again counts once."""

    async def story() -> None:
        host = Host(Worker(), RedisConfig(url=redis.url))
        sync = host.sync
        assert sync
        host.flood("light", 1)
        ledger = next(ledger for _, ledger in sync.ledgers())
        assert await sync._report_all()
        host.pump()
        await host.close()
        report = ledger.write()
        assert report.changes == (("light", -PROMPT),)
        answers: list[list[int]] = []
        ledger.read = answers.append  # type: ignore[method-assign,assignment]  # the answer is lost
        for _ in range(3):
            assert await sync._report_all()
            assert ledger.write() is report
        assert len({tuple(answer) for answer in answers}) == 1
        await sync._client.aclose()

    play(story)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost, and who has signed it."""
    folder = tmp_path_factory.mktemp("tls")
    request = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    names = "-addext subjectAltName=DNS:localhost -keyout server.key -out server.crt"
    subprocess.run(f"{request} {names}".split(), cwd=folder, check=True, capture_output=True)  # noqa: S603
    (folder / "ca.crt").write_bytes((folder / "server.crt").read_bytes())
    return folder


def test_password_and_tls(tmp_path: Path, certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gateways share over TLS with a password; without the right certificate or password they go on alone."""
    monkeypatch.setenv("REDIS_PASSWORD", "s3cret words")
    monkeypatch.setenv("WRONG", "other")

    async def story(server: RedisServer) -> None:
        right: dict[str, str] = {"password_env": "REDIS_PASSWORD", "ca_file": str(certificates / "ca.crt")}
        for wrong, connected in (({}, True), ({"password_env": "WRONG"}, False), ({"ca_file": ""}, False)):
            host = Host(Worker(), RedisConfig(url=server.url, **{**right, **wrong}))  # type: ignore[arg-type]
            sync = host.sync
            assert sync
            async with running(host):
                host.flood("light")
                await soon(lambda: sync.figures.connected or host.troubles)  # noqa: B023
                await soon(lambda: host.served > 20)  # noqa: B023
            assert sync.figures.connected is connected
            assert all("s3cret" not in text for text in host.troubles)

    with RedisServer(tmp_path, password="s3cret words", certificates=certificates) as server:  # noqa: S106
        play(lambda: story(server))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost:6379"}, "redis url = 'localhost:6379'"),
        ({"url": "redis://:word@a:1"}, "password_env"),
        ({"url": "redis://a:1", "ca_file": "/x"}, "ca_file"),
        ({"url": "rediss://a:1", "ca_file": "/nowhere"}, "ca_file"),
        ({"url": "redis://a:1", "interval_ms": 0}, "interval_ms"),
        ({"url": "redis://a:1", "lease_ms": 60}, "lease_ms"),
        ({"url": "redis://a:1", "namespace": "a{b"}, "namespace"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], message: str) -> None:
    """The error names the field, the value and the fix, and never shows a password."""
    with pytest.raises(ConfigError, match=message) as problem:
        RedisConfig(**settings)
    assert "word@" not in str(problem.value)


def test_a_missing_password_is_said_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Naming a variable that is not set is an error, not a connection without a password."""
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ConfigError, match="NOT_SET"):
        RedisConfig(url="redis://a:1", password_env="NOT_SET").arguments()  # noqa: S106


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tasks do not know that they were cancelled")
def test_an_end_that_the_client_of_redis_swallows_is_the_end_all_the_same(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A time limit in there may end at the moment of the cancellation, and hide it."""

    async def story() -> None:
        host = Host(Worker(), RedisConfig(url=redis.url))
        assert host.sync
        asked = asyncio.Event()

        async def swallow() -> bool:
            if asked.is_set():
                return True  # the last word, on the way out
            asked.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(30)
            return True

        monkeypatch.setattr(host.sync, "_report_all", swallow)
        task = asyncio.ensure_future(host.sync.run(host.changed))
        await asked.wait()
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=5)
        assert done
        assert task.cancelled()

    play(story)
