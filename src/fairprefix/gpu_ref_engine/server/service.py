"""Between HTTP and the engine: who may ask, how much may wait, and what the figures are."""

from __future__ import annotations

import asyncio
import hmac
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from fairprefix.core.request import Client
from fairprefix.gpu_ref_engine.config import RequestError
from fairprefix.gpu_ref_engine.job import Job
from fairprefix.gpu_ref_engine.server.ask import Ask, read_ask
from fairprefix.gpu_ref_engine.server.errors import BAD_REQUEST, TOO_MANY, UNAUTHORIZED, UNAVAILABLE, ApiError
from fairprefix.gpu_ref_engine.server.fields import parse
from fairprefix.gpu_ref_engine.server.metrics import Metrics
from fairprefix.gpu_ref_engine.server.settings import ServerConfig
from fairprefix.gpu_ref_engine.server.worker import EngineStoppedError, EngineWorker, Stream
from fairprefix.gpu_ref_engine.stop import StopWatch
from fairprefix.gpu_ref_engine.tokenizer import Tokenizer
from fairprefix.hosting import Identity
from fairprefix.hosting.identity import key_name

_BEARER = "bearer "
_LONG_BODY = 16 << 10
"""Bytes of a body that the tokenizer may work on without leaving the event loop."""


class Service:
    """What the endpoints call.

    Args:
        worker: runs the engine.
        tokenizer: the model's.
        config: the operator's settings.
        metrics: count what happens.
    """

    def __init__(self, worker: EngineWorker, tokenizer: Tokenizer, config: ServerConfig, metrics: Metrics) -> None:
        self.worker = worker
        self.tokenizer = tokenizer
        self.config = config
        self.metrics = metrics
        self.open: dict[Client, int] = {}
        """Requests under way by client."""
        self._identity = Identity(worker.engine.policy_config.identity)
        self._names = {key_name(key): name for key, name in config.api_keys.items()}

    # Who is it?

    def check_key(self, headers: Mapping[str, str]) -> str | None:
        """Return the API key that was shown; None where none is needed.

        Raises:
            ApiError: a key is needed, and none that is known was shown.
        """
        if not self.config.api_keys:
            return None
        given = headers.get("authorization", "")
        shown = given[len(_BEARER) :].strip() if given.lower().startswith(_BEARER) else ""
        for key in self.config.api_keys:
            if hmac.compare_digest(key.encode(), shown.encode()):
                return key
        raise ApiError(
            UNAUTHORIZED,
            "the API key is missing or unknown: expected the header Authorization: Bearer KEY",
            code="invalid_api_key",
        )

    def client(
        self, headers: Mapping[str, str], body: Mapping[str, Any], key: str | None, address: str | None
    ) -> Client:
        """Return whose request it is: only whom the operator trusts may name somebody else."""
        trusted = self.config.trusts(address)
        found = self._identity.resolve(headers=headers, body=body, api_key=key, trusted=trusted)
        return self._names.get(found, found)

    # What do they want?

    async def read(self, data: bytes, *, chat: bool) -> tuple[Mapping[str, Any], Ask]:
        """Return a request's body, and what it asks for.

        Raises:
            ApiError: it is not valid.
        """
        body = parse(data)

        def read() -> Ask:
            return read_ask(body, chat=chat, tokenizer=self.tokenizer, config=self.config)

        # A tokenizer lets go of the interpreter while it works: long texts need not hold up all others.
        return body, read() if len(data) < _LONG_BODY else await asyncio.to_thread(read)

    def jobs(self, ask: Ask, client: Client) -> list[Job]:
        """Return the engine's requests, one for each answer.

        Raises:
            ApiError: one of them can never be served.
        """
        id = uuid.uuid4().hex
        try:
            return [
                self.worker.engine.make_job(
                    client,
                    prompt,
                    params,
                    id=f"{id}-{number}",
                    stop=StopWatch(self.tokenizer.detokenizer(), params.stop) if params.stop else None,
                    namespace=ask.namespace,
                )
                for number, (prompt, params) in enumerate(ask.choices())
            ]
        except RequestError as problem:
            raise ApiError(
                BAD_REQUEST,
                str(problem),
                param="messages" if ask.chat else "prompt",
                code="context_length_exceeded" if "together" in str(problem) else "invalid_value",
            ) from None

    # May they?

    def start(self, jobs: Sequence[Job]) -> Stream:
        """Hand requests to the engine; `finish` has to follow.

        Raises:
            ApiError: too many wait, or the engine takes no more.
        """
        client, config = jobs[0].client, self.config
        waiting = self.worker.requests - self.worker.engine.running
        if waiting + len(jobs) > config.max_waiting + self._free_places():
            raise ApiError(TOO_MANY, f"{waiting} requests wait already: try again later", code="queue_full")
        mine = self.open.get(client, 0)
        if config.max_per_client is not None and mine + len(jobs) > config.max_per_client:
            raise ApiError(
                TOO_MANY,
                f"client {client!r} has {mine} requests under way: expected at most {config.max_per_client}",
                code="client_queue_full",
            )
        try:
            stream = self.worker.open(jobs)
        except EngineStoppedError as problem:
            raise ApiError(UNAVAILABLE, str(problem), code="unavailable") from None
        self.open[client] = mine + len(jobs)
        return stream

    def finish(self, jobs: Sequence[Job], stream: Stream) -> None:
        """Give up what is not over, and count the requests out."""
        stream.close()
        client = jobs[0].client
        self.open[client] -= len(jobs)
        if not self.open[client]:
            del self.open[client]

    def _free_places(self) -> int:
        return max(self.worker.engine.config.max_batch - self.worker.engine.running, 0)
