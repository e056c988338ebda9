"""A worker's stream on its way to a client: read as the client takes it, or ahead while the client is slow.

A reader that is slow must not hold a place at the worker that others wait for: what it has not read is kept here,
up to a limit, and the request is settled as soon as the worker has said its last word.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from fairprefix.gateway.upstream import Answer, UpstreamError
from fairprefix.gateway.usage import EventReader

_MOST_AHEAD = 1 << 20
"""Bytes that are kept for a client."""


class Stream:
    """See above.

    Args:
        answer: the worker's.
        reader: finds out what is in it.
        produced: told of output tokens as they come.
        ended: told once, when the worker has finished.
    """

    def __init__(
        self, answer: Answer, reader: EventReader, produced: Callable[[int], None], ended: Callable[[], None]
    ) -> None:
        self._pieces = answer.pieces()
        self._reader = reader
        self._produced = produced
        self._ended = ended
        self._over = False
        self._failed: UpstreamError | None = None
        self._kept: deque[bytes] = deque()
        self._size = 0
        self._news = asyncio.Event()
        self._ahead: asyncio.Task[None] | None = None

    async def next(self) -> bytes | None:
        """Return what to hand on next; None when that is all.

        Raises:
            UpstreamError: the worker stopped in the middle.
        """
        while not self._kept and self._ahead is not None and not self._ahead.done():
            self._news.clear()
            await self._news.wait()
        if self._kept:
            data = self._kept.popleft()
            self._size -= len(data)
            return data
        if self._failed is not None:
            raise self._failed
        return None if self._over else await self._read()

    def read_ahead(self) -> None:
        """Go on reading although the client does not; again is no change."""
        if (self._ahead is None or self._ahead.done()) and not self._over and self._failed is None:
            self._ahead = asyncio.get_running_loop().create_task(self._fill())

    def stop(self) -> None:
        """Read no more."""
        if self._ahead is not None:
            self._ahead.cancel()

    async def _fill(self) -> None:
        try:
            while not self._over and self._size < _MOST_AHEAD:
                data = await self._read()
                if data:
                    self._kept.append(data)
                    self._size += len(data)
                    self._news.set()
        except UpstreamError as problem:
            self._failed = problem
        finally:
            self._news.set()

    async def _read(self) -> bytes | None:
        """Return the next whole events; None at the end."""
        before = self._reader.tokens
        async for piece in self._pieces:
            data = self._reader.feed(piece)
            if data:
                self._count(before)
                return data
        data = self._reader.flush()
        self._count(before)
        self._over = True
        self._ended()
        return data or None

    def _count(self, before: int) -> None:
        if self._reader.tokens > before:
            self._produced(self._reader.tokens - before)
