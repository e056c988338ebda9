"""One name for the same piece of a prompt at every worker: hashes of token ids, each with all that comes before.

Engines salt their own hashes, so they mean nothing elsewhere. What a worker reports, and what a request brings, is
named here by the tokens themselves.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

_DIGEST_BYTES = 8
_TOKEN_BYTES = 4


def root(adapter: str = "", salt: str = "") -> bytes:
    """Return where every prompt for a LoRA adapter, and within a cache salt, begins."""
    start = bytes(_DIGEST_BYTES)
    if adapter:
        start = fold(start, adapter)
    return fold(start, [salt]) if salt else start


def fold(digest: bytes, what: Any) -> bytes:  # noqa: ANN401 (anything that MessagePack knows)
    """Return a digest that depends on something beside tokens as well."""
    return _digest(digest + b"+" + msgspec.msgpack.encode(what))


def pack(tokens: Sequence[int]) -> bytes:
    """Return token ids as bytes, 4 each."""
    return array("I", tokens).tobytes()


def names_of(tokens: Sequence[int], block_size: int, *, adapter: str = "", salt: str = "") -> list[bytes]:
    """Return the names of a prompt's full blocks, first block first. O(tokens).

    Args:
        tokens: the prompt, as token ids.
        block_size: tokens per block.
        adapter: LoRA adapter that it is for.
        salt: `cache_salt` of the request.
    """
    return list(follow(root(adapter, salt), pack(tokens), block_size))


def follow(digest: bytes, packed: bytes, block_size: int) -> Iterator[bytes]:
    """Yield the name of each full block of packed tokens that come after `digest`."""
    width = block_size * _TOKEN_BYTES
    for start in range(0, len(packed) - width + 1, width):
        digest = _digest(digest + packed[start : start + width])
        yield digest


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=_DIGEST_BYTES).digest()
