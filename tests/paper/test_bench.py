"""`fairprefix bench`: the workloads against real engines, in real time."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path

import httpx
import pytest

from fairprefix.bench.local import LocalEngine
from fairprefix.bench.remote import BenchError, Endpoint
from fairprefix.bench.run import Reply, SendError, drive
from fairprefix.bench.texts import FromFiles, Invented
from fairprefix.cli.main import main
from fairprefix.core.config import PolicyConfig
from fairprefix.gpu_ref_engine.config import EngineConfig
from fairprefix.gpu_ref_engine.load import load_model
from fairprefix.workload import (
    Call,
    Part,
    Program,
    Workload,
    WorkloadError,
    WorkloadSize,
    make_workload,
    scaled,
)
from tests.engine.http import serving

MS = 1_000_000


class Echo:
    """Answers with what it was asked, after a moment, and remembers when."""

    characters_per_token = 1.0

    def __init__(self, fails: str | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self.out = self.most = 0
        self._fails = fails

    async def send(self, client: str, prompt: str, max_tokens: int) -> Reply:
        """Answer."""
        self.asked.append((client, prompt))
        self.out += 1
        self.most = max(self.most, self.out)
        await asyncio.sleep(0.002)
        self.out -= 1
        if self._fails and self._fails in prompt:
            raise SendError("HTTP 500: no")
        return Reply(f"answer to {len(prompt)}", len(prompt), 0, max_tokens, 0.001, 0.002)


def chain() -> Workload:
    """Return a question, and one that goes on from its answer."""
    question, answer = Part(1, 30, "question"), Part(2, 5, "output")
    first = Call((question,), answer)
    second = Call((question, answer, Part(3, 20, "message")), Part(4, 5, "output"), after=(0,), delay_ns=5 * MS)
    return Workload("chain", [Program("c0", 0, [first, second])])


def test_a_prompt_holds_the_answer_that_it_goes_on_from() -> None:
    """The engine's own words, in the place where the virtual engine has the answer's tokens."""
    echo = Echo()
    figures = asyncio.run(drive(chain(), echo, Invented()))
    first, second = (prompt for _, prompt in echo.asked)
    assert second.startswith(f"{first}\nanswer to {len(first)}\n")
    assert figures["requests"] == 2
    assert figures["programs_done"] == 1
    assert figures["failed"] == 0


def test_no_more_calls_are_out_than_allowed() -> None:
    """Whatever the workload would send at once."""
    workload = scaled(make_workload("S1@Judge", WorkloadSize(programs=1, rate=1000.0)), 0.01)
    echo = Echo()
    figures = asyncio.run(drive(workload, echo, Invented(), concurrency=3))
    assert echo.most == 3
    assert figures["requests"] == workload.calls


def test_a_program_whose_call_fails_ends_and_is_counted() -> None:
    """The others go on; its later calls are never sent."""
    workload = Workload("w", [*chain().programs, Program("c1", 0, [Call((Part(9, 40, "marked"),), Part(10, 5))])])
    echo = Echo(fails="question 1:")
    figures = asyncio.run(drive(workload, echo, Invented()))
    assert (figures["failed"], figures["programs_done"], figures["requests"]) == (1, 1, 1)
    assert figures["failures"] == ["HTTP 500: no"]
    assert len(echo.asked) == 2


def test_the_reference_engine_serves_a_workload_in_this_process() -> None:
    """A real model: every answer has its length, and what programs share is found in the cache."""
    workload = scaled(make_workload("Judge", WorkloadSize(programs=2, rate=50.0)), 0.02)
    runner, tokenizer = load_model("random", device="cpu", kv_tokens=4096)

    async def run() -> dict[str, object]:
        engine = EngineConfig(reservation="full")
        async with LocalEngine(runner, tokenizer, PolicyConfig(reservation="full"), engine) as local:
            return await drive(workload, local, Invented())

    figures = asyncio.run(run())
    assert figures["requests"] == workload.calls
    assert figures["total_output"] == sum(c.output.tokens for p in workload.programs for c in p.calls)
    assert isinstance(figures["hit_rate"], float)
    assert figures["hit_rate"] > 0.2


def test_a_real_server_serves_a_workload(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Over a socket, as OpenAI's API: lengths, cache hits, and every client's service at the server itself."""
    report = tmp_path / "bench.json"
    with serving() as served:
        size = ["--programs", "2", "--rate", "50", "--scale", "0.01"]
        where = ["--url", served.url, "--json", str(report), "--quiet"]
        code = main(["bench", "--workload", "Judge", *size, *where])
        at_server = served.figures()
    assert code == 0, capsys.readouterr().err
    figures = json.loads(report.read_text())
    assert figures["requests"] == 3 * 2 * 4
    assert figures["failed"] == 0
    assert figures["hit_rate"] > 0.2
    assert set(at_server) == {"c0", "c1", "c2"}
    assert "cache hits" in capsys.readouterr().out


