"""How many tokens will it be? Estimates that learn from what workers report."""

from __future__ import annotations

from collections import OrderedDict

from fairprefix.core.request import Client
from fairprefix.gateway.ask import Ask

_SCALE = 1 << 10
_MEMORY = 16
"""The weight of what is known, against 1 for what is new."""
_CLIENTS = 10_000


class Estimates:
    """Estimates prompts from the bytes of their text, and output from the client's earlier answers.

    Args:
        bytes_per_token: until a worker has said better.
        assumed_output: tokens, likewise.
    """

    def __init__(self, bytes_per_token: int, assumed_output: int) -> None:
        self._bytes_per_token = bytes_per_token * _SCALE
        self._assumed_output = assumed_output
        self._output: OrderedDict[Client, int] = OrderedDict()
        """What is usual for an answer, scaled; who was heard of first goes first (a plain dict would search)."""

    def prompt(self, ask: Ask) -> int:
        """Return the tokens of a prompt, at least 1."""
        if ask.tokens is not None:
            return max(ask.tokens, 1)
        return max(ask.text_bytes * _SCALE // self._bytes_per_token, 1)

    def output(self, ask: Ask, client: Client) -> int:
        """Return the output tokens to reserve: what is usual for the client, or the request's limit if less."""
        usual = self._output.get(client)
        usual = ask.places * (self._assumed_output if usual is None else max(usual // _SCALE, 1))
        return usual if ask.limit is None else min(ask.limit, 2 * usual)

    def answer(self, text_bytes: int) -> int:
        """Return the tokens of an answer from the length of its text."""
        return -(-text_bytes * _SCALE // self._bytes_per_token)

    def learn(self, ask: Ask, client: Client, prompt: int, output: int) -> None:
        """Take note of what a request really was."""
        if ask.tokens is None and prompt and ask.text_bytes:
            ratio = max(ask.text_bytes * _SCALE // prompt, _SCALE // _MEMORY)
            self._bytes_per_token += (ratio - self._bytes_per_token) // _MEMORY
        if client not in self._output and len(self._output) >= _CLIENTS:
            self._output.popitem(last=False)
        seen = output * _SCALE // ask.places
        known = self._output.get(client, seen)
        self._output[client] = known + (seen - known) // _MEMORY
