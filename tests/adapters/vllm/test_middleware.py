"""The middleware: who is named, who is overwritten, and what is left alone."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from fairprefix.adapters.vllm.client import client_of, engine_identity, mark, marked_client, unmark
from fairprefix.adapters.vllm.middleware import ClientIdMiddleware, Message, Receive, Send
from fairprefix.core.errors import ConfigError

from .fakes import FakeRequest

SOURCES = ("header:x-tenant-id", "api_key", "body:user")


class Server:
    """What stands behind the middleware: notes what it gets."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.body = b""
        self.after: list[str] = []

    async def __call__(self, scope: Message, receive: Receive, _send: Send) -> None:
        """Read the whole body, and what comes after it."""
        self.headers = {name.decode(): value.decode("latin-1") for name, value in scope.get("headers", [])}
        while (message := await receive())["type"] == "http.request":
            self.body += message["body"]
            if not message.get("more_body"):
                break
        self.after.append((await receive())["type"])


def send(
    path: str,
    body: object,
    headers: dict[str, str] | None = None,
    *,
    sources: tuple[str, ...] | None = SOURCES,
    method: str = "POST",
    scope: dict[str, Any] | None = None,
) -> Server:
    """Send one request, its body in two parts, and then go away."""
    server = Server()
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    messages = [
        {"type": "http.request", "body": raw[:5], "more_body": True},
        {"type": "http.request", "body": raw[5:], "more_body": False},
    ]

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def nothing(_message: Message) -> None:
        return None

    sent = {"content-type": "application/json", "content-length": str(len(raw)), **(headers or {})}
    asked = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in sent.items()],
        **(scope or {}),
    }
    asyncio.run(ClientIdMiddleware(server, sources)(asked, receive, nothing))
    return server


@pytest.mark.parametrize(
    ("headers", "body", "client"),
    [
        ({"X-Tenant-ID": "alice"}, {}, "alice"),
        ({"x-tenant-id": "alice", "Authorization": "Bearer k"}, {"user": "bob"}, "alice"),
        ({}, {"user": "bob"}, "bob"),
        ({"X-Tenant-ID": "  "}, {"user": "bob"}, "bob"),
        ({"X-Tenant-ID": "x" * 500}, {}, None),
        ({"Authorization": "Bearer secret"}, {}, None),
        ({"x-api-key": "secret"}, {}, None),
    ],
)
def test_the_first_source_that_names_somebody_decides(
    headers: dict[str, str], body: dict[str, object], client: str | None
) -> None:
    """Names are cut, keys are never shown."""
    named = json.loads(send("/v1/completions", body, headers).body)["vllm_xargs"]["fairprefix_client"]
    assert named == client if client else len(named) <= 128
    assert "secret" not in named


@pytest.mark.parametrize(
    "path", ["/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/messages", "/prefix/v1/completions/"]
)
def test_generation_requests_carry_the_name_in_their_body(path: str) -> None:
    """What a client wrote into our field is overwritten; all else stays, and the length is right."""
    body = {"prompt": "grüß", "vllm_xargs": {"fairprefix_client": "victim", "mine": [1, 2]}, "temperature": 0.1}
    server = send(path, body, {"x-tenant-id": "thief"})
    assert json.loads(server.body) == {**body, "vllm_xargs": {"fairprefix_client": "thief", "mine": [1, 2]}}
    assert server.headers["content-length"] == str(len(server.body))
    assert server.after == ["http.disconnect"], "the news of a disconnect must come through"


def test_a_name_that_nobody_vouches_for_is_removed() -> None:
    """So that the scheduler's fallbacks apply, and not what the client claims."""
    server = send("/v1/completions", {"vllm_xargs": {"fairprefix_client": "victim"}})
    assert json.loads(server.body) == {"vllm_xargs": {}}


@pytest.mark.parametrize("body", [b"{nonsense", b"[1, 2]", b"", b"\xff\xfe", {"vllm_xargs": ["no", "table"]}])
def test_what_is_malformed_is_for_vllm_to_refuse(body: object) -> None:
    """It is passed on as it is."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    assert send("/v1/completions", body, {"x-tenant-id": "a"}).body == raw


def test_other_requests_carry_the_name_in_their_id() -> None:
    """The only thing of theirs that vLLM hands to its scheduler; a client's own mark is taken off."""
    spoof = {"x-request-id": mark("victim", "7")}
    server = send("/v1/embeddings", {"input": "x"}, {"x-tenant-id": "thief", **spoof})
    assert marked_client(server.headers["x-request-id"]) == "thief"
    assert unmark(server.headers["x-request-id"]) == "7"
    assert json.loads(server.body) == {"input": "x"}
    unnamed = send("/v1/embeddings", {"input": "x"}, spoof).headers["x-request-id"]
    assert (marked_client(unnamed), unmark(unnamed)) == ("", "7")
    assert send("/v1/completions", {}, {**spoof, "x-tenant-id": "a"}).headers["x-request-id"] == "7"
    assert "x-request-id" not in send("/v1/completions", {}).headers


