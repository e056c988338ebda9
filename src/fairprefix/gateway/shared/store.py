"""The gateway's state in Redis, instead of a file: for gateways that have no disk of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from fairprefix.core.errors import ConfigError
from fairprefix.gateway.shared.config import RedisConfig
from fairprefix.gateway.shared.connection import TROUBLE, connect
from fairprefix.gateway.state import open_state


class RedisStore:
    """Keeps one gateway's state (`fairprefix.gateway.state.StateStore`) under a key of its own.

    Args:
        config: where Redis is.
        name: the gateway's: the same after a restart, and unlike that of any other.
    """

    def __init__(self, config: RedisConfig, name: str) -> None:
        self._client = connect(config)
        self._key = f"{config.namespace}:state:{name}"
        self._place = f"redis:{name}"

    async def load(self) -> Mapping[str, Any] | None:
        """Return what was saved last; None when nothing was.

        Raises:
            ConfigError: Redis does not answer, or what it has is no state of ours.
        """
        try:
            data = await self._client.get(self._key)
        except TROUBLE as problem:
            raise ConfigError(
                f"state = {self._place!r}: Redis does not answer ({type(problem).__name__}): check [redis]"
            ) from problem
        return None if data is None else open_state(str(data).encode(), self._place)

    async def save(self, state: Mapping[str, Any]) -> None:
        """Replace what was saved.

        Raises:
            OSError: Redis does not answer.
        """
        try:
            await self._client.set(self._key, orjson.dumps(state, option=orjson.OPT_NON_STR_KEYS))
        except TROUBLE as problem:
            raise OSError(f"Redis does not answer ({type(problem).__name__})") from problem

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()
