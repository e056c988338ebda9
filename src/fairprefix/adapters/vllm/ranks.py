"""Which data-parallel rank of a vLLM server gets a request: `X-data-parallel-rank`, which vLLM obeys.

Off unless FAIRPREFIX_RANK_ROUTER is set (`fairprefix.hosting.ranks`) and the server has several ranks. What the
header said before is overwritten. Each API server process has a router of its own: `--api-server-count 1` makes it
one.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from itertools import count
from time import monotonic_ns
from typing import Any

from fairprefix.adapters.vllm.config import read_config
from fairprefix.adapters.vllm.shapes import Theirs
from fairprefix.core.request import Client
from fairprefix.hosting.ranks import RankRouter, rank_config

logger: logging.Logger = logging.getLogger("fairprefix.vllm")

HEADER = b"x-data-parallel-rank"
_BYTES_PER_TOKEN = 4
_ID_BYTES = 8
_ASSUMED_OUTPUT = 256
_TAIL = 8192
_USAGE = re.compile(rb'"completion_tokens"\s*:\s*(\d+)')
_OK = 200


def rank_router(vllm_config: Theirs) -> RankRouter | None:
    """Return what chooses ranks in this server; None where that is not configured, or there is but one."""
    config = rank_config(read_config(vllm_config))
    parallel = getattr(vllm_config, "parallel_config", None)
    ranks = getattr(parallel, "data_parallel_size", 1)
    if config is None or ranks < 2:  # noqa: PLR2004 (several)
        return None
    servers = getattr(parallel, "_api_process_count", 1)
    if servers > 1:
        logger.warning(
            "fairprefix: each of %d API servers spreads its own requests over the ranks: --api-server-count 1 "
            "lets one of them see all",
            servers,
        )
    return RankRouter(config, ranks, _give_up)


class Routed:
    """One HTTP request that has a rank."""

    _numbers = count()

    def __init__(self, router: RankRouter, client: Client, body: Mapping[str, Any]) -> None:
        self._router = router
        self._id = str(next(self._numbers))
        self._status = 0
        self._events = 0
        self._tail = b""
        prompt, width = prompt_of(body)
        self.rank: int | None = router.pick(
            self._id,
            client or "default-flow",
            prompt,
            bytes_per_token=width,
            max_output=_limit(body),
            namespace=f"{body.get('model')}\0{body.get('cache_salt')}",
            now_ns=monotonic_ns(),
        )

    def sent(self, message: Mapping[str, Any]) -> None:
        """Look at a piece of the answer."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif message["type"] == "http.response.body":
            piece = message.get("body", b"")
            self._events += piece.count(b"data: ")
            self._tail = (self._tail + piece)[-_TAIL:]

    def over(self) -> None:
        """Settle it: by its usage if the answer tells, else by the pieces that it came in."""
        if self._status != _OK:
            self._router.refused(self._id)
            return
        told = _USAGE.findall(self._tail)
        self._router.produced(self._id, int(told[-1]) if told else max(self._events - 1, 0))
        self._router.done(self._id)


def prompt_of(body: Mapping[str, Any]) -> tuple[bytes, int]:
    """Return a prompt as bytes, and how many of them make a token."""
    for field in ("messages", "prompt", "input"):
        prompt = body.get(field)
        if isinstance(prompt, str):
            return prompt.encode("utf-8", "surrogatepass"), _BYTES_PER_TOKEN
        if isinstance(prompt, list) and prompt and all(type(id) is int and 0 <= id < 1 << 63 for id in prompt):
            return b"".join(id.to_bytes(_ID_BYTES, "little") for id in prompt), _ID_BYTES
        if prompt:
            return json.dumps(prompt).encode(), _BYTES_PER_TOKEN
    return b"", _BYTES_PER_TOKEN


def _limit(body: Mapping[str, Any]) -> int:
    for field in ("max_completion_tokens", "max_tokens", "max_output_tokens"):
        limit = body.get(field)
        if type(limit) is int and limit > 0:
            return limit
    return _ASSUMED_OUTPUT


def _give_up(problem: Exception) -> None:
    logger.error("fairprefix failed, vLLM chooses ranks itself: %r", problem, exc_info=problem)
