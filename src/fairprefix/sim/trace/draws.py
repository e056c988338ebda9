"""Pseudo-random numbers that are the same on every machine and Python version."""

from __future__ import annotations

from hashlib import sha256

from attrs import define, field


@define
class Draws:
    """A stream of numbers, a function of its label alone: SHA-256 over label and counter."""

    label: str
    _count: int = field(default=0, init=False)

    def between(self, low: int, high: int) -> int:
        """Return an integer from `low` to `high`, both included, all equally likely (but for 1 part in 2^200)."""
        self._count += 1
        digest = sha256(f"{self.label}/{self._count}".encode()).digest()
        return low + int.from_bytes(digest, "big") % (high - low + 1)
