"""Everything at once: workers killed, clients that vanish, stop reading, shout nonsense and invent names.

FAIRPREFIX_CHAOS_S says for how many seconds: 8, or sixty in `make test-gateway`, ten minutes in `make nightly`.
Afterwards nothing is left over: no place in a window, no entry in a queue, no memory that grew with the noise.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import random
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.gateway.rig import Process, Running, gateway, mock, wait_until

SECONDS = float(os.environ.get("FAIRPREFIX_CHAOS_S", "8"))
NAMES = 100_000
LARGE = b'{"prompt": "' + b"word " * (10 << 20) + b'", "max_tokens": 1}'
"""A body of 50 MB."""
SMALL = {
    "max_clients": 100,
    "router": {"max_clients": 100, "worker_blocks": 2000},
    "gateway": {"trusted": ["127.0.0.1"], "names": 50},
}
"""Tables that are full before memory is looked at: what grows then is a leak."""


class Chaos:
    """Clients of every kind, in front of one gateway.

    Args:
        front: the gateway.
        until: when to stop, on the monotonic clock.
    """

    def __init__(self, front: Running, until: float) -> None:
        self._url = front.url
        self._port = front.port
        self._until = until
        self._random = random.Random(7)  # noqa: S311 (a workload)
        self.outcomes: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self.name = 0

    async def run(self) -> None:
        """Go on until it is time."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            kinds = [self._good] * 8 + [self._stream] * 8 + [self._vanish] * 6 + [self._invent] * 4
            kinds += [self._nonsense, self._large, self._slow]
            await asyncio.gather(*(self._repeat(kind, session) for kind in kinds))

    async def _repeat(self, kind: object, session: aiohttp.ClientSession) -> None:
        assert callable(kind)
        while time.monotonic() < self._until:
            # The gateway may cut a connection while a large body is still being sent: it has refused it by then.
            with contextlib.suppress(aiohttp.ClientConnectionError, ConnectionError):
                await kind(session)
            await asyncio.sleep(0.01)

    async def _ask(self, session: aiohttp.ClientSession, name: str, **body: object) -> tuple[int, bytes]:
        words = " ".join(f"w{self._random.randrange(50)}" for _ in range(self._random.randrange(5, 200)))
        sent = {"prompt": words, "max_tokens": self._random.randrange(1, 40)} | body
        headers = {"x-tenant-id": name}
        async with session.post(f"{self._url}/v1/completions", json=sent, headers=headers) as answer:
            return answer.status, await answer.read()

    def _count(self, kind: str, status: int, expected: tuple[int, ...]) -> None:
        self.outcomes[f"{kind} {status}"] += 1
        if status not in expected:
            self.unexpected.append(f"{kind}: {status}")

    async def _good(self, session: aiohttp.ClientSession) -> None:
        status, _ = await self._ask(session, f"good {self._random.randrange(5)}")
        self._count("whole", status, (200,))

    async def _stream(self, session: aiohttp.ClientSession) -> None:
        status, body = await self._ask(session, "streams", stream=True)
        self._count("stream", status, (200,))
        if not body.endswith(b"[DONE]\n\n"):
            self.outcomes["stream broken"] += 1
            if b"worker_failed" not in body:
                self.unexpected.append(f"a stream ended without a word: {body[-200:]!r}")

    async def _vanish(self, session: aiohttp.ClientSession) -> None:
        with contextlib.suppress(asyncio.TimeoutError):
            patience = self._random.random() * 0.3
            await asyncio.wait_for(self._ask(session, "vanishing", stream=self._random.random() < 0.5), patience)
        self.outcomes["vanished"] += 1

    async def _invent(self, session: aiohttp.ClientSession) -> None:
        self.name = (self.name + 1) % NAMES
        status, _ = await self._ask(session, f"invented {self.name}", prompt="x", max_tokens=1)
        self._count("invented", status, (200,))

    async def _nonsense(self, session: aiohttp.ClientSession) -> None:
        data = self._random.choice([b"{", b"[]", b"\xff\xfe", b'{"prompt": 1e999}', b"null", b'{"a":' * 2000])
        headers = {"content-type": "application/json"}
        async with session.post(f"{self._url}/v1/chat/completions", data=data, headers=headers) as answer:
            await answer.read()
            self._count("nonsense", answer.status, (400,))

    async def _large(self, session: aiohttp.ClientSession) -> None:
        async with session.post(f"{self._url}/v1/completions", data=io.BytesIO(LARGE)) as answer:
            await answer.read()
            self._count("large", answer.status, (413,))
        await asyncio.sleep(1)

    async def _slow(self, session: aiohttp.ClientSession) -> None:
        """Ask for a long stream, and read next to nothing of it."""
        del session  # a connection of its own
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1024)
        body = b'{"prompt": "x", "max_tokens": 3000, "stream": true}'
        writer.write(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        await reader.read(100)
        await asyncio.sleep(2)
        writer.close()
        self.outcomes["slow"] += 1


async def _kill_and_restart(stack: ExitStack, workers: list[Process], until: float) -> int:
    """Kill a worker now and then, and start it again on the same port."""
    killed = 0
    while time.monotonic() + 3 < until:
        await asyncio.sleep(2)
        place = killed % len(workers)
        workers[place].kill()
        killed += 1
        await asyncio.sleep(1)
        again = mock(step_ms=2, prefill_us=2, slots=16, port=workers[place].port)
        workers[place] = await asyncio.to_thread(stack.enter_context, again)
    return killed


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_chaos_leaves_nothing_behind(tmp_path: Path) -> None:
    """No request is lost without a word, no place leaks, memory is flat, and it is as good as new afterwards."""
    with ExitStack() as stack:
        workers = [stack.enter_context(mock(step_ms=2, prefill_us=2, slots=16)) for _ in range(3)]
        urls = [f"{worker.url},window=16" for worker in workers]
        front = stack.enter_context(gateway(*urls, settings=SMALL, folder=tmp_path))
        memory = psutil.Process(front.process.pid)
        asyncio.run(
            Chaos(front, time.monotonic() + min(SECONDS / 2, 20)).run()
        )  # until caches and tables are full
        before = memory.memory_info().rss
        until = time.monotonic() + SECONDS

        async def storm() -> tuple[Chaos, int]:
            chaos = Chaos(front, until)
            chaos.name = 50_000
            _, killed = await asyncio.gather(chaos.run(), _kill_and_restart(stack, workers, until))
            return chaos, killed

        chaos, killed = asyncio.run(storm())
        assert killed >= 1
        assert not chaos.unexpected, (chaos.unexpected[:10], chaos.outcomes)
        for kind in ("whole 200", "stream 200", "invented 200", "nonsense 400", "large 413", "vanished", "slow"):
            assert chaos.outcomes[kind], (kind, chaos.outcomes)
        front.settled()
        growth = memory.memory_info().rss / before
        assert growth < 1.10 or SECONDS < 30, f"memory grew to {growth:.2f} of what it was: {chaos.outcomes}"
        wait_until(lambda: all(worker["alive"] for worker in front.state()["workers"]), 15)
        assert len(front.state()["clients"]) == 51
