"""A Dynamo deployment on this machine: a frontend, mock workers in processes of their own, and our component."""

from __future__ import annotations

import asyncio
import itertools
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
from statistics import median
from typing import Any

import httpx
from attrs import frozen

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
        *("--longest-input", "2000", "--longest-output", "64", "--status-file", str(folder / "status.json")),
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


@frozen
class Answer:
    """What a request came to."""

    client: str
    began_s: float
    latency_s: float
    status: int
    output_tokens: int
    input_tokens: int = 0
    cached_tokens: int = 0
    problem: str = ""


@frozen
class Stream:
    """Some identical loops of one client: ask, wait for the answer, ask again."""

    client: str
    loops: int
    families: int
    prefix_words: int
    own_words: int
    output_tokens: int


def prompt(stream: Stream, family: int, number: int) -> str:
    """Return a prompt of a family, unlike any other in its last words."""
    base = sum(map(ord, stream.client)) * 37 + family * 401
    begin = [f"w{(base + place * 7) % 4000}" for place in range(stream.prefix_words)]
    return " ".join([*begin, *(f"w{(number * 131 + place * 17) % 4000}" for place in range(stream.own_words))])


async def load(found: Deployment, streams: Sequence[Stream], seconds: float) -> list[Answer]:
    """Let clients ask for so long; return their answers, those that come later included."""
    answers: list[Answer] = []
    number = itertools.count()
    until = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:

        async def loop(stream: Stream, place: int) -> None:
            turn = place
            while (began := time.monotonic()) < until:
                asked = body(
                    found.model, prompt(stream, turn % stream.families, next(number)), stream.output_tokens,
                    stream.client,
                )  # fmt: skip
                turn += 1
                answer = await client.post(f"{found.url}/v1/completions", json=asked)
                usage = answer.json().get("usage") or {} if answer.is_success else {}
                answers.append(
                    Answer(
                        stream.client,
                        began,
                        time.monotonic() - began,
                        answer.status_code,
                        usage.get("completion_tokens") or 0,
                        usage.get("prompt_tokens") or 0,
                        (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
                        "" if answer.is_success else answer.text,
                    )
                )

        await asyncio.gather(*(loop(stream, place) for stream in streams for place in range(stream.loops)))
    return answers


def p50(answers: Sequence[Answer], client: str) -> float:
    """Return the median latency of a client in seconds."""
    return median(one.latency_s for one in answers if one.client == client)


def hit_rate(answers: Sequence[Answer]) -> float:
    """Return the share of prompt tokens that were cached."""
    return sum(one.cached_tokens for one in answers) / sum(one.input_tokens for one in answers)


def output_rate(answers: Sequence[Answer]) -> float:
    """Return output tokens per second."""
    began = min(one.began_s for one in answers)
    ended = max(one.began_s + one.latency_s for one in answers)
    return sum(one.output_tokens for one in answers) / (ended - began)
