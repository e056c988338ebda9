"""What a request really took, as workers report it: whole answers, and streams of server-sent events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from attrs import frozen

_END, _END_CRLF = b"\n\n", b"\r\n\r\n"
_USAGE = b'"usage"'
_NO_USAGE = (b',"usage":null', b', "usage": null', b', "usage":null')
_NO_TOKEN = (b'"content":""', b'"delta":{}', b'"text":""', b'"choices":[]', b'"content": ""', b'"delta": {}',
             b'"text": ""', b'"choices": []', b"data: [DONE]")  # fmt: skip
_LONGEST_EVENT = 8 << 20


@frozen
class Usage:
    """Tokens of one request."""

    prompt: int
    output: int
    cached: int | None
    """Prompt tokens that were found cached; None where the worker does not say."""


def read_usage(answer: object) -> Usage | None:
    """Return the usage in a parsed answer, or None."""
    usage = answer.get("usage") if isinstance(answer, Mapping) else None
    if not isinstance(usage, Mapping):
        return None
    prompt, output = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
    if prompt is None:  # embeddings have no output, responses name theirs otherwise
        prompt, output = _count(usage, "input_tokens"), _count(usage, "output_tokens")
    if prompt is None:
        return None
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, Mapping) else None
    return Usage(prompt, output or 0, None if cached is None else min(cached, prompt))


def usage_of(body: bytes) -> Usage | None:
    """Return the usage in an answer's body, or None."""
    if _USAGE not in body:
        return None
    try:
        return read_usage(orjson.loads(body))
    except orjson.JSONDecodeError:
        return None


def text_bytes(body: bytes) -> int:
    """Return the length of the text in an answer's body, in bytes; 0 where there is none."""
    try:
        choices = orjson.loads(body)["choices"]
        texts = [choice.get("text") or (choice.get("message") or {}).get("content") or "" for choice in choices]
        return sum(len(text.encode("utf-8", "replace")) for text in texts)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return 0


class EventReader:
    """Reads a stream of events as it passes: counts pieces of output, finds usage, takes ours out again.

    Args:
        strip: whether the client did not ask for usage.
    """

    def __init__(self, *, strip: bool) -> None:
        self.usage: Usage | None = None
        self.tokens: int = 0
        """Events with output so far: at least as many tokens, in the usual servers exactly as many."""
        self.done: bool = False
        """Whether the end of the stream was announced."""
        self._strip = strip
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """Return what to hand on: whole events only."""
        data = self._rest + data if self._rest else data
        if data.endswith(_END):
            self._rest = b""
        else:
            cut = data.rfind(_END) + len(_END)
            if cut < len(_END):
                cut = data.rfind(_END_CRLF) + len(_END_CRLF)
                if cut < len(_END_CRLF):
                    return self._hold(data)
            data, self._rest = data[:cut], data[cut:]
        return self._read(data)

    def flush(self) -> bytes:
        """Return what is left when the stream has ended without a last empty line."""
        rest, self._rest = self._rest, b""
        return self._read(rest) if rest else b""

    def _hold(self, data: bytes) -> bytes:
        """Wait for the end of an event, unless it is so long that it is none."""
        if len(data) > _LONGEST_EVENT:
            self._rest = b""
            return data
        self._rest = data
        return b""

    def _read(self, data: bytes) -> bytes:
        events = data.count(b"\ndata:") + data.startswith(b"data:")
        self.tokens += max(events - sum(map(data.count, _NO_TOKEN)), 0)
        if b"[DONE]" in data and b"data: [DONE]" in data:
            self.done = True
        if _USAGE in data:
            if self._strip:
                for text in _NO_USAGE:
                    data = data.replace(text, b"")
            if _USAGE in data:
                data = self._find(data)
        return data

    def _find(self, data: bytes) -> bytes:
        """Look for usage event by event, and take it out if the client has not asked for it."""
        kept = []
        for event in data.replace(b"\r\n", b"\n").split(_END):
            if _USAGE not in event or not event.startswith(b"data:"):
                kept.append(event)
                continue
            try:
                chunk = orjson.loads(event[len(b"data:") :])
            except orjson.JSONDecodeError:
                kept.append(event)
                continue
            self.usage = read_usage(chunk) or self.usage
            if not self._strip:
                kept.append(event)
            elif isinstance(chunk, dict) and chunk.get("choices"):
                kept.append(b"data: " + orjson.dumps({key: chunk[key] for key in chunk if key != "usage"}))
        return _END.join(kept)


def _count(table: Mapping[str, Any], name: str) -> int | None:
    value = table.get(name)
    return value if type(value) is int and value >= 0 else None
