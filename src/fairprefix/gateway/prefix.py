"""Where do prompts agree? Cumulative hashes of a prompt's text, block by block.

Without the model's tokenizer a block is `block_size * bytes_per_token` bytes of the prompt as it stands in the
request (for a chat: of its tools and messages, as JSON). Two prompts whose text agrees up to some block agree in
their tokens up to about there: good enough for the approximate index, which guesses anyway. It never decides what
is computed: a collision costs locality, not correctness.

Token ids, which a completion may have instead of text, are hashed as they are.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import orjson
from xxhash import xxh3_64_intdigest

from fairprefix.core.request import BlockHash

_LONGEST = 8192
"""Blocks that are hashed: prompts that agree so far are alike."""
_TOKEN_BYTES = 4


class Prompt(Protocol):
    """Makes block hashes of a request's body: the seam for an exact index, which needs tokens."""

    def blocks(self, body: Mapping[str, Any], text: bytes) -> Sequence[BlockHash]:
        """Return the cumulative hashes of the prompt in `body`, whose text is `text` (see `prompt_text`)."""
        ...


class TextBlocks:
    """Hashes text.

    Args:
        block_size: tokens per block, as the router counts them.
        bytes_per_token: what is taken for a token.
    """

    def __init__(self, block_size: int, bytes_per_token: int) -> None:
        self._width = block_size * bytes_per_token
        self._width_of_ids = block_size * _TOKEN_BYTES

    def blocks(self, body: Mapping[str, Any], text: bytes) -> Sequence[BlockHash]:
        """Return the hashes of the full blocks; what is in another model, or of another salt, never matches."""
        prompt = body.get("prompt")
        width = self._width_of_ids if _is_ids(prompt) else self._width
        parent = _namespace(body)
        end = min(len(text) // width, _LONGEST) * width
        hashes = []
        for start in range(0, end, width):
            parent = xxh3_64_intdigest(text[start : start + width], parent)
            hashes.append(parent)
        return array("Q", hashes)


def prompt_text(body: Mapping[str, Any]) -> bytes:
    """Return what is computed for a request, as bytes whose beginnings agree where the prompts' do."""
    messages = body.get("messages")
    if messages is not None:
        # Templates put the tools first.
        tools = body.get("tools")
        return (orjson.dumps(tools) if tools else b"") + orjson.dumps(messages)[1:-1]
    prompt = body.get("prompt", body.get("input", b""))
    if isinstance(prompt, str):
        return prompt.encode("utf-8", "surrogatepass")
    if _is_ids(prompt):
        return array("q", prompt).tobytes() if max(prompt) >= 1 << 31 else array("i", prompt).tobytes()
    return orjson.dumps(prompt)[1:-1] if prompt else b""


def token_count(body: Mapping[str, Any]) -> int | None:
    """Return the length of a prompt that is given in tokens, or of several together."""
    prompt = body.get("prompt")
    if not isinstance(prompt, list):
        return None
    if _is_ids(prompt):
        return len(prompt)
    return sum(map(len, prompt)) if prompt and all(map(_is_ids, prompt)) else None


def _is_ids(prompt: object) -> bool:
    return (
        isinstance(prompt, list)
        and bool(prompt)
        and type(prompt[0]) is int
        and all(type(id) is int and 0 <= id < 1 << 63 for id in prompt)
    )


def _namespace(body: Mapping[str, Any]) -> int:
    model, salt = body.get("model"), body.get("cache_salt")
    return xxh3_64_intdigest(f"{model}\0{salt}".encode("utf-8", "surrogatepass"))
