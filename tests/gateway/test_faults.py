"""Workers that fail, clients that go, queues that fill: nothing is lost, nothing leaks, all is charged once."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter

import httpx
import psutil
import pytest

from tests.gateway.rig import Process, Running, gateway, mock, wait_until

TRUST = ("--trust", "127.0.0.1")


def completion(front: Running, **body: object) -> httpx.Response:
    """Send a request as `alice`."""
    body = {"prompt": "one two three", "max_tokens": 4} | body
    return httpx.post(f"{front.url}/v1/completions", json=body, headers={"x-tenant-id": "alice"}, timeout=60)


def test_no_worker_is_a_503_with_its_reason() -> None:
    """Where no worker listens the answer is a 503 at once, with Retry-After, and the gateway's health says so."""
    with mock() as worker:
        worker.kill()
        with gateway(f"{worker.url},window=4") as front:
            answer = completion(front)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_worker")
            assert answer.headers["retry-after"] == "1"
            assert httpx.get(f"{front.url}/health").status_code == 503
            front.settled()


def test_a_failed_answer_is_tried_elsewhere_and_charged_once() -> None:
    """A 500 is no fault of the client's: after the last try it gets the worker's own words, and pays nothing."""
    with mock(step_ms=1) as one, mock(step_ms=1) as two, gateway(one.url, two.url, options=TRUST) as front:
        answer = completion(front, mock_status=500)
        assert (answer.status_code, answer.json()) == (500, {"error": {"message": "as you wish"}})
        state = front.settled()
        assert state["retries"] == 2
        assert state["clients"][0]["service"] == 0
        assert completion(front).status_code == 200
        front.settled()
        assert front.client("alice")["output_tokens"] == 4


def test_a_worker_that_keeps_failing_is_given_a_rest() -> None:
    """After some failures in a row a worker is out of rotation, and comes back when it has rested."""
    with mock(step_ms=1) as worker, gateway(f"{worker.url},window=4", options=TRUST) as front:
        for _ in range(2):
            completion(front, mock_status=502)
        assert not front.state()["workers"][0]["alive"]
        assert "failures in a row" in front.state()["workers"][0]["why"]
        assert completion(front).status_code == 503
        wait_until(lambda: bool(front.state()["workers"][0]["alive"]), 15)
        assert completion(front).status_code == 200


@pytest.mark.parametrize(("status", "why"), [(500, "status 500"), (0, "it did not answer in time")])
def test_a_worker_that_fails_its_health_checks_rests_until_it_passes_one(status: int, why: str) -> None:
    """Two in a row, with an error or without an answer; those who wait for it go elsewhere meanwhile."""
    limits = {"health_interval_s": 0.1, "connect_timeout_s": 1}
    with (
        mock(step_ms=5, slots=1) as sick,
        mock(step_ms=5, slots=1) as well,
        _limited(sick, **limits, also=well) as front,
    ):

        def of_sick() -> dict[str, object]:
            return next(worker for worker in front.state()["workers"] if worker["url"] == sick.url)

        httpx.get(f"{sick.url}/mock/health/{status}")
        wait_until(lambda: not of_sick()["alive"], 10)
        assert why in str(of_sick()["why"])
        for _ in range(4):
            assert completion(front).status_code == 200
        assert of_sick()["requests"] == 0
        httpx.get(f"{sick.url}/mock/health/200")
        wait_until(lambda: bool(of_sick()["alive"]), 10)


def test_who_waits_for_the_last_worker_is_told_when_it_dies() -> None:
    """With nobody left to serve them, those in the queue get a 503 at once."""
    with mock(step_ms=20, slots=1) as worker, _limited(worker, health_interval_s=0.1) as front:

        async def run() -> list[tuple[int, str]]:
            async with httpx.AsyncClient(timeout=30) as client:
                body = {"prompt": "one", "max_tokens": 200}
                asks = [client.post(f"{front.url}/v1/completions", json=body) for _ in range(4)]
                answers = asyncio.gather(*asks)
                await asyncio.sleep(0.3)
                worker.kill()
                return [(one.status_code, one.json()["error"]["code"]) for one in await answers]

        assert set(asyncio.run(run())) <= {(503, "no_worker"), (502, "worker_failed")}
        front.settled()


