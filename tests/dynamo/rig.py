"""A Dynamo deployment on this machine: a frontend, mock workers in processes of their own, and our component."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
from attrs import frozen

from tests import closed_loop
from tests.closed_loop import Answer, Outcome, Stream, varied

BLOCK = 16
SEQS = 8
"""Requests that a mock worker runs at once, and the window of our gates."""


def make_model(folder: Path) -> Path:
    """Write what Dynamo reads of a model: configuration, tokenizer, chat template; there are no weights."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers  # noqa: PLC0415 (in that environment)

    words = {f"w{number}": number for number in range(4000)} | {"<unk>": 4000, "</s>": 4001}
    made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))  # noqa: S106 (no password)
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.decoder = decoders.WordPiece(prefix="##")
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    files: dict[str, dict[str, object]] = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "vocab_size": 4002,
            "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2, "intermediate_size": 128,
            "max_position_embeddings": 8192, "eos_token_id": 4001, "bos_token_id": 4001, "torch_dtype": "bfloat16",
        },
        "tokenizer_config.json": {"eos_token": "</s>", "bos_token": "</s>", "chat_template": template,
                                  "tokenizer_class": "PreTrainedTokenizerFast"},
        "generation_config.json": {"eos_token_id": 4001, "bos_token_id": 4001},
    }  # fmt: skip
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    return folder


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@frozen
class Deployment:
    """A running deployment."""

    url: str
    model: str
    workers: list[subprocess.Popen[bytes]]
    folder: Path
    ours: bool

    def status(self) -> dict[str, Any]:
        """Return what our component wrote last."""
        found: dict[str, Any] = json.loads((self.folder / "status.json").read_text(encoding="utf-8"))
        return found


@contextmanager
def deployed(folder: Path, *, ours: bool, workers: int = 3, speedup: float = 1.0) -> Iterator[Deployment]:
    """Run frontend and mock workers; with `ours`, the component between them, else Dynamo's own KV router."""
    folder.mkdir(parents=True)
    model = make_model(folder / "model")
    port = free_port()
    environment = {
        **os.environ,
        "DYN_FILE_KV": str(folder / "discovery"),
        "HF_HUB_OFFLINE": "1",
        "DYN_LOG": "warn",
        "DYN_DISCOVERY_BACKEND": "file",
        "DYN_REQUEST_PLANE": "tcp",
        "DYN_EVENT_PLANE": "zmq",
        "TOKIO_WORKER_THREADS": "2",
        "DYN_RUNTIME_NUM_WORKER_THREADS": "2",
    }
    planes = ["--discovery-backend", "file", "--request-plane", "tcp", "--event-plane", "zmq"]
    backend = "backend-model" if ours else "model"
    mocker = [
        *("-m", "dynamo.mocker", "--model-path", str(model), "--model-name", backend),
        *("--endpoint", "dyn://dynamo.backend.generate", "--block-size", str(BLOCK)),
        *("--num-gpu-blocks-override", "700", "--max-num-seqs", str(SEQS)),
        *("--speedup-ratio", str(speedup), *planes),
    ]
    frontend = [
        "-m",
        "dynamo.frontend",
        "--http-port",
        str(port),
        "--router-mode",
        "round-robin" if ours else "kv",
    ]
    component = [
        *("-m", "fairprefix.adapters.dynamo", "--model-path", str(model), "--model-name", "model"),
        *("--backend-model", backend, "--window", str(SEQS), "--block-size", str(BLOCK)),
        *("--config", json.dumps({"quantum": 200, "slack": 4096}), "--quantum", "16000"),
        *("--longest-input", "2000", "--longest-output", "80", "--status-file", str(folder / "status.json")),
        *planes,
    ]
    with ExitStack() as stack:

        def start(name: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
            log = stack.enter_context((folder / f"{name}.log").open("wb"))
            process = subprocess.Popen(  # noqa: S603 (our own arguments)
                [sys.executable, *arguments], env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=folder
            )
            stack.callback(_end, process)
            return process

        processes = [start(f"mocker-{number}", mocker) for number in range(workers)]
        if ours:
            start("component", component)
        start("frontend", [*frontend, *planes])
        found = Deployment(f"http://127.0.0.1:{port}", "model", processes, folder, ours)
        _wait_until_ready(found)
        yield found


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(found: Deployment) -> None:
    until = time.monotonic() + 90
    problem: object = None
    while time.monotonic() < until:
        try:
            answers = [
                httpx.post(f"{found.url}/v1/completions", json=body(found.model, "w1 w2 w3", 2), timeout=10)
                for _ in range(4)
            ]
            if all(answer.is_success for answer in answers):
                return
            problem = answers[-1].text
        except httpx.HTTPError as error:
            problem = error
        time.sleep(0.5)
    logs = "\n".join(
        f"{log.name}: {log.read_text(errors='replace')[-1500:]}" for log in found.folder.glob("*.log")
    )
    raise TimeoutError(f"the deployment does not answer: {problem}\n{logs}")


def body(model: str, prompt: str, output: int, client: str = "") -> dict[str, Any]:
    """Return the body of a completion."""
    named = {"nvext": {"annotations": [f"fairness_id:{client}"]}} if client else {}
    return {"model": model, "prompt": prompt, "max_tokens": output, "ignore_eos": True, "stream": False, **named}


def prompt(stream: Stream, family: int, number: int) -> str:
    """Return a prompt of a family, unlike any other in its last words."""
    base = sum(map(ord, stream.client)) * 37 + family * 401
    begin = [f"w{(base + place * 7) % 4000}" for place in range(stream.prefix_tokens)]
    return " ".join([*begin, *(f"w{(number * 131 + place * 17) % 4000}" for place in range(stream.own_tokens))])


async def load(
    found: Deployment, streams: Sequence[Stream], seconds: float, *, streamed: bool = False
) -> list[Answer]:
    """Let clients ask for so long; return their answers, those that come later included.

    Answers come in one piece, or `streamed`: then it is known what came of those that failed.
    """
    url = f"{found.url}/v1/completions"
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None)) as client:

        async def ask(stream: Stream, family: int, number: int) -> Outcome:
            length = varied(stream.output_tokens, number)
            asked = body(found.model, prompt(stream, family, number), length, stream.client)
            if streamed:
                return await _streamed(client, url, asked)
            answer = await client.post(url, json=asked)
            if not answer.is_success:
                return Outcome(problem=f"{answer.status_code} {answer.text}")
            usage = answer.json().get("usage") or {}
            return Outcome(
                usage.get("completion_tokens") or 0,
                usage.get("prompt_tokens") or 0,
                (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
            )

        return await closed_loop.load(streams, seconds, ask)


async def _streamed(client: httpx.AsyncClient, url: str, asked: dict[str, Any]) -> Outcome:
    pieces = 0
    try:
        async with client.stream("POST", url, json={**asked, "stream": True}) as answer:
            if not answer.is_success:
                return Outcome(problem=f"{answer.status_code} {await answer.aread()!r}")
            async for line in answer.aiter_lines():
                if line == "data: [DONE]":
                    return Outcome(pieces)
                if line.startswith("data: {"):
                    choices = json.loads(line[6:]).get("choices")
                    if choices is None:
                        return Outcome(pieces, problem=line)
                    pieces += sum(bool(choice.get("text")) for choice in choices)
    except httpx.HTTPError as problem:
        return Outcome(pieces, problem=repr(problem))
    return Outcome(pieces, problem="the stream ended early")
