"""The endpoints."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from fairprefix.gpu_ref_engine.job import Finish, Job, Output
from fairprefix.gpu_ref_engine.server.answer import Answer, Choice
from fairprefix.gpu_ref_engine.server.ask import Ask
from fairprefix.gpu_ref_engine.server.errors import (
    CLIENT_GONE,
    NOT_FOUND,
    SERVER_ERROR,
    TOO_LARGE,
    UNAVAILABLE,
    ApiError,
)
from fairprefix.gpu_ref_engine.server.metrics import CONTENT_TYPE, engine_samples
from fairprefix.gpu_ref_engine.server.service import Service
from fairprefix.gpu_ref_engine.server.worker import Stream

LOG = logging.getLogger("fairprefix.server")
Endpoint = Callable[[Request], Awaitable[Response]]
_LOST = ApiError(SERVER_ERROR, "the engine lost this request: try again", code="engine_error")


def make_app(service: Service) -> Starlette:
    """Return the application; its lifespan starts and stops the engine's thread."""
    guarded = _guarded(service)

    async def completions(request: Request) -> Response:
        return await _answer(service, request, chat=False)

    async def chat_completions(request: Request) -> Response:
        return await _answer(service, request, chat=True)

    async def models(request: Request) -> Response:
        service.check_key(request.headers)
        return JSONResponse({"object": "list", "data": [_model(service)]})

    async def model(request: Request) -> Response:
        service.check_key(request.headers)
        name = request.path_params["name"]
        if name != service.config.model:
            raise ApiError(NOT_FOUND, f"model {name!r} is not served here", param="model", code="model_not_found")
        return JSONResponse(_model(service))

    async def health(_request: Request) -> Response:
        worker = service.worker
        problem = worker.failed or ("draining" if worker.draining else None)
        return JSONResponse({"status": problem or "ok"}, status_code=UNAVAILABLE if problem else 200)

    async def metrics(_request: Request) -> Response:
        samples = await service.worker.ask(lambda: engine_samples(service.worker.engine))
        return Response(service.metrics.text(samples), media_type=CONTENT_TYPE)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        service.worker.start()
        try:
            yield
        finally:
            await service.worker.stop()

    routes = [
        Route("/v1/completions", guarded(completions), methods=["POST"]),
        Route("/v1/chat/completions", guarded(chat_completions), methods=["POST"]),
        Route("/v1/models", guarded(models)),
        Route("/v1/models/{name:path}", guarded(model)),
        Route("/health", guarded(health)),
        Route("/metrics", guarded(metrics)),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _http_error})


def _model(service: Service) -> dict[str, object]:
    longest = service.worker.engine.runner.longest
    return {"id": service.config.model, "object": "model", "created": _STARTED, "owned_by": "fairprefix",
            "max_model_len": longest}  # fmt: skip


_STARTED = int(time.time())


async def _http_error(_request: Request, problem: Exception) -> Response:
    """Say in OpenAI's shape what Starlette found: no such path, or no such method."""
    assert isinstance(problem, HTTPException)
    code = "not_found" if problem.status_code == NOT_FOUND else "invalid_request"
    return ApiError(problem.status_code, problem.detail.lower(), code=code).response()


def _guarded(service: Service) -> Callable[[Endpoint], Endpoint]:
    """Turn errors into responses, and count every response."""

    def wrap(endpoint: Endpoint) -> Endpoint:
        async def call(request: Request) -> Response:
            try:
                response = await endpoint(request)
            except ApiError as problem:
                response = problem.response()
            except ClientDisconnect:
                response = Response(status_code=CLIENT_GONE)
            except Exception:
                LOG.exception("%s %s failed", request.method, request.url.path)
                response = ApiError(SERVER_ERROR, "the server failed: see its log", code="server_error").response()
            service.metrics.responded(response.status_code)
            return response

        return call

    return wrap


