"""What a client asks for: OpenAI's completion and chat requests, checked and in the engine's terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import evolve, frozen

from fairprefix.gpu_ref_engine.errors import ModelError
from fairprefix.gpu_ref_engine.sampling import SamplingParams
from fairprefix.gpu_ref_engine.server.errors import BAD_REQUEST, NOT_FOUND, ApiError, invalid
from fairprefix.gpu_ref_engine.server.fields import Fields
from fairprefix.gpu_ref_engine.server.settings import ServerConfig
from fairprefix.gpu_ref_engine.tokenizer import Tokenizer

MOST_STOPS, MOST_LOGPROBS, MOST_COMPLETION_LOGPROBS = 4, 20, 5
_COMPLETION_TOKENS = 16
"""OpenAI's default for completions."""
_MOST_STOP_TOKENS = 64
_LONGEST_STOP = 1024
_SEEDS = 1 << 63
_UNSUPPORTED: Mapping[str, tuple[object, ...]] = {
    "tools": (),
    "functions": (),
    "logit_bias": (),
    "presence_penalty": (),
    "frequency_penalty": (),
    "suffix": (),
    "echo": (),
    "audio": (),
    "prediction": (),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "best_of": (1,),
}
"""Fields that would change the answer, and the values of them that do not."""


@frozen(eq=False, kw_only=True)
class Ask:
    """One HTTP request: some prompts, each answered `n` times."""

    chat: bool
    prompts: Sequence[Sequence[int]]
    params: SamplingParams
    n: int
    stream: bool
    usage_in_stream: bool
    namespace: str

    def choices(self) -> list[tuple[Sequence[int], SamplingParams]]:
        """Return prompt and sampling of each answer, in the order of their index."""
        return [(prompt, _nth(self.params, number)) for prompt in self.prompts for number in range(self.n)]

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts."""
        return sum(len(prompt) for prompt in self.prompts)


def _nth(params: SamplingParams, number: int) -> SamplingParams:
    """Give each of several answers a seed of its own, or they would all be the same."""
    if params.seed is None or not number:
        return params
    return evolve(params, seed=(params.seed + number) % _SEEDS)


def read_ask(body: Mapping[str, Any], *, chat: bool, tokenizer: Tokenizer, config: ServerConfig) -> Ask:
    """Return what a body asks for. O(prompt): the tokenizer's work is done in here.

    Raises:
        ApiError: something in it is not valid, or not supported.
    """
    fields = Fields(body)
    model = fields.text("model")
    if model not in (None, config.model):
        raise ApiError(
            NOT_FOUND, f"model {model!r} is not served here: expected {config.model!r}",
            param="model", code="model_not_found",
        )  # fmt: skip
    for name, harmless in _UNSUPPORTED.items():
        fields.refuse(name, harmless)
    prompts = [_conversation(fields, tokenizer)] if chat else _prompts(fields, tokenizer)
    options = fields.table("stream_options")
    ask = Ask(
        chat=chat,
        prompts=prompts,
        params=_params(fields, chat=chat, config=config),
        n=fields.whole("n", 1, 1, config.max_choices),
        stream=fields.flag("stream"),
        usage_in_stream=Fields(options).flag("include_usage"),
        namespace=fields.text("cache_salt") or "",
    )
    _check_size(ask, config)
    return ask


def _check_size(ask: Ask, config: ServerConfig) -> None:
    answers = len(ask.prompts) * ask.n
    if answers > config.max_choices:
        raise invalid("n", ask.n, f"at most {config.max_choices} answers in one request, and not {answers}")
    longest = max(len(prompt) for prompt in ask.prompts)
    if config.max_prompt is not None and longest > config.max_prompt:
        raise ApiError(
            BAD_REQUEST, f"the prompt has {longest} tokens: expected at most {config.max_prompt}",
            param="messages" if ask.chat else "prompt", code="context_length_exceeded",
        )  # fmt: skip


def _params(fields: Fields, *, chat: bool, config: ServerConfig) -> SamplingParams:
    default = min(config.default_output if chat else _COMPLETION_TOKENS, config.max_output)
    name = "max_completion_tokens" if fields.get("max_completion_tokens") is not None else "max_tokens"
    return SamplingParams(
        max_tokens=fields.whole(name, default, 1, config.max_output),
        temperature=fields.number("temperature", 1.0, 0, 2),
        top_p=_above_zero("top_p", fields.number("top_p", 1.0, 0, 1)),
        top_k=fields.whole("top_k", 0, 0, 1 << 30),
        seed=fields.whole("seed", -1, -_SEEDS, _SEEDS - 1) if fields.get("seed") is not None else None,
        stop=_stops(fields.get("stop")),
        stop_token_ids=_stop_tokens(fields.get("stop_token_ids")),
        ignore_eos=fields.flag("ignore_eos"),
        logprobs=_logprobs(fields, chat=chat),
    )


def _above_zero(name: str, value: float) -> float:
    if not value:
        raise invalid(name, value, "a number above 0, at most 1")
    return value


def _logprobs(fields: Fields, *, chat: bool) -> int | None:
    if not chat:
        if fields.get("logprobs") is None:
            return None
        return fields.whole("logprobs", 0, 0, MOST_COMPLETION_LOGPROBS)
    if fields.get("top_logprobs") is not None and not fields.flag("logprobs"):
        raise invalid("top_logprobs", fields.get("top_logprobs"), "logprobs = true beside it")
    return fields.whole("top_logprobs", 0, 0, MOST_LOGPROBS) if fields.flag("logprobs") else None


def _stops(value: object) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(stops, list) or len(stops) > MOST_STOPS:
        raise invalid("stop", value, f"a text, or a list of at most {MOST_STOPS}")
    if not all(isinstance(stop, str) and 0 < len(stop) <= _LONGEST_STOP for stop in stops):
        raise invalid("stop", value, f"texts of 1 to {_LONGEST_STOP} characters")
    return tuple(stops)


def _stop_tokens(value: object) -> tuple[int, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > _MOST_STOP_TOKENS or not all(map(_is_token, value)):
        raise invalid("stop_token_ids", value, f"a list of at most {_MOST_STOP_TOKENS} token ids")
    return tuple(value)


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 31


def _prompts(fields: Fields, tokenizer: Tokenizer) -> list[Sequence[int]]:
    """Return the prompts of a completion: a text, tokens, or a list of either."""
    value = fields.get("prompt")
    valid = "a text, a list of token ids, or a list of these"
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not value:
        raise invalid("prompt", value, valid)
    if all(map(_is_token, value)):
        value = [value]
    prompts: list[Sequence[int]] = []
    for one in value:
        if isinstance(one, str):
            prompts.append(_encoded(one, tokenizer))
        elif isinstance(one, list) and one and all(map(_is_token, one)):
            prompts.append(one)
        else:
            raise invalid("prompt", one, valid)
    return prompts


def _encoded(text: str, tokenizer: Tokenizer) -> list[int]:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise invalid("prompt", text, "text in Unicode, without lone surrogates") from None
    return tokenizer.encode(text)


def _conversation(fields: Fields, tokenizer: Tokenizer) -> Sequence[int]:
    value = fields.get("messages")
    if not isinstance(value, list) or not value:
        raise invalid("messages", value, "a list of at least one message")
    messages = [_message(one, place) for place, one in enumerate(value)]
    try:
        return tokenizer.chat(messages)
    except (ModelError, UnicodeEncodeError) as problem:
        raise ApiError(BAD_REQUEST, str(problem), param="messages", code="invalid_value") from None


def _message(value: object, place: int) -> dict[str, str]:
    param = f"messages[{place}]"
    if not isinstance(value, dict):
        raise invalid(param, value, "an object with role and content")
    role, content = value.get("role"), value.get("content")
    if not isinstance(role, str) or not role:
        raise invalid(f"{param}.role", role, "system, user or assistant")
    if isinstance(content, list):
        content = "".join(_part(part, f"{param}.content") for part in content)
    if not isinstance(content, str):
        raise invalid(f"{param}.content", content, "text, or a list of parts of type text")
    return {"role": role, "content": content}


def _part(value: object, param: str) -> str:
    text = value.get("text") if isinstance(value, dict) and value.get("type") == "text" else None
    if not isinstance(text, str):
        raise invalid(param, value, "parts of type text (this model has no other)")
    return text
