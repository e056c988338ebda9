"""What clients see: answers as if they spoke to the worker, errors that say what is wrong."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.gateway.rig import Process, Running, gateway, mock

PROMPT = "one two three four five six seven eight nine ten " * 8


@pytest.fixture(scope="module")
def worker() -> Iterator[Process]:
    """Start a quick worker."""
    with mock(step_ms=1, prefill_us=1) as started:
        yield started


@pytest.fixture(scope="module")
def front(worker: Process) -> Iterator[Running]:
    """Start a gateway in front of it, which believes this machine's headers."""
    options = ("--trust", "127.0.0.1")
    with gateway(f"{worker.url},window=4", options=options) as started:
        yield started


def ask(front: Running, path: str = "/v1/completions", **body: object) -> httpx.Response:
    """Send a request as the client `alice`."""
    body = {"model": "mock", "prompt": PROMPT, "max_tokens": 5} | body
    return httpx.post(f"{front.url}{path}", json=body, headers={"x-tenant-id": "alice"}, timeout=30)


def test_the_official_client_works_against_it(front: Running) -> None:
    """OpenAI's own client completes, chats and streams, with usage where it asks for it and none elsewhere."""
    client = openai.OpenAI(base_url=f"{front.url}/v1", api_key="none", max_retries=0)
    assert [model.id for model in client.models.list()] == ["mock"]
    done = client.completions.create(model="mock", prompt=PROMPT, max_tokens=3)
    assert done.choices[0].text == "tok tok tok "
    assert done.usage is not None
    assert done.usage.completion_tokens == 3
    chunks = list(
        client.chat.completions.create(
            model="mock", messages=[{"role": "user", "content": PROMPT}], max_tokens=4, stream=True
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "tok " * 4
    assert all(chunk.usage is None for chunk in chunks)
    asked = list(
        client.chat.completions.create(
            model="mock", messages=[{"role": "user", "content": PROMPT}], max_tokens=4, stream=True,
            stream_options={"include_usage": True},
        )
    )  # fmt: skip
    assert asked[-1].usage is not None
    assert asked[-1].usage.completion_tokens == 4
    client.close()


def test_usage_is_asked_for_and_taken_out_again(front: Running, worker: Process) -> None:
    """The worker is asked for usage in a stream; a client that did not ask sees the very events of one without."""
    through = ask(front, stream=True, mock_mark="through").text
    seen = httpx.get(f"{worker.url}/mock").json()["seen"][-1]["body"]
    assert seen["stream_options"] == {"include_usage": True}
    direct = httpx.post(
        f"{worker.url}/v1/completions", json={"prompt": PROMPT, "max_tokens": 5, "stream": True}, timeout=30
    ).text
    assert through.replace(" ", "") == direct.replace(" ", "")


@pytest.mark.parametrize("stream", [False, True])
def test_the_ledger_is_what_was_delivered(worker: Process, *, stream: bool) -> None:
    """Prompt, cached and output tokens of each client are exactly those that the worker computed and delivered."""
    before = httpx.get(f"{worker.url}/mock").json()
    with gateway(f"{worker.url},window=4", options=("--trust", "127.0.0.1")) as front:
        for length in (1, 7, 30):
            for name in ("alice", "bob"):
                body = {"prompt": PROMPT + name, "max_tokens": length, "stream": stream}
                headers = {"x-tenant-id": name}
                httpx.post(f"{front.url}/v1/completions", json=body, headers=headers, timeout=30)
        front.settled()
        after = httpx.get(f"{worker.url}/mock").json()
        alice, bob = front.client("alice"), front.client("bob")
    assert alice["output_tokens"] == bob["output_tokens"] == 38
    assert alice["input_tokens"] == 3 * 80 + 3  # one word is `alice`
    for name, figure in (("prompt", "input"), ("cached", "cached"), ("output", "output")):
        total = alice[f"{figure}_tokens"] + bob[f"{figure}_tokens"]
        assert total == after[f"{name}_tokens"] - before[f"{name}_tokens"], name


@pytest.mark.parametrize("stream", [False, True])
def test_a_worker_that_tells_no_usage_is_estimated(front: Running, *, stream: bool) -> None:
    """Without usage a stream's pieces count as tokens, and prompts and whole answers by their length."""
    front.settled()
    before = next(
        (c for c in front.state()["clients"] if c["name"] == "alice"), {"output_tokens": 0, "input_tokens": 0}
    )
    ask(front, stream=stream, mock_no_usage=True, max_tokens=6)
    front.settled()
    after = front.client("alice")
    assert after["output_tokens"] - before["output_tokens"] in ((6,) if stream else range(4, 9))
    assert 40 <= after["input_tokens"] - before["input_tokens"] <= 160


@pytest.mark.parametrize(
    ("raw", "code"), [(b'{"prompt": ', "invalid_json"), (b"[1, 2]", "invalid_json"), (b"", "invalid_json")]
)
def test_malformed_json_is_a_400_that_says_so(front: Running, raw: bytes, code: str) -> None:
    """What is no JSON object never reaches a worker."""
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{front.url}/v1/completions", content=raw, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


@pytest.mark.parametrize(
    "prompt", [[1, 2, 3], [[1], [2, 3]], ["a", "b"], "", None, {"x": 1}, [True, False], [-1], [1 << 70], "\ud800"]
)
def test_any_prompt_gets_through(front: Running, prompt: object) -> None:
    """Whatever a prompt is, what it means is for the worker to say."""
    raw = json.dumps({"prompt": prompt, "max_tokens": 1, "mock_no_usage": True}).encode()
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{front.url}/v1/completions", content=raw, headers=headers)
    assert answer.status_code in (200, 400), answer.text
    front.settled()


def test_a_body_that_is_too_large_is_a_413(front: Running) -> None:
    """A body of 50 MB is refused by its length, and by what came of it when no length was given."""
    body = b"x" * (50 << 20)
    answer = httpx.post(f"{front.url}/v1/completions", content=body, timeout=60)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    chunked = httpx.post(f"{front.url}/v1/completions", content=(body[: 1 << 20] for _ in range(40)), timeout=60)
    assert chunked.status_code == 413


def test_a_body_that_says_it_is_too_large_is_not_waited_for(front: Running) -> None:
    """Its length is in its head: the 413 comes before any of it."""
    with socket.create_connection(("127.0.0.1", front.port), timeout=10) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999\r\n\r\n")
        assert b" 413 " in connection.recv(1000).partition(b"\r\n")[0]


def test_a_large_body_reaches_the_worker_whole(front: Running, worker: Process) -> None:
    """Eight megabytes of prompt are computed to the last word."""
    before = httpx.get(f"{worker.url}/mock").json()["prompt_tokens"]
    assert ask(front, prompt="word " * (8 << 20 >> 2), max_tokens=1).status_code == 200
    assert httpx.get(f"{worker.url}/mock").json()["prompt_tokens"] - before == 8 << 20 >> 2


def test_the_workers_refusal_is_passed_on_and_costs_nothing(front: Running) -> None:
    """A 400 of the worker reaches the client as it is; the client is not charged."""
    before = front.settled()
    answer = ask(front, mock_status=400)
    assert (answer.status_code, answer.json()) == (400, {"error": {"message": "as you wish"}})
    after = front.settled()
    assert sum(c["service"] for c in after["clients"]) == sum(c["service"] for c in before["clients"])


def test_what_is_unknown_passes_through(front: Running) -> None:
    """Unknown paths below /v1 go to a worker; others are a 404 that names the setting."""
    embeddings = httpx.post(f"{front.url}/v1/embeddings", json={"input": "hello"})
    assert embeddings.json()["usage"]["prompt_tokens"] == 7
    assert httpx.delete(f"{front.url}/v1/files/7").json() == {
        "path": "/v1/files/7",
        "method": "DELETE",
        "bytes": 0,
    }
    audio = httpx.post(f"{front.url}/v1/audio", content=b"\0" * 999, headers={"content-type": "audio/wav"})
    assert audio.json()["bytes"] == 999
    hidden = httpx.post(f"{front.url}/flush_cache")
    assert hidden.status_code == 404
    assert "pass_through" in hidden.json()["error"]["message"]
    front.settled()


@pytest.mark.parametrize("path", [b"/v1/../flush_cache", b"/v1/%2e%2e/flush_cache", b"/v1/x/.."])
def test_dots_do_not_lead_out_of_what_is_passed_on(front: Running, path: bytes) -> None:
    """However it is written, a path that climbs is not passed on."""
    with socket.create_connection(("127.0.0.1", front.port), timeout=10) as connection:
        connection.sendall(b"GET " + path + b" HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert b" 404 " in connection.recv(1 << 16)[:20]


def test_nobody_reaches_figures_through_the_public_side(front: Running) -> None:
    """Figures and state are on the other listener alone, which refuses a name that is not this machine's."""
    for path in ("/metrics", "/admin/state"):
        assert httpx.get(f"{front.url}{path}").status_code == 404
        assert httpx.get(f"{front.admin}{path}").status_code == 200
        assert httpx.get(f"{front.admin}{path}", headers={"host": "evil.example"}).status_code == 403
