"""The server's endpoints, limits and identity, over a real socket."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from fairprefix.core.errors import ConfigError
from fairprefix.gpu_ref_engine.batch import StepBatch
from fairprefix.gpu_ref_engine.config import EngineConfig
from fairprefix.gpu_ref_engine.server.settings import ServerConfig
from fairprefix.gpu_ref_engine.tokenizer import byte_tokenizer
from tests.engine.fake import FakeRunner, continuation
from tests.engine.http import Served, serving

CHAT = {"messages": [{"role": "user", "content": "hello"}]}
TOKENIZER = byte_tokenizer(300)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """A server with the defaults, which trusts this machine's headers."""
    with serving() as found:
        yield found


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[openai.OpenAI]:
    """OpenAI's own client, pointed at it."""
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as found:
        yield found


def answer_to(text: str, tokens: int) -> str:
    """Return what the fake model says after a plain prompt."""
    return TOKENIZER.decode(continuation(TOKENIZER.encode(text), tokens, 300, eos=257))


# OpenAI's client.


def test_openai_completion(client: openai.OpenAI) -> None:
    """`completions.create` gives the model's own answer, with usage and a reason to finish."""
    found = client.completions.create(model="tiny", prompt="hello", max_tokens=12, temperature=0)
    assert found.choices[0].text == answer_to("hello", 12)
    assert found.choices[0].finish_reason == "length"
    assert found.usage is not None
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (6, 12)


def test_openai_completion_stream(client: openai.OpenAI) -> None:
    """A stream's pieces make up the same text, and its last chunk has the usage."""
    pieces = client.completions.create(
        model="tiny",
        prompt="hello",
        max_tokens=12,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(pieces)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == answer_to("hello", 12)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"


def test_openai_chat(client: openai.OpenAI) -> None:
    """`chat.completions.create` answers with a message, streamed or not, alike."""
    messages: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    whole = client.chat.completions.create(model="tiny", messages=messages, max_tokens=20, temperature=0)
    pieces = client.chat.completions.create(
        model="tiny", messages=messages, max_tokens=20, temperature=0, stream=True
    )
    text = whole.choices[0].message.content
    assert text
    assert whole.choices[0].message.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in pieces) == text


def test_openai_several_answers_with_logprobs(client: openai.OpenAI) -> None:
    """`n` answers are told apart by their index; log-probabilities come for every token."""
    messages: Any = CHAT["messages"]
    found = client.chat.completions.create(
        model="tiny", messages=messages, max_tokens=5, n=3, seed=1, logprobs=True, top_logprobs=2
    )
    assert [choice.index for choice in found.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in found.choices}) > 1
    for choice in found.choices:
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        assert all(len(entry.top_logprobs) == 2 for entry in choice.logprobs.content)
    assert found.usage is not None
    assert found.usage.completion_tokens == sum(
        len(choice.logprobs.content) for choice in found.choices if choice.logprobs and choice.logprobs.content
    )


def test_openai_stop_strings(client: openai.OpenAI) -> None:
    """An answer ends before its first stop string, streamed or not, and says so."""
    text = answer_to("stop me", 40)
    stop = text[9:11]
    arguments: Any = {"model": "tiny", "prompt": "stop me", "max_tokens": 40, "temperature": 0, "stop": [stop]}
    whole = client.completions.create(**arguments)
    assert whole.choices[0].text == text[: text.find(stop)]
    assert whole.choices[0].finish_reason == "stop"
    pieces = list(client.completions.create(**arguments, stream=True))
    assert "".join(chunk.choices[0].text for chunk in pieces) == whole.choices[0].text


def test_openai_models(client: openai.OpenAI) -> None:
    """The model is listed, found by its name, and others are not found."""
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "fairprefix"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("huge")


def test_openai_errors(client: openai.OpenAI) -> None:
    """OpenAI's client recognises our errors: status, message, field and code."""
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="tiny", prompt="x", temperature=3)
    assert caught.value.param == "temperature"
    assert "temperature = 3 is not valid: expected a number from 0 to 2" in str(caught.value)
    with pytest.raises(openai.NotFoundError, match="'huge' is not served here: expected 'tiny'"):
        client.completions.create(model="huge", prompt="x")