async def _answer(service: Service, request: Request, *, chat: bool) -> Response:
    key = service.check_key(request.headers)
    body, ask = await service.read(await _body(request, service.config.max_body), chat=chat)
    address = request.client.host if request.client else None
    client = service.client(request.headers, body, key, address)
    jobs = service.jobs(ask, client)
    prefix = "chatcmpl" if chat else "cmpl"
    answer = Answer(f"{prefix}-{jobs[0].id}", service.config.model, ask, service.tokenizer)
    stream = service.start(jobs)
    call = Call(service, jobs, stream, answer)
    if ask.stream:
        return EventStream(call, ask)
    return await _whole(call, request)


async def _body(request: Request, most: int) -> bytes:
    """Return the body, and stop reading when it gets too long."""
    too_large = ApiError(TOO_LARGE, f"the body is too large: expected at most {most} bytes", code="body_too_large")
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > most:
        raise too_large
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > most:
            raise too_large
    return bytes(data)


class Call:
    """One HTTP request while the engine works on it; `close` settles it in any case."""

    def __init__(self, service: Service, jobs: Sequence[Job], stream: Stream, answer: Answer) -> None:
        self.answer = answer
        self._service = service
        self._jobs = jobs
        self._stream = stream
        self._choices = {job.id: choice for job, choice in zip(jobs, answer.choices, strict=True)}

    async def news(self) -> AsyncIterator[list[tuple[Choice, str]]]:
        """Yield answers that have grown, with their new text.

        Raises:
            ApiError: the engine could not go on.
        """
        async for outputs in self._stream.batches():
            fresh: dict[int, tuple[Choice, str]] = {}
            for output in outputs:
                choice, text = self._take(output)
                fresh[choice.index] = (choice, fresh.get(choice.index, (choice, ""))[1] + text)
            yield list(fresh.values())

    def _take(self, output: Output) -> tuple[Choice, str]:
        if output.finish is Finish.ERROR:
            raise _LOST
        choice = self._choices[output.id]
        return choice, choice.add(output)

    def close(self) -> None:
        """Give up whatever is not over."""
        self._service.finish(self._jobs, self._stream)

    def give_up(self) -> None:
        """End the stream: its reader has gone."""
        self._stream.close()

    @property
    def complete(self) -> bool:
        """Whether every answer has come to its end."""
        return all(choice.finish is not None for choice in self.answer.choices)


async def _whole(call: Call, request: Request) -> Response:
    """Answer in one piece, unless the client goes before that."""
    watch = asyncio.create_task(_until_gone(request.receive, call))
    try:
        async for _ in call.news():
            pass
        if not call.complete:
            raise ClientDisconnect
        return JSONResponse(call.answer.whole())
    finally:
        watch.cancel()
        call.close()


async def _until_gone(receive: Receive, call: Call) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    call.give_up()


class EventStream(Response):
    """An answer in chunks, as server-sent events."""

    def __init__(self, call: Call, ask: Ask) -> None:
        super().__init__(media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        del self.headers["content-length"]
        self._call = call
        self._ask = ask

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        """Send the answer as it comes; a reader that goes away ends it."""
        call = self._call
        watch = asyncio.create_task(_until_gone(receive, call))
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            await self._send(send, call.answer.openings())
            try:
                async for news in call.news():
                    chunks = [call.answer.chunk(choice, text) for choice, text in news]
                    await self._send(send, [chunk for chunk in chunks if chunk is not None])
            except ApiError as problem:  # too late for a status of its own
                await self._send(send, [problem.body()])
            if call.complete:
                last = call.answer.last()
                await self._send(send, [last] if last else [])
                await _write(send, b"data: [DONE]\n\n")
            await _write(send, b"", more=False)
        except OSError:  # the reader has gone
            return
        finally:
            watch.cancel()
            call.close()

    @staticmethod
    async def _send(send: Send, chunks: Sequence[dict[str, Any]]) -> None:
        if chunks:
            lines = [
                f"data: {json.dumps(chunk, ensure_ascii=False, separators=(',', ':'))}\n\n" for chunk in chunks
            ]
            await _write(send, "".join(lines).encode("utf-8", "replace"))


async def _write(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
