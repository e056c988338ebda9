"""The data-parallel ranks of one server as workers: which of them gets a request, by a routing policy of the core.

    FAIRPREFIX_RANK_ROUTER=d2lpm                             a router's name
    FAIRPREFIX_RANK_ROUTER=/etc/ranks.toml                   or a file: TOML, JSON or YAML
    FAIRPREFIX_RANK_ROUTER='{"router": "d2lpm", "quantum": 4096}'   or the settings themselves, as JSON

The settings are those of `fairprefix.core.router_config.RouterConfig`; weights and costs are the policy's unless
they are given. Every rank schedules on its own. Without the variable the server spreads requests as it does.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any

from fairprefix.configfile import read_settings
from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import ConfigError, reject
from fairprefix.core.request import Client, Request
from fairprefix.core.router_catalog import make_router
from fairprefix.core.router_config import ROUTERS, RouterConfig

RANKS_VARIABLE = "FAIRPREFIX_RANK_ROUTER"

_LONGEST = 4096
"""Blocks of a prompt that are looked at."""
_DIGEST_BYTES = 8


def rank_config(policy: PolicyConfig, environ: Mapping[str, str] = os.environ) -> RouterConfig | None:
    """Return how requests are spread over ranks; None if that is left to the server.

    Raises:
        ConfigError: the settings cannot be read, or one is unknown or invalid.
    """
    text = environ.get(RANKS_VARIABLE, "").strip()
    if not text:
        return None
    shared = {"weights": policy.weights, "default_weight": policy.default_weight, "output_charge": "average"}
    shared |= {"cost_extend": policy.cost_extend, "cost_output": policy.cost_output}
    try:
        config = RouterConfig.from_mapping({**shared, **_settings(text)})
        if config.index == "exact":
            raise reject("index", config.index, "'approximate' between the ranks of one server")
    except ConfigError as problem:
        raise ConfigError(f"{RANKS_VARIABLE}: {problem}") from None
    return config


def _settings(text: str) -> Mapping[str, Any]:
    if text in ROUTERS:
        return {"router": text}
    if not text.startswith("{"):
        return read_settings(text)
    try:
        return dict(json.loads(text))
    except ValueError as problem:
        raise ConfigError(f"is not valid JSON: {problem}") from problem


def blocks_of(prompt: bytes, width: int, namespace: str = "") -> list[bytes]:
    """Return cumulative hashes of a prompt's beginning, `width` bytes a block; O(bytes looked at)."""
    digest = blake2b(namespace.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()
    blocks = []
    for start in range(0, min(len(prompt) // width, _LONGEST) * width, width):
        digest = blake2b(digest + prompt[start : start + width], digest_size=_DIGEST_BYTES).digest()
        blocks.append(digest)
    return blocks


class RankRouter:
    """Chooses ranks. Whatever goes wrong in here, the server goes on by itself: `pick` returns None from then on.

    Args:
        config: the routing policy's.
        ranks: how many there are.
        on_error: told when the policy fails, once.
    """

    def __init__(
        self, config: RouterConfig, ranks: int, on_error: Callable[[Exception], None] = lambda _problem: None
    ) -> None:
        self.config = config
        self.errors: int = 0
        """How often the policy failed: 0 or 1."""
        self.picked: list[int] = [0] * ranks
        """Requests sent to each rank so far."""
        self._router = make_router(config)
        self._output: dict[str, int] = {}
        """Of requests that are out: output tokens as last reported."""
        self._on_error = on_error
        for rank in range(ranks):
            self._router.worker_joined(str(rank))

    @property
    def out(self) -> int:
        """Requests that are not over."""
        return len(self._output)

    def pick(
        self,
        id: str,
        client: Client,
        prompt: bytes,
        *,
        bytes_per_token: int,
        max_output: int,
        namespace: str = "",
        now_ns: int = 0,
    ) -> int | None:
        """Return the rank of a request, the same one if asked again; None to leave it to the server.

        Args:
            id: unique among requests that are out.
            client: whose it is.
            prompt: text or token ids, as bytes whose beginnings agree where the prompts' do.
            bytes_per_token: how many of these make a token.
            max_output: the most output tokens.
            namespace: prompts share caches only within one: model or adapter, salt.
            now_ns: for routers that look at a window of time.
        """
        if self.errors:
            return None
        try:
            request = Request(
                id,
                client,
                max(len(prompt) // bytes_per_token, 1),
                max(max_output, 1),
                blocks_of(prompt, self.config.block_size * bytes_per_token, namespace),
            )
            choice = self._router.pick(request, now=now_ns)
        except Exception as problem:  # noqa: BLE001 (whatever it is, the server must go on)
            self._give_up(problem)
            return None
        assert choice is not None  # ranks do not leave
        rank = int(choice.worker)
        if not choice.again:
            self._output[id] = 0
            self.picked[rank] += 1
        return rank

    def produced(self, id: str, output: int) -> None:
        """Note how many output tokens a request has produced in all; unknown ones are skipped."""
        if id in self._output:
            self._output[id] = output

    def done(self, id: str) -> None:
        """Settle a request that is over, however it ended; unknown ones are skipped."""
        output = self._output.pop(id, None)
        if output is None or self.errors:
            return
        try:
            self._router.settle(id, output=output)
        except Exception as problem:  # noqa: BLE001 (whatever it is, the server must go on)
            self._give_up(problem)

    def refused(self, id: str) -> None:
        """Give back what was charged for a request that the server has not taken; unknown ones are skipped."""
        if self._output.pop(id, None) is None or self.errors:
            return
        try:
            self._router.refund(id)
        except Exception as problem:  # noqa: BLE001 (whatever it is, the server must go on)
            self._give_up(problem)

    def gone(self, known: Callable[[str], bool]) -> None:
        """Settle requests that the server does not know any more. O(requests out)."""
        over: Iterable[str] = [id for id in self._output if not known(id)]
        for id in over:
            self.done(id)

    def _give_up(self, problem: Exception) -> None:
        self.errors += 1
        self._output.clear()
        self._on_error(problem)
