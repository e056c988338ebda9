"""From the parts of a prompt to the cumulative hashes of its blocks."""

from __future__ import annotations

from collections.abc import Iterable

from fairprefix.workload.program import Part

_MODULUS = (1 << 61) - 1
_FACTOR = 0x2545F4914F6CDD1D % _MODULUS


class Chain:
    """A growing text, cut into blocks; the hash of a block stands for it and for everything before it."""

    __slots__ = ("_block_size", "_hash", "_room", "blocks")

    def __init__(self, block_size: int) -> None:
        self.blocks: list[int] = []
        self._block_size = block_size
        self._room = block_size
        """Tokens until the next block is full."""
        self._hash = 1

    def grow(self, parts: Iterable[Part]) -> Chain:
        """Append parts; O(blocks that they touch)."""
        for part in parts:
            self._append(part)
        return self

    def _append(self, part: Part) -> None:
        room, blocks, hash_, id = self._room, self.blocks, self._hash, part.id
        at, left = 0, part.tokens
        while left >= room:
            hash_ = ((hash_ * _FACTOR + id) * _FACTOR + (at << 20) + room) % _MODULUS
            blocks.append(hash_)
            at, left, room = at + room, left - room, self._block_size
        if left:
            hash_ = ((hash_ * _FACTOR + id) * _FACTOR + (at << 20) + left) % _MODULUS
        self._hash, self._room = hash_, room - left
