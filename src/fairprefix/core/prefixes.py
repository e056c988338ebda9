"""What a policy may know about the prefix cache: how much of each waiting prompt is cached right now.

Two views, chosen by what the host can tell:

* `PrefixIndex`: the host reports runs of blocks as they become cached and as they are evicted. The order is kept
  up incrementally: an event costs time only for the waiting requests whose cached prefix it changes.
* `AskedPrefixes`: the host can only be asked. The few requests at the head are asked for again before they are
  offered, and a bounded number of others in each pass, so that growth is found as well.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Protocol

from attrs import define, field

from fairprefix.core.errors import HostError, at_least
from fairprefix.core.request import BlockHash, Request


def chain_hashes(tokens: Sequence[int] | bytes, block_size: int) -> tuple[int, ...]:
    """Return the cumulative 64-bit hashes of the full blocks of a prompt.

    Args:
        tokens: token ids, or the same as little-endian 32-bit integers in bytes (faster).
        block_size: tokens per block.

    The hash only ranks waiting requests: a collision can cost locality, never correctness. Complexity: O(tokens).
    """
    at_least("block_size", block_size, 1)
    data = tokens if isinstance(tokens, bytes) else array("i", tokens).tobytes()
    width = 4 * block_size
    hashes, parent = [], b""
    for start in range(0, len(data) - width + 1, width):
        parent = blake2b(data[start : start + width], digest_size=8, salt=parent).digest()
        hashes.append(int.from_bytes(parent, "little"))
    return tuple(hashes)


class Prefixes(Protocol):
    """A view of the cache, as the policies use it."""

    def watch(self, request: Request) -> int:
        """Start to follow a waiting request; return its cached tokens (less than its prompt's length)."""
        ...

    def forget(self, id: str) -> None:
        """Stop following a request."""
        ...

    def changes(self) -> Iterable[tuple[str, int]]:
        """Return (id, cached tokens) of followed requests that have changed since the last call."""
        ...

    def confirm(self, id: str) -> int:
        """Return the cached tokens of a followed request that is about to be offered."""
        ...


class NoPrefixes:
    """The view for policies that do not look at the cache."""

    def watch(self, request: Request) -> int:  # noqa: ARG002 (the protocol's signature)
        """Return 0."""
        return 0

    def forget(self, id: str) -> None:
        """Do nothing."""

    def changes(self) -> Iterable[tuple[str, int]]:
        """Return nothing."""
        return ()

    def confirm(self, id: str) -> int:  # noqa: ARG002 (the protocol's signature)
        """Return 0."""
        return 0


@define(eq=False)
class _Followed:
    request: Request
    space: _Space
    matched: int = 0
    """Leading blocks of the prompt that are cached."""


@define(eq=False)
class _Space:
    """One namespace of the cache."""

    depth: dict[BlockHash, int] = field(factory=dict)
    """Cached blocks, and how many blocks of its chain come before each."""
    children: dict[BlockHash, int] = field(factory=dict)
    """How many cached blocks continue a cached block (absent: none)."""
    missing: dict[BlockHash, dict[str, _Followed]] = field(factory=dict)
    """Followed requests by their first block that is not cached: whom a newly cached block concerns."""
    tips: dict[BlockHash, dict[str, _Followed]] = field(factory=dict)
    """Followed requests by their last matched block: whom the eviction of a block concerns."""

    def empty(self) -> bool:
        return not (self.depth or self.missing or self.tips)


class PrefixIndex:
    """Keeps the cached prefix of every waiting request from the runs that the host reports.

    Complexity: `watch` O(log blocks + matched); `cached` and `evicted` O(run + requests whose match changes).
    Evicting a block while blocks that continue it stay cached is allowed, but costs a look at every request
    followed in that namespace; real caches evict the ends of chains first.
    """

    def __init__(self, block_size: int) -> None:
        self.block_size = at_least("block_size", block_size, 1)
        self._spaces: dict[str, _Space] = {}
        self._followed: dict[str, _Followed] = {}
        self._changed: dict[str, None] = {}

    def cached(self, blocks: Sequence[BlockHash], *, start: int = 0, namespace: str = "") -> None:
        """Report that `blocks[start:]` of a chain are cached now.

        Args:
            blocks: a chain of cumulative hashes from its first block on.
            start: how many leading blocks were cached before; they are not looked at.
            namespace: where the chain lives.
        """
        space = self._space(namespace)
        for place in range(start, len(blocks)):
            block = blocks[place]
            if block not in space.depth:
                space.depth[block] = place
                if place:
                    parent = blocks[place - 1]
                    space.children[parent] = space.children.get(parent, 0) + 1
        for place in range(start, len(blocks)):
            for followed in list(space.missing.get(blocks[place], {}).values()):
                self._place(followed, followed.matched)

    def evicted(self, blocks: Sequence[BlockHash], *, start: int = 0, namespace: str = "") -> None:
        """Report that `blocks[start:]` of a chain are no longer cached; the arguments are those of `cached`."""
        space = self._space(namespace)
        for place in range(len(blocks) - 1, start - 1, -1):
            block = blocks[place]
            if space.depth.pop(block, None) is None:
                continue
            if place:
                self._orphan(space, blocks[place - 1])
            followers = self._followed.values() if block in space.children else space.tips.get(block, {}).values()
            for followed in list(followers):
                self._cut(followed, space, block, place)
        self._drop_if_empty(namespace)

    def holds(self, block: BlockHash, namespace: str = "") -> bool:
        """Return whether a block is cached."""
        space = self._spaces.get(namespace)
        return space is not None and block in space.depth

    def cached_blocks(self) -> int:
        """Return the number of cached blocks, over all namespaces."""
        return sum(len(space.depth) for space in self._spaces.values())

    def watch(self, request: Request) -> int:
        """Start to follow a waiting request; return its cached tokens."""
        followed = _Followed(request, self._space(request.namespace))
        self._followed[request.id] = followed
        self._link(followed, self._first_missing(followed, 0))
        return self._tokens(followed)

    def forget(self, id: str) -> None:
        """Stop following a request."""
        followed = self._followed.pop(id)
        self._unlink(followed)
        self._changed.pop(id, None)
        self._drop_if_empty(followed.request.namespace)

    def changes(self) -> list[tuple[str, int]]:
        """Return (id, cached tokens) of the requests whose cached prefix has changed since the last call."""
        if not self._changed:
            return []
        changed, self._changed = self._changed, {}
        return [(id, self._tokens(self._followed[id])) for id in changed]

    def confirm(self, id: str) -> int:
        """Return the cached tokens of a followed request."""
        return self._tokens(self._followed[id])

    def validate(self) -> None:
        """Check the index against a fresh match of every followed request."""
        for id, followed in self._followed.items():
            blocks, space = followed.request.blocks, followed.space
            fresh = next((i for i, block in enumerate(blocks) if block not in space.depth), len(blocks))
            assert followed.matched == fresh, (id, followed.matched, fresh)
            assert fresh == len(blocks) or id in space.missing[blocks[fresh]], id
            assert fresh == 0 or id in space.tips[blocks[fresh - 1]], id

    def _space(self, namespace: str) -> _Space:
        space = self._spaces.get(namespace)
        if space is None:
            space = self._spaces[namespace] = _Space()
        return space

    def _drop_if_empty(self, namespace: str) -> None:
        space = self._spaces.get(namespace)
        if space is not None and space.empty():
            del self._spaces[namespace]

    def _tokens(self, followed: _Followed) -> int:
        # At least one token is computed for every request, or there would be no first output token.
        return min(followed.matched * self.block_size, followed.request.input_tokens - 1)

    @staticmethod
    def _first_missing(followed: _Followed, start: int) -> int:
        blocks, depth = followed.request.blocks, followed.space.depth
        for place in range(start, len(blocks)):
            if blocks[place] not in depth:
                return place
        return len(blocks)

    def _place(self, followed: _Followed, at_least_matched: int) -> None:
        """Move a request to where its match ends now, given that it is no shorter than `at_least_matched`."""
        self._unlink(followed)
        self._link(followed, self._first_missing(followed, at_least_matched))
        self._changed[followed.request.id] = None

    def _cut(self, followed: _Followed, space: _Space, block: BlockHash, place: int) -> None:
        """Shorten a match that runs through an evicted block."""
        concerned = followed.space is space and followed.matched > place
        if concerned and followed.request.blocks[place] == block:
            self._unlink(followed)
            self._link(followed, place)
            self._changed[followed.request.id] = None

    @staticmethod
    def _link(followed: _Followed, matched: int) -> None:
        followed.matched = matched
        id, blocks, space = followed.request.id, followed.request.blocks, followed.space
        if matched < len(blocks):
            space.missing.setdefault(blocks[matched], {})[id] = followed
        if matched:
            space.tips.setdefault(blocks[matched - 1], {})[id] = followed

    @staticmethod
    def _unlink(followed: _Followed) -> None:
        id, blocks, space, matched = (
            followed.request.id,
            followed.request.blocks,
            followed.space,
            followed.matched,
        )
        if matched < len(blocks):
            _discard(space.missing, blocks[matched], id)
        if matched:
            _discard(space.tips, blocks[matched - 1], id)

    @staticmethod
    def _orphan(space: _Space, parent: BlockHash) -> None:
        left = space.children.get(parent, 0) - 1
        if left > 0:
            space.children[parent] = left
        else:
            space.children.pop(parent, None)


def _discard(table: dict[BlockHash, dict[str, _Followed]], block: BlockHash, id: str) -> None:
    followers = table[block]
    del followers[id]
    if not followers:
        del table[block]


class AskedPrefixes:
    """The view for hosts that can only be asked how much of a prompt is cached.

    The host calls `refresh` when the cache may have changed (once a scheduling pass). A request is asked for at
    most once between two refreshes: when it is about to be offered, or in turn, `per_pass` of them each time.

    Complexity: at most `per_pass` questions a refresh, and one for each candidate.
    """

    def __init__(self, ask: Callable[[Request], int], *, per_pass: int = 16) -> None:
        self._ask = ask
        self._per_pass = at_least("per_pass", per_pass, 0)
        self._pass = 0
        self._known: dict[str, tuple[Request, int, int]] = {}
        self._to_ask = 0

    def refresh(self) -> None:
        """Note that the cache may have changed."""
        self._pass += 1
        self._to_ask = self._per_pass

    def watch(self, request: Request) -> int:
        """Ask for a new request."""
        return self._ask_for(request)

    def forget(self, id: str) -> None:
        """Stop following a request."""
        del self._known[id]

    def changes(self) -> list[tuple[str, int]]:
        """Ask for the requests that have not been asked for the longest, and return those that changed."""
        changed: list[tuple[str, int]] = []
        while self._to_ask and self._known:
            self._to_ask -= 1
            id = next(iter(self._known))
            before = self._known[id][1]
            if (now := self.confirm(id)) != before:
                changed.append((id, now))
            self._known[id] = self._known.pop(id)
        return changed

    def confirm(self, id: str) -> int:
        """Return the cached tokens of a request, asked for in this pass."""
        request, tokens, asked = self._known[id]
        return tokens if asked == self._pass else self._ask_for(request)

    def _ask_for(self, request: Request) -> int:
        tokens = self._ask(request)
        if not 0 <= tokens < max(request.input_tokens, 1):
            raise HostError(
                f"the cache answered {tokens} cached tokens for request {request.id!r} of "
                f"{request.input_tokens} tokens: expected 0 to {request.input_tokens - 1}"
            )
        self._known[request.id] = (request, tokens, self._pass)
        return tokens
