"""Whose request is it, what is it like: from Dynamo's preprocessed request to the policy's terms."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

from fairprefix.core.prefixes import chain_hashes
from fairprefix.core.request import Client, Request
from fairprefix.hosting.identity import Identity

ANNOTATION = "fairness_id:"
"""Of the request's body: nvext.annotations = ["fairness_id:NAME"]."""


def client_of(request: Mapping[str, Any], identity: Identity) -> Client:
    """Return whose request it is.

    Dynamo hands on what a client is called in three ways: the header x-tenant-id as the cache salt, annotations of
    the body, and session ids. In the configuration these are `header:x-tenant-id`, `client_id` and `session`.
    """
    annotations = request.get("annotations") or ()
    named = next((text[len(ANNOTATION) :] for text in annotations if str(text).startswith(ANNOTATION)), None)
    salt = namespace_of(request)
    session = (request.get("agent_context") or {}).get("session_id")
    return identity.resolve(
        headers={"x-tenant-id": salt} if salt else {}, client_id=named, session=session and str(session)
    )


def namespace_of(request: Mapping[str, Any]) -> str:
    """Return within which namespace its prompt is cached."""
    return str((request.get("routing") or {}).get("cache_salt") or "")


def policy_request(
    id: str, request: Mapping[str, Any], identity: Identity, *, block_size: int, longest_output: int
) -> Request:
    """Return a request as a policy knows it."""
    tokens = request.get("token_ids") or ()
    limit = (request.get("stop_conditions") or {}).get("max_tokens")
    return Request(
        id,
        client_of(request, identity),
        max(len(tokens), 1),
        max(limit or longest_output, 1),
        chain_hashes(array("I", tokens).tobytes(), block_size),
        namespace_of(request),
    )