@pytest.mark.parametrize("claim", [mark("victim", "7"), f"fpfpc..c.{mark('victim', '7')[4:]}"])
def test_a_mark_that_a_client_wrote_is_taken_off(claim: str) -> None:
    """From the header and from the body's own id, also where one mark hides another."""
    body = {"prompt": "x", "request_id": claim}
    assert json.loads(send("/v1/completions", body, {"x-tenant-id": "thief"}).body)["request_id"] == "7"
    assert send("/v1/completions", {}, {"x-request-id": claim}).headers["x-request-id"] == "7"
    other = send("/inference/v1/generate", body, {"x-tenant-id": "thief", "x-request-id": claim})
    assert marked_client(other.headers["x-request-id"]) == "thief"


def test_uploads_are_not_read() -> None:
    """A file that is sent as a form passes through untouched, and carries its name all the same."""
    form = {"content-type": "multipart/form-data; boundary=x", "x-tenant-id": "a"}
    server = send("/v1/audio/transcriptions", b"--x--", form)
    assert server.body == b"--x--"
    assert marked_client(server.headers["x-request-id"]) == "a"


@pytest.mark.parametrize("scope", [{"method": "GET"}, {"type": "websocket"}, {"type": "lifespan"}])
def test_all_else_passes_through(scope: dict[str, Any]) -> None:
    """Only posted requests are looked at."""
    server = send("/v1/completions", {"a": 1}, {"x-tenant-id": "a"}, scope=scope)
    assert json.loads(server.body) == {"a": 1}


def test_a_client_that_leaves_before_its_body_is_complete_does_no_harm() -> None:
    """The server hears of it."""
    server = Server()
    messages = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def nothing(_message: Message) -> None:
        return None

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": []}
    asyncio.run(ClientIdMiddleware(server, SOURCES)(scope, receive, nothing))
    assert server.after == ["http.disconnect"]


def test_sources_come_from_the_servers_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the environment, or from what vLLM was given as additional configuration."""
    monkeypatch.setenv("FAIRPREFIX_CONFIG", '{"identity": ["header:x-team"]}')
    body = json.loads(send("/v1/completions", {}, {"x-team": "t", "x-tenant-id": "n"}, sources=None).body)
    assert body["vllm_xargs"] == {"fairprefix_client": "t"}
    monkeypatch.delenv("FAIRPREFIX_CONFIG")
    additional = {"fairprefix": {"identity": ["header:x-unit"]}}
    app = SimpleNamespace(state=SimpleNamespace(vllm_config=SimpleNamespace(additional_config=additional)))
    body = json.loads(send("/v1/completions", {}, {"x-unit": "u"}, sources=None, scope={"app": app}).body)
    assert body["vllm_xargs"] == {"fairprefix_client": "u"}
    monkeypatch.setenv("FAIRPREFIX_CONFIG", '{"identity": "nonsense"}')
    with pytest.raises(ConfigError, match="identity"):
        send("/v1/completions", {}, sources=None)


@pytest.mark.parametrize("name", ["a", "ä ö", "x" * 128, "with.dots", "a/b c"])
def test_a_mark_survives_what_vllm_makes_of_request_ids(name: str) -> None:
    """It puts something in front and behind."""
    assert marked_client(f"embd-{mark(name, 'id-1')}-0-a1b2c3d4") == name


@pytest.mark.parametrize("id", ["", "cmpl-1", "fpc.x", "fpc.%%.x", "fpc.____.x", "fpc.A.x"])
def test_a_damaged_mark_names_nobody(id: str) -> None:
    """It does not raise either."""
    assert marked_client(id) is None


def test_in_the_scheduler_the_middlewares_word_counts_most() -> None:
    """The adapter's name and the session only if they are configured, and when nobody is named."""
    request = FakeRequest("r", "alice")
    request.lora_request = SimpleNamespace(lora_name="poet")
    every = engine_identity(("header:x-tenant-id", "lora", "xargs:team", "session"))
    assert client_of(request, every) == "alice"
    request.session_id = "s"  # type: ignore[attr-defined]
    request.sampling_params.extra_args = {"team": "t"}
    assert client_of(request, every) == "poet"
    request.lora_request = None
    assert client_of(request, every) == "t"
    request.sampling_params.extra_args = None
    assert client_of(request, every) == client_of(request, engine_identity(("session",))) == "s"
    assert client_of(request, engine_identity(("header:x-tenant-id",))) == "default-flow"
    del request.session_id  # type: ignore[attr-defined]
    assert client_of(request, every) == "default-flow"
    request.sampling_params = None  # pooling
    request.request_id = f"embd-{mark('bob', '1')}"
    assert client_of(request, every) == "bob"
    request.sampling_params = SimpleNamespace(extra_args={"fairprefix_client": "victim"})
    request.request_id = mark("", "1")  # the middleware looked, and found nobody
    assert client_of(request, every) == "default-flow"
    assert client_of(FakeRequest("r", "a"), engine_identity(("api_key",))) == "a"


@pytest.mark.parametrize("said", [{"deep": "down"}, [1, 2], "", "\n", None, 1.5])
def test_a_malformed_name_is_nobodys(said: object) -> None:
    """A request without a usable name belongs to the default client."""
    request = FakeRequest("r")
    request.sampling_params.extra_args = {"fairprefix_client": said}
    assert client_of(request, engine_identity(())) == "default-flow"
