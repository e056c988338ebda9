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

from fairprefix.core.compiling import mypyc_attr
from fairprefix.core.errors import HostError, at_least
from fairprefix.core.radix import Aside, Follower, RunTree, members_of
from fairprefix.core.request import BlockHash, Request


def chain_hashes(tokens: Sequence[int] | bytes, block_size: int) -> Sequence[int]:
    """Return the cumulative 64-bit hashes of the full blocks of a prompt.

    Args:
        tokens: token ids, or the same as little-endian 32-bit integers in bytes (faster).
        block_size: tokens per block.

    They are packed, 8 bytes a block. The hash only ranks waiting requests: a collision can cost locality, never
    correctness. Complexity: O(tokens).
    """
    at_least("block_size", block_size, 1)
    data = tokens if isinstance(tokens, bytes) else array("i", tokens).tobytes()
    width = 4 * block_size
    hashes, parent = bytearray(), b""
    for start in range(0, len(data) - width + 1, width):
        parent = blake2b(data[start : start + width], digest_size=8, salt=parent).digest()
        hashes += parent
    return array("Q", bytes(hashes))


class Prefixes(Protocol):
    """A view of the cache, as the policies use it."""

    def watch(self, request: Request) -> int:
        """Start to follow a waiting request; return its cached tokens (less than its prompt's length)."""
        ...

    def forget(self, id: str) -> None:
        """Stop following a request."""
        ...

    def changes(self) -> Iterable[tuple[str, int]]:
        """Return (id, cached tokens) of followed requests that have changed since they were last told of.

        A view may tell of some of them now and of others at the next call, so that no call takes long.
        """
        ...

    def confirm(self, id: str) -> int:
        """Return the cached tokens of a followed request that is about to be offered: these are exact.

        The caller has been told of them by this.
        """
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


class _Report:
    """Blocks `start` to `end` of a chain that were cached, or evicted, one after the other."""

    __slots__ = ("blocks", "cached", "end", "length", "namespace", "start")

    def __init__(
        self, blocks: Sequence[BlockHash], start: int, end: int, length: int, namespace: str, *, cached: bool
    ) -> None:
        self.blocks = blocks
        self.start = start
        self.end = end
        self.length = length
        """Of the chain."""
        self.namespace = namespace
        self.cached = cached


