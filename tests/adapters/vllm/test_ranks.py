"""The middleware between data-parallel ranks: the header that vLLM obeys, and what an answer is charged."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest

from fairprefix.adapters.vllm.middleware import ClientIdMiddleware, Message, Receive, Send
from fairprefix.adapters.vllm.ranks import prompt_of
from fairprefix.core.errors import ConfigError
from fairprefix.hosting.ranks import RANKS_VARIABLE, RankRouter

LONG = "All work and no play makes Jack a dull boy. " * 20


class Server:
    """Two ranks of vLLM, which note what they are sent."""

    def __init__(self, ranks: int = 2, *, status: int = 200, pieces: tuple[bytes, ...] = (b"{}",)) -> None:
        parallel = SimpleNamespace(data_parallel_size=ranks, _api_process_count=1)
        self.app = SimpleNamespace(state=SimpleNamespace(vllm_config=SimpleNamespace(parallel_config=parallel)))
        self.ranks: list[list[str]] = []
        self.status = status
        self.pieces = pieces
        self.middleware = ClientIdMiddleware(self, ("header:x-tenant-id",))

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer."""
        await receive()
        self.ranks.append([value.decode() for name, value in scope["headers"] if name == b"x-data-parallel-rank"])
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        for piece in self.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    @property
    def router(self) -> RankRouter:
        """What chooses."""
        assert self.middleware._ranks
        return self.middleware._ranks

    def post(self, client: str, prompt: str = LONG, path: str = "/v1/completions", **headers: str) -> list[str]:
        """Send one request; return the header as vLLM sees it."""
        raw = [{"type": "http.request", "body": json.dumps({"prompt": prompt, "max_tokens": 8}).encode()}]
        named = {"x-tenant-id": client, **{name.replace("_", "-"): value for name, value in headers.items()}}
        scope: dict[str, Any] = {
            "type": "http", "method": "POST", "path": path, "app": self.app,
            "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        }  # fmt: skip

        async def receive() -> Message:
            return raw.pop()

        async def send(_message: Message) -> None:
            return None

        asyncio.run(self.middleware(scope, receive, send))
        return self.ranks[-1]


@pytest.fixture(autouse=True)
def configured(monkeypatch: pytest.MonkeyPatch) -> None:
    """D2LPM with a quantum of a few requests."""
    monkeypatch.delenv("FAIRPREFIX_CONFIG", raising=False)
    monkeypatch.setenv(RANKS_VARIABLE, '{"quantum": 1000}')


def test_each_client_has_a_rank_until_its_quantum_is_spent() -> None:
    """The header is set to where the prefix is, and to another rank after so much service."""
    server = Server()
    assert [server.post("a"), server.post("b", LONG.upper()), server.post("a")] == [["0"], ["1"], ["0"]]
    assert {rank for _ in range(10) for rank in server.post("a")} == {"0", "1"}


def test_what_a_client_wrote_into_the_header_is_overwritten() -> None:
    """Nobody chooses a rank for himself."""
    server = Server()
    assert server.post("a") == ["0"]
    assert server.post("a", x_data_parallel_rank="1") == ["0"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_it_is_off_without_ranks_or_configuration(monkeypatch: pytest.MonkeyPatch, ranks: int) -> None:
    """One rank, or no variable: what the header says is left as it is."""
    if ranks > 1:
        monkeypatch.delenv(RANKS_VARIABLE)
    server = Server(ranks)
    assert server.post("a") == []
    assert server.post("a", x_data_parallel_rank="1") == ["1"]


def test_a_wrong_setting_ends_the_server_at_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not its first request."""
    monkeypatch.setenv(RANKS_VARIABLE, "best")
    with pytest.raises(ConfigError, match=RANKS_VARIABLE):
        Server()


def test_other_requests_are_left_alone() -> None:
    """Only what generates is routed."""
    assert Server().post("a", path="/v1/embeddings") == []


@pytest.mark.parametrize(
    ("status", "pieces", "output"),
    [
        (200, (b'{"usage": {"completion_tokens": 7}}',), 7),
        (200, (b'{"usage": {"completion', b'_tokens":9}}'), 9),
        (200, (b"data: a\n\n", b"data: b\n\n", b"data: c\n\n", b"data: [DONE]\n\n"), 3),
        (200, (b"data: a\n\n", b'data: {"usage":{"completion_tokens":2}}\n\n', b"data: [DONE]\n\n"), 2),
        (503, (b'{"usage": {"completion_tokens": 7}}',), None),
    ],
)
def test_an_answer_is_charged_by_its_usage_or_its_pieces(
    status: int, pieces: tuple[bytes, ...], output: int | None
) -> None:
    """A refused request costs nothing."""
    server = Server(status=status, pieces=pieces)
    server.post("a")
    deficit = server.router._router.deficit("a", "0")  # type: ignore[attr-defined]
    assert deficit == 1000 - (0 if output is None else len(LONG) // 4 + 2 * output)
    assert server.router.out == 0


def test_a_request_that_ends_in_an_exception_is_settled() -> None:
    """Nothing leaks when the client goes away in the middle."""
    server = Server(pieces=(b"x", b"y"))

    async def gone(_scope: Message, _receive: Receive, _send: Send) -> None:
        raise asyncio.CancelledError

    server.post("a")
    server.middleware._app = gone
    with pytest.raises(asyncio.CancelledError):
        server.post("a")
    assert server.router.out == 0


def test_prompts_of_all_kinds_have_bytes() -> None:
    """Text, token ids, chats, several prompts at once, and none."""
    assert prompt_of({"prompt": "häß"}) == ("häß".encode(), 4)
    assert prompt_of({"prompt": [1, 2]}) == (b"\1" + bytes(7) + b"\2" + bytes(7), 8)
    assert prompt_of({"prompt": ["a", "b"]}) == (b'["a", "b"]', 4)
    assert prompt_of({"messages": [{"role": "user", "content": "x"}]})[0].startswith(b'[{"role"')
    assert prompt_of({"prompt": [True, -1]})[1] == 4
    assert prompt_of({}) == (b"", 4)
