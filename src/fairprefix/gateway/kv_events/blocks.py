"""From one worker's events to blocks of the index: whose hash is whose, and what is cached when.

The engine's block size and the index's need not be the same. A block of the index is cached from the moment at
which the engine's block that completes it is stored, until that one is removed: engines evict the end of a prompt
before its beginning, so whoever holds the end of a block holds all of it.

vLLM may hold a block twice, and then reports both, and the removal of each; on request it also reports again what
was cached before. To be never wrong, one removal counts for all reports.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field, frozen

from fairprefix.gateway.kv_events.chain import fold, follow, pack, root
from fairprefix.gateway.kv_events.wire import BlockId, Removed, Stored

_TOKEN_BYTES = 4
_NO_NAMES: tuple[bytes, ...] = ()


@frozen(slots=True)
class Node:
    """An engine's block whose borders are not those of the index."""

    digest: bytes
    """The name of the last full block of the index up to its end, or the root's."""
    rest: bytes
    """Packed tokens after that."""
    completed: tuple[bytes, ...]
    """The blocks of the index that end in it."""


@define(eq=False)
class BlockMap:
    """What one worker has cached, as far as its events tell.

    Args:
        block_size: tokens per block of the index.
        limit: engine blocks that are remembered; further ones are taken as not cached.

    Complexity: O(tokens) for what is stored, O(blocks) for what is removed.
    """

    block_size: int
    limit: int
    orphans: int = field(default=0, init=False)
    """Blocks that could not be named because the one before them was never reported."""
    over_limit: int = field(default=0, init=False)
    """Blocks beyond the limit."""
    elsewhere: int = field(default=0, init=False)
    """Blocks in slower memory, or that not every prompt with these tokens shares."""
    _nodes: dict[BlockId, bytes | Node] = field(factory=dict, init=False)
    """By the engine's hash: its name in the index, where one block of the engine is one of the index."""
    _group: int | None = field(default=None, init=False)

    def __len__(self) -> int:
        return len(self._nodes)

    def clear(self) -> None:
        """Forget everything."""
        self._nodes.clear()

    def stored(self, event: Stored) -> list[bytes]:
        """Take in stored blocks; return the blocks of the index that are cached now and were not before."""
        if not self._counts(event):
            self.elsewhere += len(event.ids)
            return []
        start = self._start(event)
        if start is None:
            self.orphans += len(event.ids)
            return []
        packed = pack(event.tokens)
        width = event.block_size * _TOKEN_BYTES
        fresh: list[bytes] = []
        node = start
        for number, id in enumerate(event.ids):
            if event.extras and event.extras[number]:
                node = Node(fold(node.digest, event.extras[number]), node.rest, _NO_NAMES)
            node = self._after(node, packed[number * width : (number + 1) * width])
            if id in self._nodes:
                continue
            if len(self._nodes) >= self.limit:
                self.over_limit += 1
            else:
                plain = not node.rest and node.completed == (node.digest,)
                self._nodes[id] = node.digest if plain else node
                fresh += node.completed
        return fresh

    def removed(self, event: Removed) -> list[bytes]:
        """Take in removed blocks; return the blocks of the index that are not cached any more."""
        gone: list[bytes] = []
        if not event.on_device or event.group != (self._group or 0):
            return gone
        for id in event.ids:
            node = self._nodes.pop(id, None)
            if isinstance(node, bytes):
                gone.append(node)
            elif node is not None:
                gone += node.completed
        return gone

    def _counts(self, event: Stored) -> bool:
        if not event.on_device or not event.shared:
            return False
        if self._group is None:
            self._group = event.group
        return event.group == self._group

    def _start(self, event: Stored) -> Node | None:
        """Return what comes before the first block; None if that is unknown."""
        if event.parent is None:
            return Node(root(event.adapter), b"", _NO_NAMES)
        before = self._nodes.get(event.parent)
        return Node(before, b"", _NO_NAMES) if isinstance(before, bytes) else before

    def _after(self, before: Node, packed: bytes) -> Node:
        packed = before.rest + packed
        names: Sequence[bytes] = tuple(follow(before.digest, packed, self.block_size))
        used = len(names) * self.block_size * _TOKEN_BYTES
        return Node(names[-1] if names else before.digest, packed[used:], tuple(names))
