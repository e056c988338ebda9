"""A request's prompt as the engines see it: tokens, and the names of its blocks.

The prompt is tokenised here as the engine will do it again. Where that is not possible (tools, images, a template
that refuses) a request has no blocks: it is routed as one whose prompt nobody has cached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns
from typing import Any

from fairprefix.core.request import BlockHash
from fairprefix.gateway.kv_events.chain import names_of

Encode = Callable[[str, bool], Sequence[int]]
"""From text to token ids; whether to add the model's special tokens, which templates have in them already."""
Render = Callable[[Sequence[Mapping[str, Any]]], str]
"""From a chat's messages to the prompt's text; raises whatever it likes."""

_TOKENS = 1 << 32
_OTHER_FIELDS = ("tools", "chat_template", "chat_template_kwargs", "documents")
"""What changes the text of a chat in ways that are not followed here."""


class TokenBlocks:
    """Names a prompt's blocks (`fairprefix.gateway.prefix.Prompt`).

    Args:
        encode: the model's tokenizer; None: only prompts that are given as token ids have blocks.
        render: its chat template; None: chats have no blocks.
        block_size: tokens per block.
    """

    def __init__(self, encode: Encode | None, render: Render | None, block_size: int) -> None:
        self.spent_ns: int = 0
        """Time spent on turning text into tokens."""
        self.unknown: int = 0
        """Requests whose tokens could not be told."""
        self._encode = encode
        self._render = render
        self._block_size = block_size

    def blocks(self, body: Mapping[str, Any], text: bytes) -> Sequence[BlockHash]:
        """Return the names of the prompt's full blocks; none if its tokens cannot be told."""
        del text  # its tokens are needed
        tokens = self._tokens(body)
        if tokens is None:
            self.unknown += 1
            return ()
        salt = body.get("cache_salt")
        return names_of(tokens, self._block_size, salt=salt if isinstance(salt, str) else "")

    def _tokens(self, body: Mapping[str, Any]) -> Sequence[int] | None:
        prompt, messages = body.get("prompt"), body.get("messages")
        if _is_ids(prompt):
            return prompt
        if isinstance(prompt, str):
            return self._encoded(prompt, special=True)
        if not isinstance(messages, list) or self._render is None or any(body.get(name) for name in _OTHER_FIELDS):
            return None
        try:
            text = self._render(messages)
        except Exception:  # noqa: BLE001 (whatever a template runs into; the engine will say so)
            return None
        return self._encoded(text, special=False)

    def _encoded(self, text: str, *, special: bool) -> Sequence[int] | None:
        if self._encode is None:
            return None
        began = perf_counter_ns()
        tokens = self._encode(text, special)
        self.spent_ns += perf_counter_ns() - began
        return tokens


def _is_ids(prompt: object) -> bool:
    return (
        isinstance(prompt, list) and bool(prompt) and all(type(id) is int and 0 <= id < _TOKENS for id in prompt)
    )
