"""Answers in OpenAI's shapes: completion and chat, whole and in chunks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import define, field

from fairprefix.gpu_ref_engine.batch import TopLogprobs
from fairprefix.gpu_ref_engine.job import Finish, Output
from fairprefix.gpu_ref_engine.server.ask import Ask
from fairprefix.gpu_ref_engine.stop import StopWatch
from fairprefix.gpu_ref_engine.tokenizer import Tokenizer

_REASONS = {Finish.STOP: "stop", Finish.LENGTH: "length"}
Json = dict[str, Any]


@define(eq=False)
class Choice:
    """One answer as it grows."""

    index: int
    text: StopWatch
    tokens: int = 0
    cached: int = 0
    finish: Finish | None = None
    whole: list[str] = field(factory=list)
    """All that was shown so far."""
    shown: int = 0
    """Characters of that, for OpenAI's text offsets."""
    logprobs: list[tuple[int, TopLogprobs]] = field(factory=list)
    """Tokens whose log-probabilities are not reported yet."""

    def add(self, output: Output) -> str:
        """Take an output in; return the text that it makes visible."""
        self.tokens += len(output.tokens)
        self.cached = output.cached_tokens
        for token, logprobs in zip(output.tokens, output.logprobs, strict=False):
            if logprobs is not None:
                self.logprobs.append((token, logprobs))
        visible = self.text.add(output.tokens)
        if output.finish is not None:
            self.finish = output.finish
            visible += self.text.flush()
        self.whole.append(visible)
        return visible


class Answer:
    """Builds what one HTTP request is answered with.

    Args:
        id: of the request.
        model: its name.
        ask: what was asked for.
        tokenizer: the model's.
    """

    def __init__(self, id: str, model: str, ask: Ask, tokenizer: Tokenizer) -> None:
        self.choices: list[Choice] = [
            Choice(index, StopWatch(tokenizer.detokenizer(), ask.params.stop))
            for index in range(len(ask.prompts) * ask.n)
        ]
        self._ask = ask
        self._tokenizer = tokenizer
        kind = ("chat.completion" if ask.chat else "text_completion") + (".chunk" * (ask.chat and ask.stream))
        self._head: Json = {"id": id, "object": kind, "created": int(time.time()), "model": model}

    def whole(self) -> Json:
        """Return the answer in one piece."""
        return {**self._head, "choices": [self._choice(choice) for choice in self.choices], "usage": self.usage()}

    def openings(self) -> list[Json]:
        """Return the chunks that a stream begins with."""
        if not self._ask.chat:
            return []
        delta = {"role": "assistant", "content": ""}
        return [
            self._chunk({"index": choice.index, "delta": delta, "finish_reason": None}) for choice in self.choices
        ]

    def chunk(self, choice: Choice, text: str) -> Json | None:
        """Return a chunk with new text of an answer, or its end; None when there is nothing to say."""
        if not text and choice.finish is None and not choice.logprobs:
            return None
        end = _REASONS.get(choice.finish) if choice.finish else None
        content: Json = {"delta": {"content": text} if text else {}} if self._ask.chat else {"text": text}
        return self._chunk(
            {"index": choice.index, **content, "logprobs": self._logprobs(choice), "finish_reason": end}
        )

    def last(self) -> Json | None:
        """Return the chunk with the usage, if it was asked for."""
        return {**self._head, "choices": [], "usage": self.usage()} if self._ask.usage_in_stream else None

    def usage(self) -> Json:
        """Return the tokens that were asked and answered."""
        # A prompt that is answered several times is counted once, and as cached as its first answer found it.
        cached = sum(choice.cached for choice in self.choices[:: self._ask.n])
        prompt, completion = self._ask.prompt_tokens, sum(choice.tokens for choice in self.choices)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        }

    def _chunk(self, choice: Json) -> Json:
        usage = {"usage": None} if self._ask.usage_in_stream else {}
        return {**self._head, "choices": [choice], **usage}

    def _choice(self, choice: Choice) -> Json:
        text = "".join(choice.whole)
        content: Json = (
            {"message": {"role": "assistant", "content": text, "refusal": None}}
            if self._ask.chat
            else {"text": text}
        )
        end = _REASONS.get(choice.finish) if choice.finish else None
        return {"index": choice.index, **content, "logprobs": self._logprobs(choice), "finish_reason": end}

    def _logprobs(self, choice: Choice) -> Json | None:
        """Return the log-probabilities that were not reported yet, in the shape of the endpoint."""
        if self._ask.params.logprobs is None:
            return None
        reported, choice.logprobs = choice.logprobs, []
        if self._ask.chat:
            return {"content": [self._entry(token, found) for token, found in reported], "refusal": None}
        offsets = []
        for token, _ in reported:
            offsets.append(choice.shown)
            choice.shown += len(self._text(token))
        return {
            "tokens": [self._text(token) for token, _ in reported],
            "token_logprobs": [found.chosen for _, found in reported],
            "top_logprobs": [self._top(found.top) for _, found in reported],
            "text_offset": offsets,
        }

    def _top(self, top: Sequence[tuple[int, float]]) -> Mapping[str, float]:
        return {self._text(token): value for token, value in top}

    def _entry(self, token: int, found: TopLogprobs) -> Json:
        top = [self._one(other, value) for other, value in found.top]
        return {**self._one(token, found.chosen), "top_logprobs": top}

    def _one(self, token: int, value: float) -> Json:
        return {"token": self._text(token), "logprob": value, "bytes": list(self._tokenizer.pieces[token])}

    def _text(self, token: int) -> str:
        return self._tokenizer.pieces[token].decode(errors="replace")
