"""API keys: known by their hashes alone, compared in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from hashlib import sha256

from fairprefix.core.request import Client
from fairprefix.gateway.config import KeyConfig

_NOBODY = "0" * 64
_BUCKET = 4


def hash_key(api_key: str) -> str:
    """Return what stands in the configuration instead of a key."""
    return sha256(api_key.encode()).hexdigest()


class ApiKeys:
    """Finds the client of a key.

    Keys are grouped by the first digits of their hashes, so that many of them cost no more than one; within a
    group every full hash is compared, in constant time. The digits tell nothing of a key.
    """

    def __init__(self, keys: Sequence[KeyConfig]) -> None:
        self._groups: dict[str, list[KeyConfig]] = {}
        for key in keys:
            self._groups.setdefault(key.sha256[:_BUCKET], []).append(key)

    def __bool__(self) -> bool:
        """Whether a key is needed at all."""
        return bool(self._groups)

    def client(self, api_key: str) -> Client | None:
        """Return whose key it is, or None."""
        digest = hash_key(api_key)
        found = None
        for key in self._groups.get(digest[:_BUCKET], ()):
            if hmac.compare_digest(key.sha256, digest):
                found = key.client
        if found is None:
            hmac.compare_digest(_NOBODY, digest)
        return found
