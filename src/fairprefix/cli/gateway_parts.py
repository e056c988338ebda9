"""What a gateway is made of beside itself, as configured: event streams, a tokenizer, Redis."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fairprefix.core.errors import ConfigError
from fairprefix.gateway.config import Settings
from fairprefix.hosting.extras import need

LOG = logging.getLogger("fairprefix.gateway")
_REDIS_STATE = "redis:"
_SPECIALS = ("bos_token", "eos_token", "unk_token", "pad_token")


def parts_of(settings: Settings) -> dict[str, Any]:
    """Return the parts that `fairprefix.gateway.gateway.Gateway` takes beside the settings.

    Raises:
        ConfigError: a file or a password is missing, or is not what it should be.
        MissingExtraError: a library is not installed; the message is the command that installs it.
    """
    parts: dict[str, Any] = {}
    if settings.router.index == "exact":
        parts["events"] = [*_feeds(settings)]
        parts["prompt"] = _prompt(settings)
    if settings.redis is not None:
        need("redis", "redis")
        from fairprefix.gateway.shared.sync import LedgerSync  # noqa: PLC0415  # an extra

        parts["ledgers"] = LedgerSync(settings.redis, LOG.warning)
    place = settings.gateway.state
    if place.startswith(_REDIS_STATE):
        parts["store"] = _redis_store(settings, place[len(_REDIS_STATE) :])
    return parts


def _feeds(settings: Settings) -> Sequence[Any]:
    for module in ("zmq", "msgspec"):
        need(module, "events")
    from fairprefix.gateway.kv_events.feed import FeedConfig, KvEventFeed  # noqa: PLC0415  # an extra

    return [
        KvEventFeed(
            worker.name,
            FeedConfig(
                endpoint=worker.kv_events,
                replay=worker.kv_replay,
                block_size=settings.router.block_size,
                limit=worker.kv_block_limit,
            ),
            on_trouble=LOG.warning,
        )
        for worker in settings.workers
    ]


def _prompt(settings: Settings) -> Any:  # noqa: ANN401 (an extra's type)
    from fairprefix.gateway.kv_events.prompt import TokenBlocks  # noqa: PLC0415  # an extra

    block_size, given = settings.router.block_size, settings.gateway.tokenizer
    if not given:
        LOG.warning("no tokenizer is configured: only prompts that are given as token ids are found in the index")
        return TokenBlocks(None, None, block_size)
    folder = Path(given)
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise ConfigError(f"tokenizer = {given!r} is not valid: expected a folder with tokenizer.json")
    try:
        tokenizer = need("tokenizers", "events").Tokenizer.from_file(str(file))
    except Exception as problem:  # the library raises nothing more special
        if isinstance(problem, ImportError):
            raise
        raise ConfigError(f"tokenizer = {given!r}: {file.name} cannot be read: {problem}") from None

    def encode(text: str, special: bool) -> Sequence[int]:  # noqa: FBT001 (the protocol's)
        ids: Sequence[int] = tokenizer.encode(text, add_special_tokens=special).ids
        return ids

    return TokenBlocks(encode, _renderer(folder), block_size)


def _renderer(folder: Path) -> Callable[[Sequence[Mapping[str, Any]]], str] | None:
    """Return the model's chat template; None if there is none."""
    config = _json(folder / "tokenizer_config.json")
    file = folder / "chat_template.jinja"
    source = file.read_text(encoding="utf-8") if file.is_file() else config.get("chat_template")
    if not isinstance(source, str):
        return None
    from fairprefix.gpu_ref_engine.chat import ChatTemplate  # noqa: PLC0415  # an extra

    found = {name: config.get(name) for name in _SPECIALS}
    texts = {name: one.get("content") if isinstance(one, dict) else one for name, one in found.items()}
    return ChatTemplate(source, {name: text for name, text in texts.items() if isinstance(text, str)}).render


def _json(file: Path) -> Mapping[str, Any]:
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as problem:
        raise ConfigError(f"tokenizer: {file} is not valid: {problem}") from None


def _redis_store(settings: Settings, name: str) -> Any:  # noqa: ANN401 (an extra's type)
    if settings.redis is None or not name:
        raise ConfigError(
            f"state = {settings.gateway.state!r} is not valid: expected redis:NAME with a table [redis], or a file"
        )
    need("redis", "redis")
    from fairprefix.gateway.shared.store import RedisStore  # noqa: PLC0415  # an extra

    return RedisStore(settings.redis, name)