# Bad input.


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("completions", {}, "prompt"),
        ("completions", {"prompt": 7}, "prompt"),
        ("completions", {"prompt": [1, "x"]}, "prompt"),
        ("completions", {"prompt": [-1]}, "prompt"),
        ("completions", {"prompt": [[]]}, "prompt"),
        ("completions", {"prompt": [299, 300]}, "prompt"),
        ("completions", {"prompt": "x" * 9000}, "prompt"),
        ("completions", {"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ("completions", {"prompt": "x", "max_tokens": True}, "max_tokens"),
        ("completions", {"prompt": "x", "max_tokens": 10**30}, "max_tokens"),
        ("completions", {"prompt": "x", "temperature": "hot"}, "temperature"),
        ("completions", {"prompt": "x", "top_p": 0}, "top_p"),
        ("completions", {"prompt": "x", "n": 17}, "n"),
        ("completions", {"prompt": ["x"] * 17}, "n"),
        ("completions", {"prompt": "x", "seed": 1.5}, "seed"),
        ("completions", {"prompt": "x", "stop": ["a", ""]}, "stop"),
        ("completions", {"prompt": "x", "stop": ["a"] * 5}, "stop"),
        ("completions", {"prompt": "x", "stop_token_ids": ["a"]}, "stop_token_ids"),
        ("completions", {"prompt": "x", "stream": "yes"}, "stream"),
        ("completions", {"prompt": "x", "stream_options": 1}, "stream_options"),
        ("completions", {"prompt": "x", "logprobs": 6}, "logprobs"),
        ("completions", {"prompt": "x", "echo": True}, "echo"),
        ("completions", {"prompt": "x", "presence_penalty": 0.5}, "presence_penalty"),
        ("chat/completions", {}, "messages"),
        ("chat/completions", {"messages": ["hi"]}, "messages[0]"),
        ("chat/completions", {"messages": [{"role": "user"}]}, "messages[0].content"),
        ("chat/completions", {"messages": [{"role": 1, "content": "x"}]}, "messages[0].role"),
        ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
         "messages[0].content"),
        ("chat/completions", {**CHAT, "top_logprobs": 2}, "top_logprobs"),
        ("chat/completions", {**CHAT, "tools": [{"type": "function"}]}, "tools"),
        ("chat/completions", {**CHAT, "response_format": {"type": "json_object"}}, "response_format"),
        ("chat/completions", {**CHAT, "max_completion_tokens": -1}, "max_completion_tokens"),
    ],
)  # fmt: skip
def test_bad_input_is_a_clear_400(served: Served, path: str, body: dict[str, Any], param: str) -> None:
    """Each error names the field, its value and what would be right, and no request reaches the engine."""
    found = httpx.post(f"{served.url}/v1/{path}", json=body)
    assert found.status_code == 400, found.text
    error = found.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert len(error["message"]) < 400


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'"x"', b"[" * 100_000, b'{"prompt": "\\ud800"}'])
def test_a_malformed_body_is_a_400(served: Served, body: bytes) -> None:
    """Whatever is not a JSON object of Unicode text is refused in OpenAI's shape."""
    found = httpx.post(f"{served.url}/v1/completions", content=body)
    assert found.status_code == 400, found.text
    assert found.json()["error"]["message"]


def test_values_that_ask_for_nothing_special_are_taken(served: Served) -> None:
    """Fields that we do not support are harmless with the values that change nothing."""
    body = {
        **CHAT, "max_tokens": 2, "response_format": {"type": "text"}, "tools": [], "presence_penalty": 0,
        "logit_bias": None, "user": "u", "metadata": {"a": "b"}, "store": False, "something_new": 1,
    }  # fmt: skip
    assert httpx.post(f"{served.url}/v1/chat/completions", json=body).status_code == 200


def test_unknown_paths_and_methods(served: Served) -> None:
    """They are 404 and 405, in OpenAI's shape as well."""
    assert httpx.get(f"{served.url}/v2").json()["error"]["message"] == "not found"
    assert httpx.get(f"{served.url}/v1/completions").status_code == 405


# Limits.


def test_a_body_that_is_too_large_is_a_413() -> None:
    """With and without a declared length, reading stops at the limit."""
    with serving(max_body=1000) as served:
        big = json.dumps({"prompt": "x" * 2000}).encode()
        assert httpx.post(f"{served.url}/v1/completions", content=big).status_code == 413
        found = httpx.post(f"{served.url}/v1/completions", content=iter([big[:600], big[600:]]))
        assert found.status_code == 413
        assert found.json()["error"]["code"] == "body_too_large"


def test_a_prompt_that_is_too_long_is_a_400() -> None:
    """The operator's limit on prompts counts tokens, and the message has both numbers."""
    with serving(max_prompt=10) as served:
        found = httpx.post(f"{served.url}/v1/completions", json={"prompt": "x" * 10})
        assert found.status_code == 400
        assert found.json()["error"]["message"] == "the prompt has 11 tokens: expected at most 10"


