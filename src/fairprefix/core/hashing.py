"""Hashes that do not change from run to run or from machine to machine, for routers that spread by hash."""

from __future__ import annotations

from bisect import bisect_right
from hashlib import blake2b

from fairprefix.core.request import Request


def hash64(text: str) -> int:
    """Return a 64-bit hash of a text."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def drawn(text: str, count: int) -> tuple[int, int]:
    """Return two numbers below `count`, different unless `count` is 1."""
    value = hash64(text)
    if count == 1:
        return 0, 0
    first = value % count
    return first, (first + 1 + (value >> 32) % (count - 1)) % count


def prefix_key(request: Request, blocks: int) -> str:
    """Return what a request is hashed by: the hash of its first `blocks` blocks.

    A hash is cumulative, so that of the last of them stands for all. Without blocks it is the client's name.
    """
    if not request.blocks:
        return f"client/{request.client}"
    return f"{request.namespace}/{request.blocks[min(blocks, len(request.blocks)) - 1]!r}"


class Ring:
    """Points on a circle, several for each slot."""

    def __init__(self, points: int, seed: int) -> None:
        self._points = points
        self._seed = seed
        self._places: list[int] = []
        self._owners: list[int] = []

    def add(self, name: str, slot: int) -> None:
        """Add a worker. O(points on the ring)."""
        fresh = [(hash64(f"{self._seed}/{name}/{number}"), slot) for number in range(self._points)]
        self._set(sorted([*zip(self._places, self._owners, strict=True), *fresh]))

    def remove(self, slot: int) -> None:
        """Remove a worker. O(points on the ring)."""
        pairs = zip(self._places, self._owners, strict=True)
        self._set([(place, owner) for place, owner in pairs if owner != slot])

    def from_point(self, place: int) -> list[int]:
        """Return the owner of each point, from a place on around the circle."""
        start = bisect_right(self._places, place)
        return self._owners[start:] + self._owners[:start]

    def _set(self, pairs: list[tuple[int, int]]) -> None:
        self._places = [place for place, _ in pairs]
        self._owners = [owner for _, owner in pairs]
