"""Text to tokens and back, and text that streams out token by token."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attrs import frozen

from fairprefix.gpu_ref_engine.chat import CHATML, ChatTemplate


@frozen(eq=False, kw_only=True)
class Tokenizer:
    """What a server needs to know of a model's language."""

    encode_text: Callable[[str], list[int]]
    """From text to tokens; names of special tokens in it stand for these."""
    pieces: Sequence[bytes]
    """The bytes that each token stands for, UTF-8 when joined; none for special tokens."""
    lead: tuple[int, ...] = ()
    """Tokens that the model wants in front of every prompt."""
    eos: frozenset[int] = frozenset()
    """Tokens that end an answer."""
    template: ChatTemplate
    strip_first_space: bool = False
    """Whether a text begins with a space that is not there (tokenizers of Llama 2 and its kin)."""

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a prompt."""
        tokens = self.encode_text(text)
        return tokens if tuple(tokens[: len(self.lead)]) == self.lead else [*self.lead, *tokens]

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of tokens: special ones left out, U+FFFD for bytes that are no UTF-8."""
        stream = self.detokenizer()
        return stream.add(tokens) + stream.flush()

    def chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Return the tokens of a conversation, up to where the model's answer begins.

        Args:
            messages: each with `role` and `content` (text), as in OpenAI's API.

        Raises:
            ModelError: the model's template does not take them; the message has its reason.
        """
        return self.encode(self.template.render(messages))

    def detokenizer(self) -> Detokenizer:
        """Return what turns the tokens of one answer into text as they come."""
        return Detokenizer(self.pieces, strip_first_space=self.strip_first_space)


class Detokenizer:
    """Text of one answer as its tokens come: whole characters only, and joined they are the whole text."""

    def __init__(self, pieces: Sequence[bytes], *, strip_first_space: bool = False) -> None:
        self._pieces = pieces
        self._strip = strip_first_space
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, tokens: Iterable[int]) -> str:
        """Return the characters that became complete with these tokens; perhaps none."""
        pieces = self._pieces
        return self._stripped(self._decoder.decode(b"".join([pieces[token] for token in tokens])))

    def flush(self) -> str:
        """Return what is left at the end: U+FFFD for a character of which bytes are missing, else nothing."""
        return self._stripped(self._decoder.decode(b"", final=True))

    def _stripped(self, text: str) -> str:
        if self._strip and text:
            self._strip = False
            return text.removeprefix(" ")
        return text


def byte_tokenizer(size: int) -> Tokenizer:
    """Return the tokenizer of a random model of `size` tokens: bytes, then `bos` and `eos`, then nothing."""
    bos, eos = 256, 257
    pieces = [bytes([byte]) for byte in range(256)] + [b""] * (size - 256)
    return Tokenizer(
        encode_text=lambda text: list(text.encode("utf-8", "replace")),
        pieces=pieces,
        lead=(bos,),
        eos=frozenset({eos}),
        template=ChatTemplate(CHATML),
    )