def test_an_answer_that_may_become_too_long_is_a_400() -> None:
    """Nobody reserves memory for a million tokens: the operator's limit on output is in the message."""
    with serving(max_output=100) as served:
        found = httpx.post(f"{served.url}/v1/completions", json={"prompt": "x", "max_tokens": 1_000_000})
        assert found.status_code == 400
        assert found.json()["error"]["param"] == "max_tokens"
        assert "100" in found.json()["error"]["message"]


def slow(seconds: float = 0.02) -> FakeRunner:
    """Return a model that takes its time for each step."""
    runner = FakeRunner(pages=512, page_size=16, vocabulary=300)

    def delay(_batch: StepBatch) -> None:
        time.sleep(seconds)

    runner.on_launch = delay
    return runner


def opened(served: Served, client: str = "a", tokens: int = 400) -> httpx.Client:
    """Start a long stream and leave it open."""
    connection = httpx.Client()
    request = connection.build_request(
        "POST",
        f"{served.url}/v1/completions",
        json={"prompt": "x", "max_tokens": tokens, "ignore_eos": True, "stream": True},
        headers={"x-tenant-id": client},
    )
    response = connection.send(request, stream=True)
    assert response.status_code == 200
    return connection


def until(condition: Any, seconds: float = 10) -> None:  # noqa: ANN401
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.01)


def test_a_full_queue_is_a_429() -> None:
    """Beyond what may run and wait, requests are refused, and told to come back."""
    with serving(slow(), engine=EngineConfig(max_batch=1), max_waiting=2) as served:
        connections = [opened(served) for _ in range(3)]
        found = httpx.post(f"{served.url}/v1/completions", json={"prompt": "x"})
        assert found.status_code == 429
        assert found.json()["error"]["code"] == "queue_full"
        assert found.headers["retry-after"]
        for connection in connections:
            connection.close()
        until(lambda: not served.service.worker.requests)
        assert httpx.post(f"{served.url}/v1/completions", json={"prompt": "x"}).status_code == 200


def test_a_client_that_asks_too_much_at_once_is_a_429_for_itself_alone() -> None:
    """The limit per client leaves everybody else alone."""
    with serving(slow(), max_per_client=2) as served:
        connections = [opened(served, "greedy") for _ in range(2)]
        url, body = f"{served.url}/v1/completions", {"prompt": "x", "max_tokens": 2}
        greedy = httpx.post(url, json=body, headers={"x-tenant-id": "greedy"})
        assert (greedy.status_code, greedy.json()["error"]["code"]) == (429, "client_queue_full")
        assert httpx.post(url, json=body, headers={"x-tenant-id": "modest"}).status_code == 200
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_away_is_aborted_and_settled(*, stream: bool) -> None:
    """A disconnected client's request ends soon, holds no page, and pays for what was produced."""
    with serving(slow()) as served:
        if stream:
            connection = opened(served, "default-flow", tokens=2000)
            time.sleep(0.3)
            connection.close()
        else:
            body = {"prompt": "x", "max_tokens": 2000, "ignore_eos": True}
            with pytest.raises(httpx.ReadTimeout):
                httpx.post(f"{served.url}/v1/completions", json=body, timeout=0.3)
        until(lambda: not served.service.worker.engine.busy, 5)
        assert served.figures()["default-flow"]["fairprefix_request_output_tokens_total"] < 200
        assert served.service.worker.engine.cache.available == 512


def test_a_broken_engine_is_a_503() -> None:
    """When the model fails again and again, requests and health checks say so."""
    runner = FakeRunner(pages=512, page_size=16, vocabulary=300)

    def fail(_batch: StepBatch) -> None:
        raise RuntimeError("the device is gone")

    runner.on_launch = fail
    with serving(runner) as served:
        url = f"{served.url}/v1/completions"
        lost = [httpx.post(url, json={"prompt": "x"}).status_code for _ in range(3)]
        assert lost == [500, 500, 500]
        assert httpx.post(url, json={"prompt": "x"}).status_code == 503
        assert httpx.get(f"{served.url}/health").status_code == 503


# Identity.


def ask(served: Served, headers: dict[str, str], **body: object) -> int:
    """Ask a little; return the status."""
    found = httpx.post(
        f"{served.url}/v1/completions", json={"prompt": "x", "max_tokens": 2, **body}, headers=headers
    )
    return int(found.status_code)


