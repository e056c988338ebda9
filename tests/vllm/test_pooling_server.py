"""A real server of an embedding model: what is not generated is charged for its prompt alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from tests.vllm.server import Server, page_blocks
from tests.vllm.tiny import make_model

CONFIG = '{"quantum": 200, "identity": ["header:x-tenant-id"]}'
TEXT = "A quite long text, of which more than one block is cached. " * 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The page's command, and vLLM's own flag that makes an embedding model of a language model."""
    command = next(block for block in page_blocks() if "PROMETHEUS_MULTIPROC_DIR" in block)
    model = make_model(Path(sys.prefix) / "tiny-llama")
    command = command.replace("$MODEL", "$MODEL --runner pooling")
    folder = tmp_path_factory.mktemp("pooling")
    with Server(command, model, {"FAIRPREFIX_CONFIG": CONFIG}, folder) as found:
        yield found.ready()
        found.idle()
        assert found.total("fairprefix_policy_errors_total") == 0
        assert found.total("fairprefix_index_corrections_total") == 0


def embed(server: Server, client: str, texts: list[str], **extra: object) -> int:
    """Return vLLM's count of the texts' tokens; each must have got a vector."""
    connected = OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60)
    answer = connected.embeddings.create(
        model="tiny", input=texts, extra_headers={"X-Tenant-ID": client} if client else {}, extra_body=extra
    )
    assert len(answer.data) == len(texts)
    assert all(len(one.embedding) == 128 for one in answer.data)
    return answer.usage.prompt_tokens


def of(server: Server, name: str, client: str) -> float:
    """Return a figure of a client's."""
    return server.total(f"fairprefix_{name}", f'fairness_id="{client}"')


def test_embeddings_are_charged_for_what_was_computed(server: Server) -> None:
    """Each text is a request of its own; service = prompt - cached, and nothing for output."""
    tokens = embed(server, "reader", [TEXT]) + embed(server, "reader", [TEXT, f"{TEXT} and more", "short"])
    server.idle()
    assert of(server, "request_total", "reader") == 4
    assert of(server, "request_input_tokens_total", "reader") == tokens
    cached = of(server, "request_cached_tokens_total", "reader")
    assert 0 < cached < tokens
    assert of(server, "attained_service_tokens", "reader") == tokens - cached


def test_nobody_embeds_on_the_account_of_another(server: Server) -> None:
    """Pooling forwards no extra arguments: the name travels in the id, where a client's own is taken off."""
    embed(server, "thief", ["stolen"], request_id="fpc.dmljdGlt.1")
    embed(server, "", ["stolen too"], vllm_xargs={"fairprefix_client": "victim"})
    server.idle()
    assert of(server, "request_total", "victim") == 0
    assert of(server, "request_total", "thief") == 1
