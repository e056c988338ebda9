"""The engines' events as bytes, and as what they mean.

A batch is `[timestamp, events, rank]`, in newer versions of vLLM also a map of these. An event is a map with its
kind under "type" (vLLM from 0.32 on, SGLang), or an array with its kind in the first place (before that). Source:
the structures of `vllm.distributed.kv_events` and `sglang.srt.disaggregation.kv_events`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from attrs import frozen

BlockId = int | bytes
"""What an engine calls a block: opaque, and salted, so that nobody else can compute it."""

_STORED = (
    *("block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium", "lora_name"),
    *("extra_keys", "group_idx", "kv_cache_spec_kind"),
)
_REMOVED = ("block_hashes", "medium", "group_idx")
_BATCH = ("ts", "events", "data_parallel_rank")
_DEVICE = "GPU"
_FULL_ATTENTION = "full"
_TOKENS = 1 << 32


class WireError(ValueError):
    """These bytes are not a batch of events."""


@frozen
class Stored:
    """Blocks that are cached now, one after the other in a prompt."""

    ids: Sequence[BlockId]
    parent: BlockId | None
    """The block before the first one; None at the beginning of a prompt."""
    tokens: Sequence[int]
    block_size: int
    """Tokens per block."""
    adapter: str = ""
    """LoRA adapter."""
    extras: Sequence[Any] = ()
    """For each block, what else its content depends on (salt, images...); empty: nothing, for none of them."""
    on_device: bool = True
    """Whether it is in the memory that the engine computes in, and not in a slower one."""
    group: int = 0
    """Which of the caches of a hybrid model."""
    shared: bool = True
    """Whether any prompt that begins so can use it: not so in a cache of a sliding window, and not for blocks
    under a salt whose hashes do not depend on it (SGLang)."""


@frozen
class Removed:
    """Blocks that are cached no more."""

    ids: Sequence[BlockId]
    on_device: bool = True
    group: int = 0


@frozen
class Cleared:
    """Nothing is cached any more."""


Event = Stored | Removed | Cleared


@frozen
class Batch:
    """What one message carries."""

    events: Sequence[Event]
    rank: int | None
    """The data-parallel rank that it came from, if the engine says."""
    unknown: int
    """Events that are not understood, and that stored something if they are of a known kind."""


def decode(payload: bytes) -> Batch:
    """Return a batch.

    Raises:
        WireError: it is none; nothing of it can be used then.
    """
    try:
        outer = msgspec.msgpack.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise WireError(f"not MessagePack: {problem}") from problem
    batch = _named(outer, _BATCH, "batch")
    events = batch.get("events")
    if not isinstance(events, list):
        raise WireError(f"batch: events = {type(events).__name__}, expected an array")
    known = [event for event in map(_event, events) if event is not None]
    rank = batch.get("data_parallel_rank", batch.get("attn_dp_rank"))
    return Batch(known, rank if isinstance(rank, int) else None, len(events) - len(known))


def _named(value: Any, names: Sequence[str], what: str) -> Mapping[str, Any]:  # noqa: ANN401 (read from the wire)
    if isinstance(value, dict):
        return value
    if isinstance(value, list):
        return dict(zip(names, value, strict=False))
    raise WireError(f"{what}: {type(value).__name__}, expected an array or a map")


def _event(value: Any) -> Event | None:  # noqa: ANN401 (read from the wire)
    """Return an event; None if it is of a kind that is not known here."""
    fields: dict[str, Any] | list[Any]
    if isinstance(value, dict):
        kind, fields = value.get("type"), value
    elif isinstance(value, list) and value:
        kind, fields = value[0], value[1:]
    else:
        raise WireError(f"event: {type(value).__name__}, expected an array or a map")
    if kind == "BlockStored":
        return _stored(_named(fields, _STORED, kind))
    if kind == "BlockRemoved":
        named = _named(fields, _REMOVED, kind)
        return Removed(_ids(named), _on_device(named), _group(named))
    return Cleared() if kind == "AllBlocksCleared" else None


def _stored(named: Mapping[str, Any]) -> Stored | None:
    """Return an event; None if it does not say in a known way what was stored: then that is not known."""
    ids, tokens, size = _ids(named), named.get("token_ids"), named.get("block_size")
    parent, kind = named.get("parent_block_hash"), named.get("kv_cache_spec_kind")
    if not isinstance(size, int) or not isinstance(tokens, list) or len(tokens) != size * len(ids) or not ids:
        return None
    if not all(type(token) is int and 0 <= token < _TOKENS for token in tokens):
        return None  # speculative decoding in SGLang: pairs of tokens
    if parent is not None and not isinstance(parent, int | bytes):
        return None
    return Stored(
        ids,
        parent,
        tokens,
        size,
        _adapter(named),
        _extras(named, len(ids)),
        on_device=_on_device(named),
        group=_group(named),
        shared=named.get("cache_salt") is None and (not isinstance(kind, str) or _FULL_ATTENTION in kind.lower()),
    )


def _ids(named: Mapping[str, Any]) -> list[BlockId]:
    ids = named.get("block_hashes")
    if not isinstance(ids, list) or not all(isinstance(one, int | bytes) for one in ids):
        raise WireError("block_hashes: expected an array of integers or bytes")
    return ids


def _adapter(named: Mapping[str, Any]) -> str:
    name = named.get("lora_name")
    if isinstance(name, str):
        return name
    number = named.get("lora_id")
    return "" if number is None else f"#{number}"


def _extras(named: Mapping[str, Any], blocks: int) -> Sequence[Any]:
    """Return what each block depends on beside its tokens and the adapter."""
    keys, name = named.get("extra_keys"), named.get("lora_name")
    if not isinstance(keys, list) or len(keys) != blocks:
        return ()
    extras = [[key for key in block if key != name] if isinstance(block, list) else [] for block in keys]
    return extras if any(extras) else ()


def _on_device(named: Mapping[str, Any]) -> bool:
    medium = named.get("medium")
    return medium is None or medium == _DEVICE


def _group(named: Mapping[str, Any]) -> int:
    group = named.get("group_idx")
    return group if isinstance(group, int) else 0
