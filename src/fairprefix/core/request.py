"""What a policy may know about a request."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from fairprefix.core.errors import at_least, reject

Client = str
"""Whose request it is: the name between which service is shared out fairly."""

BlockHash = int | bytes
"""Identifies one block of a prompt AND everything before it (a cumulative, or chained, hash)."""


@frozen(eq=False)
class Request:
    """A request as it arrives at a policy; nothing in it changes afterwards.

    Two requests are the same only if they are the same object, so that comparing them costs nothing.
    """

    id: str
    """Unique among the requests that the policy has not yet seen finished."""
    client: Client
    input_tokens: int
    """Length of the prompt in tokens, at least 1."""
    max_output: int
    """The most output tokens that it may produce, at least 1."""
    blocks: Sequence[BlockHash] = ()
    """Cumulative hashes of the prompt's full blocks, first block first; empty when the host knows none."""
    namespace: str = ""
    """Prompts share cached blocks only within a namespace: cache salt, LoRA adapter, multimodal hash..."""

    def __attrs_post_init__(self) -> None:
        """Refuse lengths that no engine can serve."""
        for name, value in (("input_tokens", self.input_tokens), ("max_output", self.max_output)):
            at_least(f"request {self.id!r}: {name}", value, 1)
        if not self.client:
            raise reject(f"request {self.id!r}: client", self.client, "a non-empty name")
