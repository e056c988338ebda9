"""Who is calling? From the connection, the headers and the body to a client's name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairprefix.core.config import PolicyConfig
from fairprefix.core.request import Client
from fairprefix.gateway.config import KeyConfig
from fairprefix.gateway.errors import UNAUTHORIZED, GatewayError, Headers
from fairprefix.gateway.keys import ApiKeys, hash_key
from fairprefix.hosting import Identity
from fairprefix.hosting.identity import key_name
from fairprefix.hosting.peers import TrustedPeers

CARRIERS = frozenset((b"x-smg-routing-key", b"x-llm-d-inference-fairness-id", b"x-gateway-inference-fairness-id"))
"""Headers in which engines are told of clients: never passed on as a client has written them."""
_BEARER = b"bearer "


class Callers:
    """Names the clients of requests.

    Args:
        policy: where to look for names (`identity`).
        keys: API keys; with any, everybody has to show one.
        trusted: who may name clients.
    """

    def __init__(self, policy: PolicyConfig, keys: Sequence[KeyConfig], trusted: Sequence[str]) -> None:
        self.keys: ApiKeys = ApiKeys(keys)
        self.spoofed: int = 0
        """Requests of untrusted peers that named a client in a header."""
        self._peers = TrustedPeers(trusted)
        self._identity = Identity(policy.identity)
        self._names = {key_name_of(key.sha256): key.client for key in keys}
        sources = [source.partition(":") for source in policy.identity]
        self._looked_at = frozenset(name.lower().encode() for kind, _, name in sources if kind == "header")
        self._reads_body = any(kind in ("body", "xargs") for kind, _, _ in sources)
        self.naming: frozenset[bytes] = self._looked_at | CARRIERS
        """Headers that name clients."""

    def client(self, headers: Headers, address: str | None, body: Mapping[str, Any] | None) -> Client:
        """Return the client of a request.

        Args:
            headers: as ASGI has them, names in lower case.
            address: the peer's.
            body: parsed, if it is an object.

        Raises:
            GatewayError: a key is needed, and none that is known was shown.
        """
        trusted = address in self._peers
        naming = [(name, value) for name, value in headers if name in self.naming]
        if naming and not trusted:
            self.spoofed += 1
        key = self._checked_key(headers) if self.keys or trusted else None
        if not trusted and key is None:
            return self._identity.default
        name = self._identity.resolve(
            headers={name.decode("latin-1"): value.decode("latin-1") for name, value in naming},
            body=body if body is not None and self._reads_body else {},
            api_key=key,
            trusted=trusted,
        )
        return self._names.get(name, name)

    def _checked_key(self, headers: Headers) -> str | None:
        shown = shown_key(headers)
        if self.keys and (shown is None or self.keys.client(shown) is None):
            raise GatewayError(
                UNAUTHORIZED,
                "invalid_api_key",
                "an API key is needed, as Authorization: Bearer KEY"
                if shown is None
                else "the API key is unknown",
            )
        return shown


def shown_key(headers: Headers) -> str | None:
    """Return the API key in the headers."""
    for name, value in headers:
        if name == b"authorization" and value[: len(_BEARER)].lower() == _BEARER:
            return value[len(_BEARER) :].strip().decode("latin-1")
    return None


def key_name_of(sha256: str) -> Client:
    """Return the name that `hosting.identity` gives to the holder of a key, from the key's hash."""
    probe = key_name("")
    prefix = probe[: probe.index(":") + 1]
    return prefix + sha256[: len(probe) - len(prefix)]


__all__ = ["CARRIERS", "Callers", "hash_key", "key_name_of", "shown_key"]
