"""Whose a request is: found where HTTP requests come in, carried to the schedulers as SGLang's routing key.

SGLang reads the header `x-smg-routing-key` into `routing_key`, which reaches the scheduler; to the configured
sources that is `client_id`. It drops the OpenAI field `user`, and loses the routing key where one HTTP request is
split into several (a list of prompts, n > 1): both are restored here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairprefix.hosting import Identity

_BODY = "_fairprefix_body"
_BEARER = "bearer "


class IdentityHooks:
    """The hooks of processes that take HTTP requests.

    Args:
        sources: where to look for the client's name, as configured.
    """

    def __init__(self, sources: tuple[str, ...]) -> None:
        self._identity = Identity(sources)
        parts = [source.partition(":") for source in sources]
        self._fields = tuple({name.split(".")[0]: None for kind, _, name in parts if kind == "body"})

    def converted(self, result: Any, _serving: Any, request: Any, *_args: Any, **_kwargs: Any) -> None:
        """After `_convert_to_internal_request` of the OpenAI endpoints, which still has all of the body."""
        setattr(result[0], _BODY, self._body(request))

    def generating(self, manager: Any, obj: Any, request: Any = None) -> None:
        """Before `TokenizerManager.generate_request`, which all endpoints come through."""
        if not hasattr(obj, "routing_key"):
            return
        client = self._identity.resolve(
            headers=getattr(request, "headers", None) or {},
            body=getattr(obj, _BODY, None) or self._body(obj),
            client_id=obj.routing_key,
            api_key=_checked_key(manager, request),
            lora=_text(getattr(obj, "lora_path", None)),
            session=_text(getattr(obj, "session_id", None)),
        )
        obj.routing_key = None if client == self._identity.default else client

    def split(self, result: Any, whole: Any, *_args: Any) -> None:
        """After `GenerateReqInput.__getitem__`: a part of a request belongs to whoever sent the whole."""
        result.routing_key = whole.routing_key

    def _body(self, request: Any) -> Mapping[str, Any]:
        return {name: _plain(getattr(request, name, None)) for name in self._fields}


def _checked_key(manager: Any, request: Any) -> str | None:
    """Return the API key of a request if SGLang has checked it."""
    if not getattr(manager.server_args, "api_key", None) or request is None:
        return None
    value: str = request.headers.get("authorization", "")
    return value[len(_BEARER) :] if value.lower().startswith(_BEARER) else None


def _plain(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)
    return dump() if dump else value


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
