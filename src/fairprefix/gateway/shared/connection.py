"""A connection to Redis that comes back by itself."""

from __future__ import annotations

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from fairprefix.gateway.shared.config import RedisConfig

TROUBLE = (RedisError, OSError, TimeoutError)
"""What a call may raise while Redis is away."""


def connect(config: RedisConfig) -> redis.asyncio.Redis:
    """Return a client that connects when it is first used, and again after a failure; it does not repeat calls.

    Raises:
        ConfigError: the password is missing.
    """
    seconds = config.timeout_ms / 1000
    return redis.asyncio.from_url(
        config.url,
        **config.arguments(),
        decode_responses=True,
        socket_timeout=seconds,
        socket_connect_timeout=seconds,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
    )
