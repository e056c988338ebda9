"""A complete application for Ray Serve: OpenAI's API -> D2LPM -> replicas with the reference engine.

    pip install 'fairprefix[engine,server,ray]'
    serve run fairprefix.demo.ray_app:build model=random replicas=3

The ingress checks a request, tokenises it, finds out whose it is, and sends it through the router. Each replica
has a gate with DLPM in front of an engine of its own. docs/integrate/ray.md explains every part.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from fairprefix.adapters.ray import FairReplica, RouteKey, fair_options
from fairprefix.adapters.ray.options import need_ray
from fairprefix.adapters.ray.settings import LedgerSettings
from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import ConfigError, nearest
from fairprefix.gpu_ref_engine.config import EngineConfig
from fairprefix.gpu_ref_engine.load import find_model, load_model
from fairprefix.gpu_ref_engine.server.answer import Answer
from fairprefix.gpu_ref_engine.server.app import Call
from fairprefix.gpu_ref_engine.server.ask import Ask, read_ask
from fairprefix.gpu_ref_engine.server.assemble import make_service
from fairprefix.gpu_ref_engine.server.errors import NOT_FOUND, ApiError
from fairprefix.gpu_ref_engine.server.fields import parse
from fairprefix.gpu_ref_engine.server.settings import ServerConfig
from fairprefix.hosting import Identity, host_config

_PATHS = {"/v1/completions": False, "/v1/chat/completions": True}
_DEFAULTS: Mapping[str, Any] = {
    "model": "random",
    "replicas": 3,
    "ingresses": 1,
    "max_batch": 8,
    "kv_tokens": 16_384,
    "max_output": 256,
    "longest_input": 4096,
    "trusted": "",
    "policy": "",
}


class Engine(FairReplica):
    """A replica: a gate, and behind it a reference engine that admits whatever it gets.

    Args:
        model: see `fairprefix serve`.
        settings: those of the ledger.
        max_output: tokens of an answer.
        kv_tokens: size of the KV memory.
    """

    def __init__(self, model: str, settings: Mapping[str, Any], max_output: int, kv_tokens: int) -> None:
        self.fair(settings)
        runner, tokenizer = load_model(model, kv_tokens=kv_tokens)
        # Who is next is decided at the gate: behind it nobody waits.
        policy = PolicyConfig(policy="fcfs", reservation="none")
        engine = EngineConfig(max_batch=int(settings["window"]), reservation="none")
        server = ServerConfig(model=model, max_output=max_output)
        self._service = make_service(runner, tokenizer, policy, engine, server)
        self._started = False

    async def answer(self, key: RouteKey, ask: Ask) -> AsyncIterator[str]:
        """Yield an answer: server-sent events, or JSON in one piece."""
        service = self._service
        if not self._started:
            self._started = True
            service.worker.start()
        async with self.turn(key) as turn:
            jobs = service.jobs(ask, key.client)
            answer = Answer(f"cmpl-{uuid.uuid4().hex}", service.config.model, ask, service.tokenizer)
            call = Call(service, jobs, service.start(jobs), answer)
            try:
                for opening in answer.openings() if ask.stream else ():
                    yield _event(opening)
                async for news in call.news():
                    if not turn.output:
                        turn.found(max(key.input_tokens - answer.choices[0].cached, 0))
                    turn.produced(sum(choice.tokens for choice in answer.choices) - turn.output)
                    for choice, text in news if ask.stream else ():
                        chunk = answer.chunk(choice, text)
                        if chunk is not None:
                            yield _event(chunk)
            finally:
                call.close()
        if not ask.stream:
            yield json.dumps(answer.whole())
            return
        last = answer.last()
        if last:
            yield _event(last)
        yield "data: [DONE]\n\n"


class Ingress:
    """OpenAI's endpoints; everything that can be wrong with a request is found here.

    Args:
        engines: the handle of the replicas.
        model: their model, for its tokenizer.
        policy: names the sources of a client's identity.
        server: limits, and who may say who a client is.
    """

    def __init__(self, engines: Any, model: str, policy: Mapping[str, Any], server: Mapping[str, Any]) -> None:  # noqa: ANN401
        import torch  # noqa: PLC0415 (find_model wants a device, and reads no tensor)

        self._engines = engines
        self._tokenizer = find_model(model, device=torch.device("cpu")).tokenizer
        self._config = ServerConfig(model=model, **server)
        self._identity = Identity(PolicyConfig.from_mapping(policy).identity)

    async def __call__(self, request: Request) -> Response:
        """Answer a request."""
        path = request.url.path
        if path == "/v1/models":
            return JSONResponse({"object": "list", "data": [{"id": self._config.model, "object": "model"}]})
        try:
            if path not in _PATHS:
                raise ApiError(NOT_FOUND, f"there is no {path} here", code="not_found")  # noqa: TRY301 (answered below)
            body = parse(await request.body())
            ask = read_ask(body, chat=_PATHS[path], tokenizer=self._tokenizer, config=self._config)
        except ApiError as problem:
            return problem.response()
        address = request.client.host if request.client else None
        client = self._identity.resolve(headers=request.headers, body=body, trusted=self._config.trusts(address))
        # Several prompts are one call, by the longest of them and all that it may produce.
        key = RouteKey.of(
            client,
            max(ask.prompts, key=len),
            max_output=ask.params.max_tokens * len(ask.prompts) * ask.n,
            namespace=ask.namespace,
        )
        pieces = self._engines.options(stream=True).answer.remote(key, ask)
        if ask.stream:
            return StreamingResponse(pieces, media_type="text/event-stream")
        return Response("".join([piece async for piece in pieces]), media_type="application/json")


def _event(chunk: Mapping[str, Any]) -> str:
    return f"data: {json.dumps(chunk, separators=(',', ':'))}\n\n"


def build(arguments: Mapping[str, Any]) -> Any:  # noqa: ANN401 (Ray's type)
    """Return the application, for `serve run` and Serve's configuration files.

    Args:
        arguments: model, replicas, ingresses, max_batch, kv_tokens, max_output, longest_input; trusted: addresses
            of proxies that may say who a client is, separated by commas; policy: a file, or settings as JSON.

    Raises:
        ConfigError: an argument is unknown or not valid.
        MissingRayError: Ray Serve is not installed.
    """
    need_ray()
    from ray import serve  # noqa: PLC0415 (an extra)

    for name in arguments:
        if name not in _DEFAULTS:
            raise ConfigError(
                f"unknown argument {name!r}{nearest(name, _DEFAULTS)}; known: {', '.join(_DEFAULTS)}"
            )
    given = {**_DEFAULTS, **arguments}
    policy = host_config(given["policy"] or None)
    max_output = int(given["max_output"])
    settings = LedgerSettings(
        policy=policy,
        window=int(given["max_batch"]),
        longest_input=int(given["longest_input"]),
        longest_output=max_output,
    )
    server = {
        "max_output": max_output,
        "max_prompt": int(given["longest_input"]),
        "trusted": tuple(filter(None, str(given["trusted"]).split(","))),
    }
    engines = serve.deployment(**fair_options(settings, name="Engine", num_replicas=int(given["replicas"])))(
        Engine
    )
    ingress = serve.deployment(name="Ingress", num_replicas=int(given["ingresses"]), max_ongoing_requests=10_000)(
        Ingress
    )
    model = str(given["model"])
    return ingress.bind(
        engines.bind(model, settings.to_mapping(), max_output, int(given["kv_tokens"])),
        model,
        policy.to_mapping(),
        server,
    )