def test_where_too_many_wait_in_all_everybody_gets_a_503() -> None:
    """The limit over all clients has a reason of its own, and says when to come back."""
    with mock(step_ms=20, slots=1) as worker, _limited(worker, max_waiting=2) as front:

        async def run() -> list[httpx.Response]:
            async with httpx.AsyncClient(timeout=60) as client:
                url, body = f"{front.url}/v1/completions", {"prompt": "one", "max_tokens": 10}
                asks = [client.post(url, json=body, headers={"x-tenant-id": f"c{k}"}) for k in range(6)]
                return list(await asyncio.gather(*asks))

        refused = [answer for answer in asyncio.run(run()) if answer.status_code != 200]
        assert [answer.status_code for answer in refused] == [503] * 3  # one inside, two in the queue
        assert {answer.headers["x-llm-d-request-dropped-reason"] for answer in refused} == {"queue_full"}
        assert all(answer.headers["retry-after"] for answer in refused)
        front.settled()


def test_a_stream_that_breaks_ends_with_an_error_event_and_pays_for_what_came() -> None:
    """What had been delivered is charged; the client is told, in the stream, that there is no more."""
    with mock(step_ms=1) as worker, gateway(f"{worker.url},window=4", options=TRUST) as front:
        text = completion(front, stream=True, max_tokens=9, mock_break=3).text
        events = [line for line in text.split("\n\n") if line]
        assert text.count('"tok "') == 3
        assert '"code":"worker_failed"' in events[-1]
        assert "[DONE]" not in text
        front.settled()
        assert front.client("alice")["output_tokens"] == 3


def test_an_answer_in_one_piece_that_breaks_is_tried_again() -> None:
    """Nothing was delivered yet, so that another worker answers as if nothing had happened."""
    with mock(step_ms=20) as one, mock(step_ms=20) as two, gateway(one.url, two.url, options=TRUST) as front:

        async def run() -> list[int]:
            async with httpx.AsyncClient(timeout=60) as client:
                body = {"prompt": "one two three", "max_tokens": 50}
                asks = [client.post(f"{front.url}/v1/completions", json=body) for _ in range(8)]
                answers = asyncio.gather(*asks)
                await asyncio.sleep(0.4)
                one.kill()
                return [answer.status_code for answer in await answers]

        assert asyncio.run(run()) == [200] * 8
        state = front.settled()
        assert state["retries"] >= 1
        assert sum(client["output_tokens"] for client in state["clients"]) == 400


def test_who_waits_for_a_worker_that_dies_is_sent_elsewhere() -> None:
    """The queue of a dead worker is empty at once: all of it goes on in the queues of the others."""
    with (
        mock(step_ms=10, slots=1) as one,
        mock(step_ms=10, slots=1) as two,
        gateway(f"{one.url},window=1", f"{two.url},window=1", options=TRUST) as front,
    ):

        async def run() -> list[int]:
            async with httpx.AsyncClient(timeout=30) as client:
                url, body = f"{front.url}/v1/completions", {"prompt": "one two three", "max_tokens": 20}
                answers = asyncio.gather(*(client.post(url, json=body) for _ in range(16)))
                await asyncio.sleep(0.3)
                one.kill()
                return [answer.status_code for answer in await answers]

        assert asyncio.run(run()) == [200] * 16
        front.settled()


def test_killing_one_of_three_workers_loses_nothing_that_had_not_started() -> None:
    """SIGKILL under 25 requests a second: whole answers all come, broken streams say so, the books agree."""
    speed = {"step_ms": 5, "slots": 8}
    with mock(**speed) as one, mock(**speed) as two, mock(**speed) as three:
        workers = [f"{worker.url},window=8" for worker in (one, two, three)]
        with gateway(*workers, options=TRUST) as front:
            outcome, delivered = asyncio.run(_load(front, one, seconds=6))
            assert outcome["lost"] == 0, outcome
            assert outcome["ok"] >= 100
            state = front.settled()
            assert sum(client["output_tokens"] for client in state["clients"]) == delivered
            assert [worker["alive"] for worker in state["workers"]].count(False) == 1
            with mock(**speed, port=one.port):
                wait_until(lambda: all(worker["alive"] for worker in front.state()["workers"]), 10)


