"""The gateway in front of `fairprefix serve`: a real engine with a tiny model."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import openai
import pytest

from tests.gateway.rig import gateway

_AT = re.compile(r"at (http://\S+)/v1 under")


@contextmanager
def engine(*options: str) -> Iterator[str]:
    """Start the reference engine with a tiny random model; give its address."""
    command = [sys.executable, "-m", "fairprefix", "serve", "random", "--port", "0", "--dtype", "float32",
               "--kv-tokens", "8192", *options]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:  # noqa: S603
        assert process.stdout is not None
        try:
            found = _AT.search(process.stdout.readline())
            assert found
            yield found[1]
        finally:
            process.kill()


@pytest.mark.parametrize("stream", [False, True])
def test_it_counts_what_the_engine_computed(*, stream: bool) -> None:
    """Prompt, cached and output tokens agree with the engine's own figures, in one piece and streamed."""
    with engine() as url, gateway(f"{url},window=4", options=("--trust", "127.0.0.1")) as front:
        client = openai.OpenAI(base_url=f"{front.url}/v1", api_key="none", max_retries=0)
        headers = {"x-tenant-id": "alice"}
        for words in ("a long beginning " * 20 + "one", "a long beginning " * 20 + "two"):
            made = client.completions.create(
                model="random", prompt=words, max_tokens=12, stream=stream, extra_headers=headers,
                extra_body={"ignore_eos": True},
            )  # fmt: skip
            if stream:
                assert sum(1 for _ in made) >= 2
        client.close()
        front.settled()
        alice, metrics = front.client("alice"), _figures(url)
    assert alice["output_tokens"] == metrics["fairprefix_request_output_tokens_total"] == 24
    assert alice["input_tokens"] == metrics["fairprefix_request_input_tokens_total"]
    assert alice["cached_tokens"] == metrics["fairprefix_request_cached_tokens_total"] > 0


def test_a_fair_engine_hears_whose_request_it_is() -> None:
    """With `fairprefix=serve` nothing queues in the gateway, and the engine accounts for the client by name."""
    with engine("--trust", "127.0.0.1") as url:
        with gateway(f"{url},fairprefix=serve", options=("--trust", "127.0.0.1")) as front:
            body = {"prompt": "hello", "max_tokens": 4, "ignore_eos": True}
            headers = {"x-tenant-id": "alice"}
            httpx.post(f"{front.url}/v1/completions", json=body, headers=headers, timeout=60)
        text = httpx.get(f"{url}/metrics").text
    assert 'fairprefix_request_total{fairness_id="alice",model_name="random"} 1.0' in text.replace(
        'model_name="random",fairness_id="alice"', 'fairness_id="alice",model_name="random"'
    )


def test_its_window_is_learnt_from_the_engines_figures() -> None:
    """Without a configured window the gateway finds out how many requests the engine runs at once."""
    with engine("--max-batch", "2") as url:
        settings_free = gateway(url, options=("--trust", "127.0.0.1"))
        with settings_free as front:
            assert front.state()["workers"][0]["window"] == 32
            with httpx.Client(timeout=60) as client:
                client.get(f"{front.url}/v1/models")
            _crowd(front.url, 24)
            assert front.state()["workers"][0]["window"] <= 4


def _crowd(url: str, count: int) -> None:
    import asyncio  # noqa: PLC0415

    async def run() -> None:
        async with httpx.AsyncClient(timeout=120) as client:
            body = {"prompt": "hello there", "max_tokens": 300, "ignore_eos": True}
            await asyncio.gather(*(client.post(f"{url}/v1/completions", json=body) for _ in range(count)))

    asyncio.run(run())


def _figures(url: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for line in httpx.get(f"{url}/metrics").text.splitlines():
        if not line.startswith("#"):
            name, _, value = line.rpartition(" ")
            name = name.partition("{")[0]
            found[name] = found.get(name, 0.0) + float(value)
    return found
