"""Whose request is this? The first of the configured sources that names a client decides.

Sources are those of `PolicyConfig.identity`: `client_id` (said by the host itself), `api_key`, `header:NAME`,
`body:FIELD` (dots descend: `body:metadata.user_id`), `xargs:FIELD`, `lora`, `session`. Headers and bodies are
written by clients: to a host that talks to them directly (`trusted=False`), only what it knows itself counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from fairprefix.core.request import Client

DEFAULT_CLIENT = "default-flow"
"""Who pays for requests that name nobody."""

_LONGEST_NAME = 128
_KEPT = 96
_NOBODY: Mapping[str, Any] = {}
_WRITTEN_BY_CLIENTS = ("header", "body", "xargs", "session")


def clean_name(name: object) -> Client | None:
    """Return a client's name without what must not stand in logs and labels; None when nothing is left.

    Control characters are dropped; a name beyond 128 characters is cut and told apart by a hash.
    """
    if isinstance(name, bool) or not isinstance(name, str | int):
        return None
    printable = "".join(char for char in str(name) if char.isprintable()).strip()
    if len(printable) > _LONGEST_NAME:
        return f"{printable[:_KEPT]}~{_digest(printable)}"
    return printable or None


def key_name(api_key: str) -> Client:
    """Return the name of whoever holds an API key, from which the key cannot be told."""
    return f"key:{_digest(api_key)}"


class Identity:
    """Finds the client of a request.

    Args:
        sources: where to look, in this order.
        default: the name of requests that name nobody.
    """

    def __init__(self, sources: Sequence[str], default: Client = DEFAULT_CLIENT) -> None:
        self._sources = [tuple(source.partition(":")[::2]) for source in sources]
        self.default = default

    def resolve(
        self,
        *,
        headers: Mapping[str, str] = _NOBODY,
        body: Mapping[str, Any] = _NOBODY,
        client_id: str | None = None,
        api_key: str | None = None,
        lora: str | None = None,
        session: str | None = None,
        trusted: bool = True,
    ) -> Client:
        """Return the client of one request.

        Args:
            headers: by lower-case name.
            body: the request's parsed body; `xargs` are looked up in its field vllm_xargs.
            client_id: said by the host itself.
            api_key: checked by the host.
            lora: name of the adapter.
            session: id of the session.
            trusted: whether headers, body and session come from somebody who may name clients.
        """
        known = {"client_id": client_id, "api_key": key_name(api_key) if api_key else None, "lora": lora,
                 "session": session}  # fmt: skip
        for kind, field in self._sources:
            if kind in _WRITTEN_BY_CLIENTS and not trusted:
                continue
            if kind == "header":
                found: object = headers.get(field.lower())
            elif kind == "body":
                found = _descend(body, field)
            elif kind == "xargs":
                found = _descend(body, f"vllm_xargs.{field}")
            else:
                found = known[kind]
            name = clean_name(found)
            if name is not None:
                return name
        return self.default


def _descend(body: Mapping[str, Any], path: str) -> object:
    found: object = body
    for field in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(field)
    return found


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]