async def _load(front: Running, victim: Process, *, seconds: float) -> tuple[Counter[str], int]:
    """Send 25 requests a second, half of them streams, and kill a worker in the middle."""
    outcome: Counter[str] = Counter()
    delivered = 0

    async def one(client: httpx.AsyncClient, number: int) -> None:
        nonlocal delivered
        stream = number % 2 == 0
        body = {"prompt": f"{number % 5} two three " * 20, "max_tokens": 30, "stream": stream}
        headers = {"x-tenant-id": f"c{number % 4}"}
        answer = await client.post(f"{front.url}/v1/completions", json=body, headers=headers)
        if answer.status_code != 200:
            outcome["lost"] += 1
        elif not stream:
            outcome["ok"] += 1
            delivered += answer.json()["usage"]["completion_tokens"]
        else:
            delivered += answer.text.count('"tok "')
            outcome["ok" if answer.text.endswith("[DONE]\n\n") else "broken"] += 1
            if not answer.text.endswith("[DONE]\n\n") and "worker_failed" not in answer.text:
                outcome["lost"] += 1

    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=500)) as client:
        tasks = []
        for number in range(int(25 * seconds)):
            tasks.append(asyncio.create_task(one(client, number)))
            if number == int(25 * seconds / 2):
                victim.kill()
            await asyncio.sleep(0.04)
        await asyncio.gather(*tasks)
    return outcome, delivered


def test_only_a_client_whose_own_queue_is_full_is_turned_away(tmp_path: object) -> None:
    """The 429 names the reason; everybody else goes on being served."""
    del tmp_path
    with mock(step_ms=20, slots=1) as worker, _limited(worker, max_queued=3) as front:

        async def run() -> tuple[list[httpx.Response], httpx.Response]:
            async with httpx.AsyncClient(timeout=60) as client:

                def ask(name: str) -> asyncio.Task[httpx.Response]:
                    body = {"prompt": "hello", "max_tokens": 20}
                    headers = {"x-tenant-id": name}
                    return asyncio.create_task(
                        client.post(f"{front.url}/v1/completions", json=body, headers=headers)
                    )

                many = [ask("greedy") for _ in range(8)]
                await asyncio.sleep(0.2)
                light = ask("light")
                return [await task for task in many], await light

        many, light = asyncio.run(run())
        refused = [answer for answer in many if answer.status_code == 429]
        assert len(refused) == 4  # one inside, three in the queue
        assert refused[0].headers["x-llm-d-request-dropped-reason"] == "client_queue_full"
        assert light.status_code == 200
        front.settled()
        assert front.client("greedy")["refused"] == 4


def test_nobody_waits_longer_than_the_deadline() -> None:
    """Who is not let in within `queue_timeout_s` gets a 504 that says so, and pays nothing."""
    with mock(step_ms=50, slots=1) as worker, _limited(worker, queue_timeout_s=1) as front:

        async def run() -> list[httpx.Response]:
            async with httpx.AsyncClient(timeout=60) as client:
                body = {"prompt": "hello", "max_tokens": 60}
                return list(
                    await asyncio.gather(*(client.post(f"{front.url}/v1/completions", json=body) for _ in "ab"))
                )

        answers = asyncio.run(run())
        assert sorted(answer.status_code for answer in answers) == [200, 504]
        front.settled()
        assert front.client("default-flow")["output_tokens"] == 60


def test_a_client_that_goes_away_gives_back_its_place() -> None:
    """Waiting it pays nothing; inside it pays for its prompt and for what it was sent, and the worker stops."""
    with mock(step_ms=20, slots=1) as worker, gateway(f"{worker.url},window=1", options=TRUST) as front:

        async def run() -> int:
            async with httpx.AsyncClient(timeout=60) as client:
                url, got = f"{front.url}/v1/completions", 0
                body = {"prompt": "hello", "max_tokens": 500, "stream": True}
                async with client.stream("POST", url, json=body, headers={"x-tenant-id": "inside"}) as answer:
                    waiting = asyncio.create_task(client.post(url, json=body, headers={"x-tenant-id": "waiting"}))
                    async for line in answer.aiter_lines():
                        got += '"tok "' in line
                        if got == 10:
                            break
                    waiting.cancel()
                    await asyncio.sleep(0.2)
                return got

        asyncio.run(run())
        front.settled()
        assert 10 <= front.client("inside")["output_tokens"] < 60
        assert front.client("waiting")["service"] == 0
        wait_until(lambda: 'running{model_name="mock"} 0.0' in httpx.get(f"{worker.url}/metrics").text.replace(
            "vllm:num_requests_", ""), 5)  # fmt: skip


