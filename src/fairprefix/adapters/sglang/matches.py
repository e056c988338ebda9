"""What the policy may know about SGLang's prefix cache: the tree is asked, never followed or changed.

A request is asked for when it arrives, and again right before it is offered, so that the order at the head is
what the tree says now. In between a cached prefix can only grow by what is computed meanwhile: when a prompt is
done, the waiting requests that continue it are found by the hash of the first block that each of them misses,
without asking. A prefix that was evicted shows when its request is about to be offered. One answer in a pass does
for all whose cached prefixes end with the same block (they may overstate the tokens after it, less than a block),
and nothing cached can become no less.

(SGLang can also publish every stored and removed block. With its page of one token that is an event per token,
its trees differ in what they publish, and each prompt would have to be hashed page by page as SGLang does it.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define

from fairprefix.core.request import BlockHash, Request

BLOCK = 64
"""Tokens per block, for finding out who continues whose prompt."""
MOST_QUESTIONS = 256
"""Questions per pass; beyond them an offer goes by the last answer, which can only cost locality."""

Ask = Callable[[str], int]
"""Returns the cached tokens of a waiting request, by its id."""


@define(eq=False)
class Followed:
    """A waiting request, and what is known of its cached prefix."""

    request: Request
    tokens: int = 0
    """Cached, as the tree said last, or as it has been told to have grown since."""
    end: tuple[str, BlockHash] | None = None
    """The last full block of these; None when not even one is cached."""
    asked: int = 0
    """In which pass the tree was asked for it."""
    moved_to: int = 0
    """Blocks after which it misses one, as far as is known without asking."""

    def grow(self, tokens: int) -> None:
        """Note how many tokens are cached."""
        request, self.tokens = self.request, tokens
        self.end = (request.namespace, request.blocks[tokens // BLOCK - 1]) if tokens >= BLOCK else None


class TreeMatches:
    """The `Prefixes` view of a policy inside SGLang.

    Complexity: a question per arrival, and per pass and cached prefix of those that are offered; a computed prompt
    costs O(its blocks), and O(log blocks) for each waiting request whose cached prefix grew by it. Nothing walks
    the queue.
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._pass = 0
        self._questions = 0
        self._followed: dict[str, Followed] = {}
        self._confirmed: set[tuple[str, BlockHash] | None] = set()
        """Blocks at which answers of this pass end: they are cached, with all before them."""
        self._growth = Continuations()
        self._grown: dict[str, int] = {}

    def refresh(self) -> None:
        """Note that the cache may have changed: a new pass."""
        self._pass += 1
        self._questions = MOST_QUESTIONS
        self._confirmed.clear()

    def computed(self, blocks: Sequence[BlockHash], namespace: str) -> dict[str, int]:
        """Note that the prompt with these blocks is in the cache now; return whose cached prefix grew, by id."""
        grown: dict[str, int] = {}
        for one in self._growth.computed(blocks, namespace):
            # At least one token of a prompt is always computed.
            tokens = min(one.moved_to * BLOCK, one.request.input_tokens - 1)
            if tokens > one.tokens:
                grown[one.request.id] = tokens
        self._grown.update(grown)
        return grown

    def watch(self, request: Request) -> int:
        """Ask for a new request, and follow it."""
        one = self._followed[request.id] = Followed(request)
        tokens = self._answer(one)
        self._growth.follow(one, tokens // BLOCK)
        return tokens

    def forget(self, id: str) -> None:
        """Stop following a request."""
        self._growth.forget(self._followed.pop(id))
        self._grown.pop(id, None)

    def changes(self) -> list[tuple[str, int]]:
        """Return the requests whose cached prefix has grown."""
        if not self._grown:
            return []
        grown, self._grown = self._grown, {}
        for id, tokens in grown.items():
            self._followed[id].grow(tokens)
        return list(grown.items())

    def confirm(self, id: str) -> int:
        """Ask for a request that is about to be offered, unless an answer of this pass does for it."""
        one = self._followed[id]
        tokens = one.tokens
        if not tokens or one.end in self._confirmed or one.asked == self._pass or not self._questions:
            return tokens
        self._questions -= 1
        return self._answer(one)

    def _answer(self, one: Followed) -> int:
        request, one.asked = one.request, self._pass
        # A resumed request may have cached output as well.
        tokens = min(self._ask(request.id), request.input_tokens - 1)
        one.grow(tokens)
        if one.end is not None:
            self._confirmed.add(one.end)
        return tokens


class Continuations:
    """Finds the waiting requests whose prompts continue one that has been computed."""

    def __init__(self) -> None:
        self._missing: dict[tuple[str, BlockHash], dict[Followed, None]] = {}
        """By the first block that they miss: who waits."""

    def follow(self, one: Followed, matched: int) -> None:
        """Follow a request of which so many blocks are cached."""
        request, one.moved_to = one.request, matched
        if matched < len(request.blocks):
            self._missing.setdefault((request.namespace, request.blocks[matched]), {})[one] = None

    def forget(self, one: Followed) -> None:
        """Stop following a request."""
        request, matched = one.request, one.moved_to
        if matched < len(request.blocks):
            key = (request.namespace, request.blocks[matched])
            waiting = self._missing[key]
            del waiting[one]
            if not waiting:
                del self._missing[key]

    def computed(self, blocks: Sequence[BlockHash], namespace: str) -> list[Followed]:
        """Return who has more cached blocks now."""
        if not self._missing:
            return []
        grown: list[Followed] = []
        for place, block in enumerate(blocks):
            # Whoever is moved on now misses a block that `blocks` does not have: nobody is met twice.
            for one in list(self._missing.get((namespace, block), ())):
                matched = _shared(one.request.blocks, blocks, place + 1)
                self.forget(one)
                self.follow(one, matched)
                grown.append(one)
        return grown


def _shared(first: Sequence[BlockHash], second: Sequence[BlockHash], least: int) -> int:
    """Return how many leading blocks two chains share, at least `least`: equal hashes mean equal beginnings."""
    low, high = least, min(len(first), len(second))
    while low < high:
        middle = (low + high + 1) // 2
        if first[middle - 1] == second[middle - 1]:
            low = middle
        else:
            high = middle - 1
    return low