@mypyc_attr(allow_interpreted_subclasses=True)
class PrefixIndex:
    """Keeps the cached prefix of every waiting request from the runs that the host reports.

    An event sets aside the requests that it may concern, as a whole, however many they are; each look at `changes`
    finds new places for `per_look` of them. Usually that is all of them. Where an event concerns more (a prefix
    that 100 000 waiting requests share is evicted), their order catches up over the next looks, while whoever is
    about to be offered is always known exactly (`confirm`). Those who have gained come first: who has lost stands
    too far ahead, where the policy finds it by itself.

    Complexity, with r runs on the path of a prompt (a handful): `watch` O(r + log blocks); `cached` and `evicted`
    O(r + log blocks), and O(places in the run at which matches end) for `evicted`, whatever the length of the run
    and whoever waits, and O(1) for a block, or run, that goes on from the one before; `changes` O(r + log blocks)
    for each of at most `per_look` requests. Evicting a block before those that continue it is allowed, but costs
    O(blocks) below it.

    Args:
        block_size: tokens per block.
        per_look: how many requests get a new place each time.
    """

    block_size: int

    def __init__(self, block_size: int, *, per_look: int = 16) -> None:
        self.block_size = at_least("block_size", block_size, 1)
        self._per_look = at_least("per_look", per_look, 1)
        self._trees: dict[str, RunTree] = {}
        self._followers: dict[str, Follower] = {}
        self._last: _Report | None = None
        """What was reported last, and is not in the tree yet: it may go on. A run costs no more than a block."""
        self._gained = Aside()
        self._lost = Aside()

    def cached(
        self, blocks: Sequence[BlockHash], *, start: int = 0, end: int | None = None, namespace: str = ""
    ) -> None:
        """Report that `blocks[start:end]` of a chain are cached now.

        Args:
            blocks: a chain of cumulative hashes from its first block on; it must not change afterwards.
            start: how many leading blocks were cached before.
            end: where the run ends; None for the end of the chain.
            namespace: where the chain lives.
        """
        last = self._last
        if (
            last is not None
            and last.blocks is blocks
            and last.end == start
            and last.cached
            and last.namespace == namespace
        ):
            if end is None or end > last.length:
                end = last.length
            if end > start:
                last.end = end
        else:
            self._note(blocks, start, end, namespace, cached=True)

    def evicted(
        self, blocks: Sequence[BlockHash], *, start: int = 0, end: int | None = None, namespace: str = ""
    ) -> None:
        """Report that `blocks[start:end]` are no longer cached; the arguments are those of `cached`."""
        last = self._last
        if (
            last is not None
            and last.blocks is blocks
            and last.start == end
            and not last.cached
            and last.namespace == namespace
        ):
            if start < end:
                last.start = start
        else:
            self._note(blocks, start, end, namespace, cached=False)

    def matched_blocks(self, blocks: Sequence[BlockHash], namespace: str = "") -> int:
        """Return how many leading blocks of a chain are cached."""
        self._take_note()
        tree = self._trees.get(namespace)
        return tree.match(blocks)[1] if tree else 0

    def cached_blocks(self) -> int:
        """Return the number of cached blocks, over all namespaces."""
        self._take_note()
        return sum(len(tree) for tree in self._trees.values())

    def watch(self, request: Request) -> int:
        """Start to follow a waiting request; return its cached tokens."""
        self._take_note()
        tree = self._tree(request.namespace)
        follower = self._followers[request.id] = Follower(request, tree)
        self._place(follower)
        return follower.tokens

    def forget(self, id: str) -> None:
        """Stop following a request."""
        follower = self._followers.pop(id)
        tree = follower.tree
        tree.displace(follower)
        if not tree.followers:
            self._drop_if_empty(follower.request.namespace)

    def changes(self) -> list[tuple[str, int]]:
        """Return (id, cached tokens) of requests whose cached prefix has changed, at most `per_look` of them."""
        self._take_note()
        changed: list[tuple[str, int]] = []
        for _ in range(self._per_look):
            follower = self._gained.take() or self._lost.take()
            if follower is None:
                break
            id, before = follower.request.id, follower.matched
            if self._followers.get(id) is follower and not follower.tree.is_placed(follower):
                self._replace(follower)
                if follower.matched != before:
                    changed.append((id, follower.tokens))
        return changed

    def confirm(self, id: str) -> int:
        """Return the cached tokens of a followed request."""
        self._take_note()
        follower = self._followers[id]
        if not follower.tree.is_placed(follower):
            self._replace(follower)
        return follower.tokens

    def validate(self) -> None:
        """Check the index against a fresh match of every followed request whose place has not changed."""
        self._take_note()
        reachable = {namespace: tree.reachable() for namespace, tree in self._trees.items()}
        aside = self._gained.ids() | self._lost.ids()
        for id, follower in self._followers.items():
            if not follower.tree.is_placed(follower):
                assert id in aside, id
                continue
            blocks, tree, stop, matched = follower.blocks, follower.tree, follower.stop, follower.matched
            known = reachable[follower.request.namespace]
            fresh = next((i for i, block in enumerate(blocks) if block not in known), len(blocks))
            assert matched == fresh, (id, matched, fresh)
            assert fresh == len(blocks) or blocks[fresh] not in tree.loose(), id
            assert stop, id
            assert stop.run, id
            assert stop.run.start < fresh <= stop.run.end or fresh == stop.run.end == 0, id
            assert stop.run.stops[fresh] is stop, id
            assert id in stop.members, id

        for tree in self._trees.values():
            for stop in tree.stops():
                assert stop.members, stop.depth
                assert all(self._followers.get(id) is one and one.stop is stop for id, one in stop.members.items())
            for group in tree.missing.values():
                assert all(self._followers.get(one.request.id) is one for one in members_of(group))

    def _note(
        self, blocks: Sequence[BlockHash], start: int, end: int | None, namespace: str, *, cached: bool
    ) -> None:
        """Remember a report that does not go on from the last one."""
        length = len(blocks)
        end = length if end is None or end > length else end
        if start < end:
            self._take_note()
            self._last = _Report(blocks, start, end, length, namespace, cached=cached)

    def _take_note(self) -> None:
        """Bring the tree up to date with what was reported last."""
        if self._last is None:
            return
        last, self._last = self._last, None
        tree = self._tree(last.namespace)
        if last.cached:
            tree.add(last.blocks, last.start, last.end)
            return
        tree.cut(last.blocks, last.start, last.end)
        if not tree.followers:
            self._drop_if_empty(last.namespace)

    def _tree(self, namespace: str) -> RunTree:
        tree = self._trees.get(namespace)
        if tree is None:
            tree = self._trees[namespace] = RunTree(self._gained, self._lost)
        return tree

    def _drop_if_empty(self, namespace: str) -> None:
        if self._trees[namespace].empty():
            del self._trees[namespace]

    def _replace(self, follower: Follower) -> None:
        follower.tree.displace(follower)
        self._place(follower)

    def _place(self, follower: Follower) -> None:
        follower.tree.place(follower)
        # At least one token is computed for every request, or there would be no first output token.
        tokens, most = follower.matched * self.block_size, follower.request.input_tokens - 1
        follower.tokens = min(most, tokens)


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
