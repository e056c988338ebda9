"""What a client asks for, as far as the gateway has to understand it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from attrs import define

from fairprefix.core.request import BlockHash, Client
from fairprefix.gateway.errors import BAD_REQUEST, GatewayError
from fairprefix.gateway.prefix import Prompt, prompt_text, token_count

GENERATING = frozenset(("/v1/completions", "/v1/chat/completions"))
"""Endpoints whose streams carry `usage` if one asks for it."""
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens", "max_new_tokens")
_MOST_OUTPUT = 1 << 20
_MOST_PLACES = 1 << 16
_XARGS, _XARGS_CLIENT = "vllm_xargs", "fairprefix_client"


@define(eq=False)
class Ask:
    """One request that costs tokens."""

    path: str
    raw: bytes
    """The body as it came."""
    body: dict[str, Any] | None
    """The same parsed; None for what is not JSON, which is passed on unread."""
    text_bytes: int
    """Length of the prompt's text."""
    tokens: int | None
    """Length of the prompt, where it is given in tokens."""
    limit: int | None
    """The most output tokens, over all answers; None if the client sets no limit."""
    blocks: Sequence[BlockHash]
    places: int = 1
    """Answers that are computed at once: `n` for each prompt."""
    stream: bool = False
    adds_usage: bool = False
    """Whether the client's stream carries no usage, so that ours has to be taken out again."""


def read_ask(path: str, raw: bytes, *, json: bool, prompt: Prompt) -> Ask:
    """Return what a request asks for.

    Raises:
        GatewayError: the body of an endpoint that takes JSON is not a JSON object.
    """
    if not json:
        return Ask(path, raw, None, len(raw), None, None, ())
    body = _parse(raw)
    try:
        text = prompt_text(body)
        tokens = token_count(body)
        blocks = prompt.blocks(body, text)
    except (TypeError, ValueError, OverflowError):  # what such a prompt means is for the worker to say
        text, tokens, blocks = raw, None, ()
    places = _places(body)
    ask = Ask(path, raw, body, len(text), tokens, _limit(body, places), blocks, places)
    ask.stream = body.get("stream") is True
    if ask.stream and path in GENERATING:
        options = body.get("stream_options")
        ask.adds_usage = options is None or (isinstance(options, dict) and not options.get("include_usage"))
    return ask


def upstream_body(ask: Ask, client: Client = "") -> bytes:
    """Return the body for the worker.

    Args:
        ask: the request.
        client: who to name in `vllm_xargs`; nobody for a worker that is not told in this way. What the client
            wrote there itself is taken out in any case.
    """
    body = ask.body
    given = body.get(_XARGS) if body else None
    named = isinstance(given, dict) and _XARGS_CLIENT in given
    if body is None or not (ask.adds_usage or client or named):
        return ask.raw
    body = dict(body)
    if ask.adds_usage:
        body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
    if client or named:
        others = {key: given[key] for key in given if key != _XARGS_CLIENT} if isinstance(given, dict) else {}
        body[_XARGS] = {**others, _XARGS_CLIENT: client} if client else others
    return orjson.dumps(body)


def _parse(raw: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as problem:
        raise GatewayError(BAD_REQUEST, "invalid_json", f"the body is not valid JSON: {problem}") from None
    if not isinstance(body, dict):
        raise GatewayError(BAD_REQUEST, "invalid_json", "the body is not a JSON object")
    return body


def _places(body: Mapping[str, Any]) -> int:
    answers, prompt = body.get("n"), body.get("prompt", body.get("input"))
    prompts = len(prompt) if isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list) else 1
    return min((answers if isinstance(answers, int) and answers > 0 else 1) * prompts, _MOST_PLACES)


def _limit(body: Mapping[str, Any], places: int) -> int | None:
    limits = [value for name in _LIMITS if isinstance(value := body.get(name), int)]
    return min(max(limits[0], 1) * places, _MOST_OUTPUT) if limits else None
