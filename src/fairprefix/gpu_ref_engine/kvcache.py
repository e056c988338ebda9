"""Pages of KV memory, and the prefix cache in them: a trie of full pages with reference counts and LRU eviction.

A page is found by the tokens in it and by those before it, compared one by one: unlike a cache that is keyed by
hashes, it never takes one prompt for another. What becomes cached and what is evicted is reported, in runs, to the
prefix index that the policies look at.

A request holds references from the root of the trie down to its last shared page, and gives them up from the end
to the beginning. So among the pages that nobody holds, those that continue others are always the older ones, and
the oldest page of all can be evicted in O(1).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from attrs import define, field, frozen

from fairprefix.core.errors import at_least
from fairprefix.core.prefixes import PrefixIndex, chain_hashes
from fairprefix.core.request import BlockHash

TOKEN_BYTES = 4
"""Tokens are 32-bit little-endian integers in the keys of the trie."""


@define(eq=False, repr=False)
class Node:
    """One cached page; the root of a namespace has none."""

    page: int
    key: bytes
    """The tokens in it."""
    parent: Node | None
    chain: Sequence[BlockHash]
    """Hashes of the prompt that it was computed for, ..."""
    place: int
    """... and which of its pages it is."""
    namespace: str
    references: int = 0
    children: dict[bytes, Node] = field(factory=dict)


@frozen(eq=False)
class Match:
    """The cached beginning of a prompt; valid until the cache changes, unless it is locked."""

    nodes: Sequence[Node]
    revived: int
    """Pages among them that nobody holds at present: locking them takes them from what can be evicted."""


@define(eq=False)
class Holding:
    """What one running request holds."""

    namespace: str = ""
    pages: list[int] = field(factory=list)
    """In the order of its tokens."""
    nodes: list[Node] = field(factory=list)
    """Its leading pages that are shared: one reference each."""


class KVCache:
    """KV memory of `pages` pages.

    Args:
        pages: how many there are.
        page_size: tokens per page.
        index: is told what is cached and what is evicted; its blocks are the pages.
        reuse: False: nothing is ever cached (to measure what the cache is worth).

    Complexity: O(pages concerned) for every operation; O(1) for each page that is evicted.
    """

    def __init__(self, pages: int, page_size: int, index: PrefixIndex, *, reuse: bool = True) -> None:
        self.pages: int = at_least("pages", pages, 1)
        self.page_size: int = at_least("page_size", page_size, 1)
        self.index = index
        self.reuse = reuse
        self.evicted_pages: int = 0
        self._width = page_size * TOKEN_BYTES
        self._free = list(range(pages - 1, -1, -1))
        self._roots: dict[str, Node] = {}
        self._unheld: OrderedDict[Node, None] = OrderedDict()
        """Cached pages that nobody holds, least recently used first."""

    @property
    def available(self) -> int:
        """Pages that can be had: the free ones, and those that can be evicted."""
        return len(self._free) + len(self._unheld)

    @property
    def free(self) -> int:
        """Pages that hold nothing."""
        return len(self._free)

    @property
    def evictable(self) -> int:
        """Cached pages that nobody holds."""
        return len(self._unheld)

    def pages_for(self, tokens: int) -> int:
        """Return how many pages so many tokens take."""
        return -(-tokens // self.page_size)

    def match(self, data: bytes, namespace: str = "") -> Match:
        """Return the cached beginning of a prompt; changes nothing.

        At least one token of the prompt is left to be computed, or there would be no next token.
        """
        nodes: list[Node] = []
        node = self._roots.get(namespace)
        last = (len(data) // TOKEN_BYTES - 1) // self.page_size * self._width
        for start in range(0, last, self._width):
            node = node.children.get(data[start : start + self._width]) if node else None
            if node is None:
                break
            nodes.append(node)
        return Match(nodes, sum(not node.references for node in nodes))

    def hold(self, match: Match, more: int, namespace: str = "") -> Holding:
        """Lock a match that is up to date, and add `more` pages; they must be available."""
        for node in match.nodes:
            if not node.references:
                del self._unheld[node]
            node.references += 1
        holding = Holding(namespace, [node.page for node in match.nodes], list(match.nodes))
        self.grow(holding, more)
        return holding

    def grow(self, holding: Holding, pages: int) -> None:
        """Give a request more pages; they must be available."""
        if pages > len(self._free):
            self._evict(pages - len(self._free))
        for _ in range(pages):
            holding.pages.append(self._free.pop())

    def share(self, holding: Holding, chain: Sequence[BlockHash], data: bytes, computed: int) -> bool:
        """Cache the full pages among the first `computed` tokens of a request.

        Args:
            holding: what it holds.
            chain: the hashes of at least these pages; must not change afterwards.
            data: its tokens as 32-bit integers.
            computed: tokens whose keys and values are in memory, or will be before anybody reads them.

        Returns:
            Whether pages of the holding were exchanged for pages of the same content that were cached already.
        """
        start, end = len(holding.nodes), computed // self.page_size
        if not self.reuse or end <= start:
            return False
        exchanged = False
        node = holding.nodes[-1] if holding.nodes else self._root(holding.namespace)
        for place in range(start, end):
            node = self._child(node, data[place * self._width : (place + 1) * self._width], chain, place, holding)
            node.references += 1
            holding.nodes.append(node)
            if holding.pages[place] != node.page:
                self._free.append(holding.pages[place])
                holding.pages[place] = node.page
                exchanged = True
        self.index.cached(chain, start=start, end=end, namespace=holding.namespace)
        return exchanged

    def release(self, holding: Holding, data: bytes = b"", computed: int = 0) -> None:
        """Take a request's pages back; the full ones among its first `computed` tokens stay cached."""
        if self.reuse and computed // self.page_size > len(holding.nodes):
            self.share(holding, chain_hashes(data[: computed * TOKEN_BYTES], self.page_size), data, computed)
        self._free.extend(reversed(holding.pages[len(holding.nodes) :]))
        for node in reversed(holding.nodes):
            node.references -= 1
            if not node.references:
                self._unheld[node] = None
        holding.pages.clear()
        holding.nodes.clear()

    def clear(self) -> None:
        """Forget every page that nobody holds."""
        self._evict(len(self._unheld))

    def check_integrity(self, holdings: Iterable[Holding]) -> None:
        """Check that every page is accounted for exactly once, given what the running requests hold.

        Raises:
            AssertionError: something is wrong.
        """
        references: dict[int, int] = {}
        private: list[int] = []
        for holding in holdings:
            assert [node.page for node in holding.nodes] == holding.pages[: len(holding.nodes)]
            private += holding.pages[len(holding.nodes) :]
            for node in holding.nodes:
                references[id(node)] = references.get(id(node), 0) + 1
        nodes = self._cached_nodes()
        assert all(node.references == references.get(id(node), 0) for node in nodes), "reference counts"
        assert {id(node) for node in nodes if not node.references} == {id(node) for node in self._unheld}
        assert all(root.children for root in self._roots.values()), "an empty namespace is kept"
        owned = sorted([*self._free, *private, *(node.page for node in nodes)])
        assert owned == list(range(self.pages)), "a page is lost, or has two owners"
        assert self.index.cached_blocks() == len(nodes), "the prefix index shows another cache"

    def _cached_nodes(self) -> list[Node]:
        pending = list(self._roots.values())
        nodes: list[Node] = []
        while pending:
            node = pending.pop()
            nodes += node.children.values()
            pending += node.children.values()
        return nodes

    def _root(self, namespace: str) -> Node:
        root = self._roots.get(namespace)
        if root is None:
            root = self._roots[namespace] = Node(-1, b"", None, (), -1, namespace, references=1)
        return root

    def _child(self, parent: Node, key: bytes, chain: Sequence[BlockHash], place: int, holding: Holding) -> Node:
        """Return the page that continues another one with these tokens; a new one where there is none."""
        node = parent.children.get(key)
        if node is None:
            node = Node(holding.pages[place], key, parent, chain, place, holding.namespace)
            parent.children[key] = node
        elif not node.references:
            del self._unheld[node]
        return node

    def _evict(self, pages: int) -> None:
        """Drop the least recently used pages; neighbours of one prompt are reported as one run."""
        first: Node | None = None
        last: Node | None = None
        for _ in range(pages):
            node, _nothing = self._unheld.popitem(last=False)
            parent = node.parent
            assert parent is not None, "a root is never evicted"
            assert not node.children, "a page is evicted before those that continue it"
            del parent.children[node.key]
            if not parent.children and parent.parent is None:
                del self._roots[node.namespace]
            self._free.append(node.page)
            if first is None or node is not first.parent or node.chain is not first.chain:
                self._report_evicted(first, last)
                last = node
            first = node
        self._report_evicted(first, last)
        self.evicted_pages += pages

    def _report_evicted(self, first: Node | None, last: Node | None) -> None:
        if first is not None and last is not None:
            self.index.evicted(first.chain, start=first.place, end=last.place + 1, namespace=first.namespace)