def test_a_reader_that_stops_reading_is_cut_off() -> None:
    """It holds its place for `write_timeout_s`, no longer, and its connection hardly longer."""
    with mock(step_ms=0.1, slots=2) as worker, _limited(worker, write_timeout_s=1) as front:
        body = b'{"prompt":"x","max_tokens":200000,"stream":true}'
        head = b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body)
        with socket.create_connection(("127.0.0.1", front.port)) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(head + body)
            wait_until(lambda: front.metrics()["fairprefix_slow_readers_total"] == 1, 30)
            front.settled()
            here = connection.getsockname()[1]
            process = psutil.Process(front.process.pid)
            wait_until(lambda: here not in [c.raddr.port for c in process.net_connections() if c.raddr], 20)


def test_invented_names_share_one_line_in_the_figures() -> None:
    """Figures tell a thousand clients apart, and count all others together."""
    with mock(step_ms=1, slots=64) as worker, gateway(f"{worker.url},window=64", options=TRUST) as front:

        async def run() -> None:
            limits = httpx.Limits(max_connections=16, max_keepalive_connections=16)
            async with httpx.AsyncClient(timeout=60, limits=limits) as client:

                async def some(start: int) -> None:
                    for number in range(start, start + 100):
                        body = {"prompt": "x", "max_tokens": 1}
                        headers = {"x-tenant-id": f"invented {number}"}
                        await client.post(f"{front.url}/v1/completions", json=body, headers=headers)

                await asyncio.gather(*(some(100 * k) for k in range(15)))

        asyncio.run(run())
        state = front.settled()
        assert len(state["clients"]) == 1001
        assert front.client("other")["requests"] == 500
        assert len([name for name in front.metrics() if name.startswith("fairprefix_request_total")]) == 1001


def _limited(worker: Process, *, also: Process | None = None, **limits: object) -> _Limited:
    return _Limited([worker, also] if also else [worker], limits)


class _Limited:
    """A gateway with one place at each worker, and some other limits."""

    def __init__(self, workers: list[Process], limits: dict[str, object]) -> None:
        import tempfile  # noqa: PLC0415
        from pathlib import Path  # noqa: PLC0415

        self._folder = tempfile.TemporaryDirectory()
        settings = {"gateway": {"trusted": ["127.0.0.1"], **limits}}
        urls = [f"{worker.url},window=1" for worker in workers]
        self._inner = gateway(*urls, settings=settings, folder=Path(self._folder.name))

    def __enter__(self) -> Running:
        return self._inner.__enter__()

    def __exit__(self, *problem: object) -> None:
        self._inner.__exit__(*problem)  # type: ignore[arg-type]
        self._folder.cleanup()


def test_sigterm_lets_requests_finish() -> None:
    """A stream that is under way comes to its end, and the process ends with 0."""
    with mock(step_ms=10) as worker, gateway(f"{worker.url},window=4") as front:
        body = {"prompt": "hello", "max_tokens": 60, "stream": True}
        with httpx.stream("POST", f"{front.url}/v1/completions", json=body, timeout=60) as stream:
            lines = stream.iter_lines()
            next(lines)
            front.process.terminate()
            rest = list(lines)
        assert rest[-2] == "data: [DONE]"
        began = time.monotonic()
        assert front.process.wait(20) == 0
        assert time.monotonic() - began < 10


@pytest.mark.parametrize("path", ["/v1/models", "/v1/files"])
def test_what_needs_no_queue_is_tried_with_the_next_worker(path: str) -> None:
    """A worker that is gone costs a question nothing but a moment."""
    with mock() as one, mock() as two, gateway(one.url, two.url) as front:
        one.kill()
        for _ in range(4):
            assert httpx.get(f"{front.url}{path}").status_code == 200
