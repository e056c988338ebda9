"""What the router has to know of a request: it travels as the first argument of the call."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from fairprefix.core.prefixes import chain_hashes
from fairprefix.core.request import Client, Request
from fairprefix.hosting.identity import Identity

_BYTES = 4
_USUAL_OUTPUT = 256


@frozen(kw_only=True)
class RouteKey:
    """Whose request it is, how large, and which blocks its prompt consists of.

    Made by whoever tokenises, once for each request, and handed over as the first argument:

        key = RouteKey.of(client, tokens, max_output=256)
        handle.generate.remote(key, tokens)

    It is small: eight bytes a block.
    """

    client: Client
    input_tokens: int
    max_output: int
    packed_blocks: bytes = b""
    """Cumulative hashes of the prompt's full blocks, eight bytes each."""
    namespace: str = ""
    """Prompts share cached blocks only within one: cache salt, LoRA adapter..."""

    @classmethod
    def of(
        cls,
        client: Client,
        tokens: Sequence[int] | bytes,
        *,
        max_output: int,
        block_size: int = 16,
        namespace: str = "",
    ) -> RouteKey:
        """Return the key of a prompt. O(tokens).

        Args:
            client: whose request it is.
            tokens: token ids, or the same as little-endian 32-bit integers in bytes (faster).
            max_output: the most output tokens.
            block_size: tokens per block; the router's own setting must be the same.
            namespace: see above.
        """
        count = len(tokens) // 4 if isinstance(tokens, bytes) else len(tokens)
        blocks = array("Q", chain_hashes(tokens, block_size)).tobytes()
        return cls(
            client=client, input_tokens=count, max_output=max_output, packed_blocks=blocks, namespace=namespace
        )

    def request(self, id: str) -> Request:
        """Return the request as a policy knows it."""
        blocks = array("Q", self.packed_blocks)
        return Request(id, self.client, self.input_tokens, self.max_output, blocks, self.namespace)


_BY_USER = Identity(("body:user",))
_NOBODY: Mapping[str, str] = {}


def key_in(
    arguments: Sequence[object], identity: Identity | None = None, *, block_size: int = 16
) -> RouteKey | None:
    """Return the key among a call's arguments, or make it of an OpenAI request; None if there is neither.

    By its shape: Serve unpickles the module of a router by value, in which a class is not itself.

    Args:
        arguments: of the call.
        identity: says whose an OpenAI request is; unless it does, its field `user`.
        block_size: tokens per block, for OpenAI requests.
    """
    for argument in arguments:
        if isinstance(argument, RouteKey) or hasattr(argument, "packed_blocks"):
            return argument  # type: ignore[return-value]
    headers = next((given for one in arguments if isinstance(given := getattr(one, "headers", None), Mapping)), {})
    for argument in arguments:
        tokens = _tokens_of_openai(argument)
        if tokens is not None:
            return RouteKey.of(
                _client_of_openai(argument, headers, identity or _BY_USER),
                tokens,
                max_output=_limit_of_openai(argument),
                block_size=block_size,
            )
    return None


def _tokens_of_openai(asked: Any) -> Sequence[int] | bytes | None:  # noqa: ANN401 (by its shape)
    """Return the prompt of a request as `ray.serve.llm` hands it on: OpenAI's, most often not tokenised yet.

    Four bytes of text stand for a token, about what a token is in English. Of several prompts the longest counts.
    """
    prompt = getattr(asked, "prompt", None)
    messages = getattr(asked, "messages", None)
    if isinstance(messages, list):
        prompt = "".join(f"{_field(one, 'role')}\n{_field(one, 'content')}\n" for one in messages)
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        prompt = max(prompt, key=len)
    if isinstance(prompt, list):
        return prompt or None
    if not isinstance(prompt, str):
        return None
    text = prompt.encode()
    return text + b" " * (-len(text) % _BYTES or (0 if text else _BYTES))


def _client_of_openai(asked: Any, headers: Mapping[str, str], identity: Identity) -> Client:  # noqa: ANN401
    body = vars(asked) if hasattr(asked, "__dict__") else {}
    said = {name.lower(): value for name, value in headers.items()} if headers else _NOBODY
    found = identity.resolve(headers=said, body=body)
    return found if found != identity.default else _BY_USER.resolve(body=body)


def _limit_of_openai(asked: Any) -> int:  # noqa: ANN401 (by its shape)
    limit = getattr(asked, "max_completion_tokens", None) or getattr(asked, "max_tokens", None)
    return limit if isinstance(limit, int) and limit > 0 else _USUAL_OUTPUT


def _field(message: Any, name: str) -> object:  # noqa: ANN401 (an object or a table)
    return message.get(name) if isinstance(message, Mapping) else getattr(message, name, None)
