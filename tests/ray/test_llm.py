"""`ray.serve.llm` with real vLLM engines: `make test-ray-llm` runs this in an environment of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import ray
from ray import serve
from ray.serve.llm import LLMConfig

from fairprefix.adapters.ray.llm import FairLLMServer, build_openai_app, fair_llm
from fairprefix.adapters.ray.settings import LedgerSettings
from fairprefix.core.errors import FairprefixError
from tests.ray.fleet import figures, settled
from tests.vllm.tiny import make_model

URL = "http://127.0.0.1:8000/v1"
APP, DEPLOYMENT = "llm", "FairLLMServer:tiny"
WINDOW = 4
POLITE = str(Path(__file__).parents[1] / "vllm" / "polite")
SETTINGS = {"policy": {"quantum": 200, "slack": 4096}}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Two replicas, each with a vLLM of its own, behind Ray's OpenAI ingress."""
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    # Ray's processes inherit it: engines that wait for work must not take a whole core each.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (POLITE, os.environ.get("PYTHONPATH"))))
    model = make_model(Path(tmp_path_factory.mktemp("model")) / "tiny")
    ray.init(num_cpus=8, object_store_memory=100 << 20, include_dashboard=False, log_to_driver=False)
    engine = {
        "model_loading_config": {"model_id": "tiny", "model_source": str(model)},
        "engine_kwargs": {
            "max_model_len": 512, "max_num_seqs": WINDOW, "enforce_eager": True, "dtype": "float32",
            "enable_prompt_tokens_details": True, "distributed_executor_backend": "uni",
        },
        "accelerator_config": {"kind": "cpu"},
        "log_engine_metrics": False,
        "deployment_config": {"num_replicas": 2},
    }  # fmt: skip
    serve.run(build_openai_app({"llm_configs": [engine], "fairprefix": SETTINGS}), name=APP)
    yield
    serve.shutdown()
    ray.shutdown()


def connected() -> openai.AsyncOpenAI:
    """Return OpenAI's client; each event loop needs one of its own."""
    return openai.AsyncOpenAI(base_url=URL, api_key="none", max_retries=0)


def test_what_the_engine_says_of_itself_is_not_said_again() -> None:
    """Window and longest request are the engine's, unless the settings name them; the rest of a setting stays."""
    config = LLMConfig(
        model_loading_config={"model_id": "tiny"},
        engine_kwargs={"max_num_seqs": 7, "max_model_len": 512},
        deployment_config={"max_ongoing_requests": 99},
    )
    found = fair_llm(config, {"longest_output": 64, "policy": {"quantum": 5}})
    made = LedgerSettings.from_mapping(found.experimental_configs["fairprefix"])
    assert (made.window, made.longest_input, made.longest_output, made.policy.quantum) == (7, 512, 64, 5)
    assert found.deployment_config["max_ongoing_requests"] == 99
    assert found.server_cls is FairLLMServer


def test_direct_streaming_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests would go past the gates; nobody should find that out later."""
    monkeypatch.setenv("RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING", "1")
    with pytest.raises(FairprefixError, match="RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING"):
        fair_llm(LLMConfig(model_loading_config={"model_id": "tiny"}))


async def complete(client: openai.AsyncOpenAI, who: str, prompt: str, tokens: int) -> openai.types.Completion:
    """Send one completion."""
    return await client.completions.create(
        model="tiny", prompt=prompt, max_tokens=tokens, temperature=0, extra_headers={"x-tenant-id": who},
        extra_body={"ignore_eos": True},
    )  # fmt: skip


@pytest.mark.usefixtures("app")
def test_completions_and_chats_are_charged_what_vllm_says_they_cost() -> None:
    """Streamed or not: each request is settled once, with vLLM's own count of computed and produced tokens."""

    async def ask() -> int:
        client = connected()
        units = 0
        for number in range(6):
            answer = await complete(client, "alice", "Once upon a time " * 10 + str(number), 8)
            units += _units(answer.usage)
        streamed: dict[str, Any] = {"model": "tiny", "max_tokens": 8, "stream": True, "user": "bob"}
        messages: Any = [{"role": "user", "content": "Tell me " * 20}]
        usages = []
        async for chunk in await client.chat.completions.create(
            messages=messages, stream_options={"include_usage": True}, **streamed
        ):
            usages += [chunk.usage] if chunk.usage else []
        units += _units(usages[-1])
        # Who does not ask for the usage does not see it, and is charged all the same.
        async for chunk in await client.chat.completions.create(messages=messages, **streamed):
            assert chunk.usage is None
            assert chunk.choices
        return units

    units = asyncio.run(ask())
    seen = settled(APP, 8, deployment=DEPLOYMENT)
    assert seen["settled"] == seen["picks"] == 8
    assert seen["unreported"] == seen["refunded"] == 0
    asyncio.run(asyncio.sleep(2 * seen["report_period_s"]))
    charged = figures(APP, DEPLOYMENT)["service"]
    assert set(charged) == {"alice", "bob"}
    # The last one's cost is not known here: a prompt as before, cached or not, and at most eight tokens.
    assert 0 < sum(charged.values()) - units <= 200


def _units(usage: Any) -> int:  # noqa: ANN401 (OpenAI's)
    cached = usage.prompt_tokens_details.cached_tokens or 0
    return int(usage.prompt_tokens - cached + 2 * usage.completion_tokens)


@pytest.mark.usefixtures("app")
def test_a_light_client_overtakes_a_flood() -> None:
    """Who sends little is served while most of what a heavy client sent before still waits."""

    async def ask() -> tuple[int, int]:
        client = connected()
        done: list[int] = []

        async def heavy(number: int) -> None:
            await complete(client, "heavy", f"flood {number} " * 10, 64)
            done.append(number)

        flood = [asyncio.create_task(heavy(number)) for number in range(60)]
        await asyncio.sleep(0.5)
        before = len(done)
        await asyncio.gather(*(complete(client, "light", f"light {number}", 16) for number in range(2)))
        after = len(done)
        await asyncio.gather(*flood)
        return before, after

    before, after = asyncio.run(ask())
    # In arrival order it would be all 60; what was in flight when it came ends before it or with it.
    assert after - before <= 4 * WINDOW, (before, after)
    seen = settled(APP, 70, deployment=DEPLOYMENT)
    assert seen["settled"] == seen["picks"]
    assert seen["largest_gap"] < seen["bound"]
