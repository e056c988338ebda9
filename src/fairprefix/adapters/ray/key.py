"""What the router has to know of a request: it travels as the first argument of the call."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from attrs import frozen

from fairprefix.core.prefixes import chain_hashes
from fairprefix.core.request import Client, Request


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


def key_in(arguments: Sequence[object]) -> RouteKey | None:
    """Return the key among a call's arguments; None if there is none.

    By its shape: Serve unpickles the module of a router by value, in which a class is not itself.
    """
    for argument in arguments:
        if isinstance(argument, RouteKey) or hasattr(argument, "packed_blocks"):
            return argument  # type: ignore[return-value]
    return None
