"""The example: OpenAI's API, D2LPM, and replicas with the reference engine on its tiny random model."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from ray import serve

from fairprefix.core.errors import ConfigError
from fairprefix.demo.ray_app import build
from tests.ray.fleet import settled

URL = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def app(cluster: None) -> Iterator[None]:  # noqa: ARG001 (a fixture)
    """The application with two replicas, reached directly by clients that may name themselves."""
    arguments = {"model": "random", "replicas": 2, "max_batch": 4, "kv_tokens": 4096, "trusted": "*"}
    serve.run(build(arguments), name="openai", route_prefix="/")
    yield
    serve.delete("openai")


@pytest.mark.usefixtures("app")
def test_openai_s_client_is_served_and_charged() -> None:
    """Completions and chats, streamed or not, come through the router and are charged to whom the header names."""
    client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0)
    before = settled("openai", 0, deployment="Engine")["picks"]

    def complete(number: int) -> openai.types.Completion:
        return client.completions.create(
            model="random", prompt=f"hello {number}", max_tokens=8, temperature=0, extra_body={"ignore_eos": True},
            extra_headers={"x-tenant-id": f"team-{number % 2}"},
        )  # fmt: skip

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(complete, range(16)))
    assert {answer.usage.completion_tokens for answer in answers if answer.usage} == {8}
    same = complete(0).choices[0].text
    assert same == answers[0].choices[0].text, "greedy answers do not depend on the replica"
    pieces = client.chat.completions.create(
        model="random", messages=[{"role": "user", "content": "hello"}], max_tokens=8, stream=True,
        extra_headers={"x-tenant-id": "team-0"}, extra_body={"ignore_eos": True},
    )  # fmt: skip
    reasons = [choice.finish_reason for piece in pieces for choice in piece.choices]
    assert reasons[-1] == "length"
    seen = settled("openai", before + 18, deployment="Engine")
    assert seen["settled"] == seen["picks"] == before + 18
    assert seen["unreported"] == 0


@pytest.mark.usefixtures("app")
def test_mistakes_are_found_at_the_ingress() -> None:
    """An invalid field is a 400 in OpenAI's shape, and no replica hears of it."""
    before = settled("openai", 0, deployment="Engine")["picks"]
    answer = httpx.post(f"{URL}/v1/completions", json={"prompt": "x", "max_tokens": -1})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "max_tokens"
    assert httpx.get(f"{URL}/v1/nowhere").status_code == 404
    assert httpx.get(f"{URL}/v1/models").json()["data"][0]["id"] == "random"
    assert settled("openai", 0, deployment="Engine")["picks"] == before


def test_an_unknown_argument_is_named() -> None:
    """`serve run` with a misspelt argument says which one, and what was meant."""
    with pytest.raises(ConfigError, match=r"replicsa.*replicas"):
        build({"replicsa": 2})