def test_headers_of_a_trusted_proxy_name_the_client() -> None:
    """The configured sources decide in their order; a name is cleaned before it is used."""
    with serving() as served:
        ask(served, {"x-tenant-id": "team-a"})
        ask(served, {"x-tenant-id": "team-a", "x-llm-d-inference-fairness-id": "flow-1"})
        ask(served, {"x-tenant-id": "x" * 300})
        names = set(served.figures())
    assert {"team-a", "flow-1"} <= names
    assert all(len(name) <= 128 for name in names)


def test_nobody_can_name_himself_without_the_operators_trust() -> None:
    """From an address that is not trusted, headers, bodies and unchecked keys say nothing."""
    sources = ["header:x-tenant-id", "body:user", "api_key"]
    with serving(trusted=("10.1.2.3",), policy={"identity": sources}) as served:
        for number in range(5):
            ask(
                served,
                {
                    "x-tenant-id": f"t{number}",
                    "authorization": f"Bearer k{number}",
                    "x-forwarded-for": "10.1.2.3",
                },
                user=f"u{number}",
            )
        assert set(served.figures()) == {"default-flow"}


def test_api_keys_name_their_clients_and_keep_strangers_out() -> None:
    """With keys configured, a known key is needed, and its client cannot pass for another one."""
    with serving(api_keys={"secret-a": "alice", "secret-b": "bob"}, trusted=()) as served:
        assert ask(served, {}) == 401
        assert ask(served, {"authorization": "Bearer wrong"}) == 401
        assert ask(served, {"authorization": "Basic secret-a"}) == 401
        assert httpx.get(f"{served.url}/v1/models").status_code == 401
        assert ask(served, {"authorization": "Bearer secret-a", "x-tenant-id": "bob"}) == 200
        assert ask(served, {"authorization": "bearer secret-b"}) == 200
        figures = served.figures()
    assert set(figures) == {"alice", "bob"}
    assert figures["alice"]["fairprefix_request_total"] == 1


def test_a_salt_keeps_caches_apart() -> None:
    """Prompts share cached pages only with the same `cache_salt`."""
    with serving() as served:
        body = {"prompt": "x" * 100, "max_tokens": 1}
        cached = []
        for salt in ("a", "a", "b"):
            found = httpx.post(f"{served.url}/v1/completions", json={**body, "cache_salt": salt})
            cached.append(found.json()["usage"]["prompt_tokens_details"]["cached_tokens"])
    assert cached == [0, 96, 0]


@pytest.mark.parametrize(("field", "value"), [("trusted", ("nowhere",)), ("max_body", 0), ("max_per_client", 0)])
def test_settings_are_checked(field: str, value: object) -> None:
    """A setting out of its range is one clear error."""
    with pytest.raises(ConfigError, match=field):
        ServerConfig(**{"model": "m", field: value})  # type: ignore[arg-type]


# Operation.


def test_metrics(served: Served) -> None:
    """/metrics is in Prometheus' format and has the policy's, the engine's and HTTP's figures."""
    ask(served, {"x-tenant-id": "metered"})
    text = httpx.get(f"{served.url}/metrics").text
    for name in (
        'fairprefix_request_total{fairness_id="metered",model_name="tiny"} 1.0',
        'fairprefix_request_output_tokens_total{fairness_id="metered",model_name="tiny"} 2.0',
        'fairprefix_kv_pages{model_name="tiny"} 512.0',
        "fairprefix_prefix_hit_ratio",
        "fairprefix_bound_ratio",
        "fairprefix_deficit_tokens",
        "fairprefix_queue_wait_seconds_bucket",
        "fairprefix_time_to_first_token_seconds_count",
        'fairprefix_http_responses_total{model_name="tiny",status="200"}',
        'fairprefix_step_share{model_name="tiny",phase="policy"}',
    ):
        assert name in text, name


def test_a_failing_policy_never_harms_the_server(caplog: pytest.LogCaptureFixture) -> None:
    """When the policy raises, arrival order takes over: every request is answered, and it is said once."""
    with serving() as served:
        policy = served.service.worker.engine.policy

        def peek() -> None:
            raise RuntimeError("a bug")

        policy._policy.peek = peek  # type: ignore[attr-defined]
        assert [ask(served, {}) for _ in range(5)] == [200] * 5
        assert policy.errors == 1  # type: ignore[attr-defined]
    assert caplog.text.count("the policy failed") == 1


def test_a_connection_that_breaks_off_in_the_middle_of_its_body_harms_nobody(served: Served) -> None:
    """Half a request is forgotten."""
    host, port = served.url.removeprefix("http://").split(":")
    for _ in range(5):
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 500\r\n\r\n{"prompt"')
    assert ask(served, {}) == 200
