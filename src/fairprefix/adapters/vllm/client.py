"""Whose request is this? What the middleware, or an offline caller, wrote into it.

A name reaches the scheduler in one of two ways: as `sampling_params.extra_args["fairprefix_client"]` (over HTTP in
the field `vllm_xargs`), or, where vLLM forwards no extra arguments (pooling, transcription), in the request's id.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Sequence

from fairprefix.adapters.vllm.shapes import EngineRequest
from fairprefix.core.request import Client
from fairprefix.hosting import Identity

FIELD = "fairprefix_client"
_MARK = re.compile(r"fpc\.([A-Za-z0-9_-]*)\.")


def mark(client: Client, request_id: str) -> str:
    """Return a request id that carries a client's name; "" says that nobody is named, whatever else claims to."""
    name = urlsafe_b64encode(client.encode()).decode().rstrip("=")
    return f"fpc.{name}.{unmark(request_id)}"


def unmark(request_id: str) -> str:
    """Return a request id without any mark, also where taking one out would make another."""
    while _MARK.search(request_id):
        request_id = _MARK.sub("", request_id)
    return request_id


def marked_client(request_id: str) -> Client | None:
    """Return the client that a request id carries ("": nobody), or None without a mark."""
    found = _MARK.search(request_id)
    if found is None:
        return None
    try:
        return urlsafe_b64decode(found[1] + "=" * (-len(found[1]) % 4)).decode()
    except (NotBase64, UnicodeDecodeError):
        return None


def engine_identity(sources: Sequence[str]) -> Identity:
    """Return the part of the configured sources that the scheduler can see.

    Headers and API keys are the middleware's to look at; what it found arrives as `client_id`.
    """
    return Identity(
        ["client_id", *(source for source in sources if source.startswith(("lora", "session", "xargs:")))]
    )


def client_of(request: EngineRequest, identity: Identity) -> Client:
    """Return the client of a request; `identity` is that of `engine_identity`."""
    extra = getattr(request.sampling_params, "extra_args", None)
    extra = extra if isinstance(extra, dict) else {}
    said: object = marked_client(request.request_id)
    if said is None:
        said = extra.get(FIELD)
    lora = request.lora_request
    return identity.resolve(
        client_id=str(said) if isinstance(said, str | int) else None,
        body={"vllm_xargs": extra},
        lora=getattr(lora, "lora_name", None),
        session=getattr(request, "session_id", None),
    )
