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

from fairprefix.core.request import BlockHash, Request

BLOCK = 64
"""Tokens per block, for finding out who continues whose prompt."""
MOST_QUESTIONS = 256
"""Questions per pass; beyond them an offer goes by the last answer, which can only cost locality."""

Ask = Callable[[str], int]
"""Returns the cached tokens of a waiting request, by its id."""


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
        self._known: dict[str, int] = {}
        self._asked: dict[str, int] = {}
        """In which pass a request was asked for."""
        self._confirmed: set[tuple[str, BlockHash]] = set()
        """Blocks at which answers of this pass end: they are cached, with all before them."""
        self._growth = Continuations()
        self._grown: dict[str, int] = {}

    def refresh(self) -> None:
        """Note that the cache may have changed: a new pass."""
        self._pass += 1
        self._questions = MOST_QUESTIONS
        self._confirmed.clear()

    def known(self, id: str) -> int:
        """Return the cached tokens of a request as they were told last; 0 when nobody follows it."""
        return self._known.get(id, 0)

    def computed(self, blocks: Sequence[BlockHash], namespace: str) -> None:
        """Note that the prompt with these blocks is in the cache now."""
        for id, matched in self._growth.computed(blocks, namespace):
            if matched * BLOCK > self._known[id]:
                self._grown[id] = matched * BLOCK

    def watch(self, request: Request) -> int:
        """Ask for a new request, and follow it."""
        tokens = self._answer(request)
        self._growth.follow(request, tokens // BLOCK)
        return tokens

    def forget(self, id: str) -> None:
        """Stop following a request."""
        del self._known[id], self._asked[id]
        self._grown.pop(id, None)
        self._growth.forget(id)

    def changes(self) -> list[tuple[str, int]]:
        """Return the requests whose cached prefix has grown."""
        if not self._grown:
            return []
        grown, self._grown = self._grown, {}
        self._known.update(grown)
        return list(grown.items())

    def confirm(self, id: str) -> int:
        """Ask for a request that is about to be offered, unless an answer of this pass does for it."""
        known = self._known[id]
        if not known or self._asked[id] == self._pass or not self._questions:
            return known
        request = self._growth.requests[id]
        if known >= BLOCK and (request.namespace, request.blocks[known // BLOCK - 1]) in self._confirmed:
            return known
        self._questions -= 1
        return self._answer(request)

    def _answer(self, request: Request) -> int:
        # At least one token of a prompt is always computed; a resumed request may have cached output as well.
        tokens = min(self._ask(request.id), request.input_tokens - 1)
        self._known[request.id], self._asked[request.id] = tokens, self._pass
        if tokens >= BLOCK:
            self._confirmed.add((request.namespace, request.blocks[tokens // BLOCK - 1]))
        return tokens


class Continuations:
    """Finds the waiting requests whose prompts continue one that has been computed."""

    def __init__(self) -> None:
        self.requests: dict[str, Request] = {}
        self._matched: dict[str, int] = {}
        """Blocks of a request that are cached."""
        self._missing: dict[tuple[str, BlockHash], dict[str, None]] = {}
        """By the first block that they miss: who waits."""

    def follow(self, request: Request, matched: int) -> None:
        """Follow a request of which so many blocks are cached."""
        self.requests[request.id] = request
        self._matched[request.id] = matched
        if matched < len(request.blocks):
            self._missing.setdefault((request.namespace, request.blocks[matched]), {})[request.id] = None

    def forget(self, id: str) -> None:
        """Stop following a request."""
        request, matched = self.requests.pop(id), self._matched.pop(id)
        if matched < len(request.blocks):
            key = (request.namespace, request.blocks[matched])
            del self._missing[key][id]
            if not self._missing[key]:
                del self._missing[key]

    def computed(self, blocks: Sequence[BlockHash], namespace: str) -> list[tuple[str, int]]:
        """Return who has more cached blocks now, and how many."""
        if not self._missing:
            return []
        grown: list[tuple[str, int]] = []
        for place, block in enumerate(blocks):
            # Whoever is moved on now misses a block that `blocks` does not have: nobody is met twice.
            for id in list(self._missing.get((namespace, block), ())):
                request = self.requests[id]
                matched = _shared(request.blocks, blocks, place + 1)
                self.forget(id)
                self.follow(request, matched)
                grown.append((id, matched))
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