def test_an_endpoint_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """With the address, and exit code 2."""
    assert main(["bench", "--url", "http://127.0.0.1:9", "--quiet"]) == 2
    assert "nobody answers there" in capsys.readouterr().err


def endpoint(body: bytes, status: int = 200) -> Endpoint:
    """Return an endpoint that answers everything alike."""
    transport = httpx.MockTransport(lambda _request: httpx.Response(status, content=body))
    return Endpoint("http://there", model="m", transport=transport)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"no", 503, "HTTP 503: no"),
        (b'data: {"choices": [{"text": "x"}]}\n\ndata: [DONE]\n\n', 200, "reports no usage"),
        (b"data: {oops\n\n", 200, "not JSON"),
        (b'data: {"error": {"message": "bad"}}\n\n', 200, "bad"),
    ],
)
def test_what_an_endpoint_gets_wrong_is_told(body: bytes, status: int, message: str) -> None:
    """The call fails with a reason."""

    async def ask() -> None:
        async with endpoint(body, status) as there:
            await there.send("c", "hello", 3)

    with pytest.raises(SendError, match=message):
        asyncio.run(ask())


def test_what_is_sent_names_the_client_and_the_exact_length() -> None:
    """In OpenAI's field and in the gateways' header; answers do not end before their length."""
    sent: list[httpx.Request] = []
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    lines = [{"choices": [{"text": "a"}]}, {"choices": [{"text": "b"}]}, {"choices": [], "usage": usage}]
    body = "".join(f"data: {json.dumps(line)}\n\n" for line in lines) + "data: [DONE]\n\n"

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(request)
        return httpx.Response(200, content=body.encode())

    async def ask() -> Reply:
        there = Endpoint("http://there/v1/", model="m", key="k", transport=httpx.MockTransport(answer))
        async with there:
            return await there.send("someone", "hello", 3)

    reply = asyncio.run(ask())
    (request,) = sent
    asked = json.loads(request.content)
    assert str(request.url) == "http://there/v1/completions"
    assert (asked["max_tokens"], asked["ignore_eos"], asked["user"]) == (3, True, "someone")
    assert request.headers["x-llm-d-inference-fairness-id"] == "someone"
    assert request.headers["authorization"] == "Bearer k"
    assert (reply.text, reply.input_tokens, reply.cached_tokens, reply.output_tokens) == ("ab", 7, 4, 3)
    assert 0 < reply.first_token_s <= reply.latency_s


def test_an_endpoint_without_models_asks_for_a_name() -> None:
    """And not with a traceback."""

    async def ask() -> None:
        transport = httpx.MockTransport(lambda _request: httpx.Response(200, json={"data": []}))
        async with Endpoint("http://there", transport=transport):
            pass

    with pytest.raises(BenchError, match="give one with --model"):
        asyncio.run(ask())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["--url", "u", "--engine", "random"], "not allowed with"),
        (["--engine", "random", "--workload", "Tot"], "one of"),
        (["--engine", "random", "--scale", "2"], "above 0 and at most 1"),
        (["--engine", "random", "--data", "nowhere"], "is not a folder"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """And exit code 2."""
    assert main(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


# Texts.


def test_invented_text_is_a_function_of_the_part() -> None:
    """Of the wanted length, the same for the same part, and another one for another part."""
    texts = Invented()
    assert len(texts.of(Part(1, 10), 200)) == 200
    assert texts.of(Part(1, 10), 200) == texts.of(Part(1, 99), 200)
    assert texts.of(Part(1, 10), 200) != texts.of(Part(2, 10), 200)


def test_texts_come_from_files_where_they_are_given(tmp_path: Path) -> None:
    """Questions from GSM8K, documents from LooGLE; a text goes on with the next one until it is long enough."""
    rows = [{"question": "How many ducks?"}, {"question": "And eggs?"}]
    (tmp_path / "gsm8k_test.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "loogle.jsonl.gz").write_bytes(gzip.compress(json.dumps({"input": "A tower." * 9}).encode()))
    texts = FromFiles(tmp_path)
    assert texts.of(Part(2, 1, "question"), 24) == "How many ducks?\nAnd eggs"
    assert texts.of(Part(3, 1, "document"), 15) == "A tower.A tower"
    assert texts.of(Part(3, 1, "preamble"), 15) == Invented().of(Part(3, 1, "preamble"), 15)


def test_a_folder_without_texts_is_refused(tmp_path: Path) -> None:
    """And so is a line that is no text, with its number."""
    with pytest.raises(WorkloadError, match="found neither"):
        FromFiles(tmp_path)
    (tmp_path / "gsm8k.jsonl").write_text('{"question": "one"}\n{"question": 2}\n')
    with pytest.raises(WorkloadError, match=r"gsm8k\.jsonl:2: question = 2"):
        FromFiles(tmp_path)
