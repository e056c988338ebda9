"""How much of a prompt a worker has cached, as its queue sees it: guessed from what was let in, or reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from fairprefix.core.request import Request
from fairprefix.core.run_index import ApproximateIndex
from fairprefix.core.worker_index import ExactIndex


class CacheView(Protocol):
    """What a queue asks, and tells."""

    def cached(self, request: Request) -> int:
        """Return the cached tokens of a prompt, whose last token is always computed."""
        ...

    def let_in(self, request: Request) -> None:
        """Note that a prompt is computed."""
        ...

    def clear(self) -> None:
        """Note that the worker has begun anew."""
        ...


class GuessedCache:
    """What was let in is cached, least recently used first out.

    Args:
        blocks: capacity.
        block_size: tokens per block.
    """

    def __init__(self, blocks: int, block_size: int) -> None:
        self._index = ApproximateIndex()
        self._index.open(0, blocks)
        self._block_size = block_size
        self._latest: tuple[Request, int] | None = None
        """The answer given last: a policy asks several times for whom it is about to offer."""

    def cached(self, request: Request) -> int:
        """Return the cached tokens of a prompt, whose last token is always computed."""
        if self._latest is not None and self._latest[0] is request:
            return self._latest[1]
        matched = self._index.match(request.blocks, request.namespace, 1)[0] if request.blocks else 0
        found = min(matched * self._block_size, request.input_tokens - 1)
        self._latest = (request, found)
        return found

    def let_in(self, request: Request) -> None:
        """Note that a prompt is computed."""
        self._latest = None
        if request.blocks:
            self._index.sent(0, request.blocks, request.namespace)

    def clear(self) -> None:
        """Note that the worker has begun anew."""
        self._latest = None
        self._index.clear(0)


class ReportedCache:
    """What the worker itself has reported is cached.

    Args:
        index: the router's.
        slot: returns the worker's slot in it.
        block_size: tokens per block.
    """

    def __init__(self, index: ExactIndex, slot: Callable[[], int], block_size: int) -> None:
        self._index = index
        self._slot = slot
        self._block_size = block_size

    def cached(self, request: Request) -> int:
        """Return the cached tokens of a prompt, whose last token is always computed."""
        matched = self._index.matched_blocks(self._slot(), request.blocks, request.namespace)
        return min(matched * self._block_size, request.input_tokens - 1)

    def let_in(self, request: Request) -> None:
        """Do nothing: the worker will tell."""

    def clear(self) -> None:
        """Do nothing: its feed notices."""
