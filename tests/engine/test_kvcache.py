"""The prefix cache against a plain model of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from attrs import define, field
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from fairprefix.core.prefixes import PrefixIndex, chain_hashes
from fairprefix.core.request import BlockHash, Request
from fairprefix.gpu_ref_engine.job import as_data
from fairprefix.gpu_ref_engine.kvcache import Holding, KVCache

PAGES, PAGE = 9, 2
Prefix = tuple[int, ...]
STORIES = ((0,) * 11, (0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1), (1, 0) * 5)
PROMPTS = st.builds(lambda story, end: story[:end], st.sampled_from(STORIES), st.integers(1, 11))
"""Few different ones: requests meet each other's pages."""
NAMESPACES = st.sampled_from(["", "salt"])


@define(eq=False)
class Run:
    """A request as the plain model sees it."""

    tokens: Prefix
    namespace: str
    holding: Holding
    computed: int
    held: list[tuple[str, Prefix]] = field(factory=list)


class CacheAgainstModel(RuleBasedStateMachine):
    """Match, hold, grow, share, release and clear, in any order.

    The model knows a cached page by everything up to its end, and keeps a list of those that nobody holds.
    """

    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.cache = KVCache(PAGES, PAGE, PrefixIndex(PAGE))
        self.live: list[Run] = []
        self.holders: dict[tuple[str, Prefix], int] = {}
        self.unheld: list[tuple[str, Prefix]] = []
        self.watched = 0

    # The plain model.

    def matched(self, tokens: Prefix, namespace: str) -> list[tuple[str, Prefix]]:
        """Return the cached pages of a prompt whose last token is left over."""
        found = []
        for end in range(PAGE, len(tokens), PAGE):
            if (namespace, tokens[:end]) not in self.holders:
                break
            found.append((namespace, tokens[:end]))
        return found

    def make_room(self, pages: int) -> None:
        """Drop the page that was let go of first, until so many are free."""
        while pages > PAGES - len(self.holders) - self.private():
            del self.holders[self.unheld.pop(0)]

    def private(self) -> int:
        """Return how many pages belong to one request alone."""
        return sum(len(run.holding.pages) - len(run.held) for run in self.live)

    def cache_pages(self, run: Run, tokens: Prefix, computed: int) -> None:
        """Cache the full pages of a request."""
        for end in range((len(run.held) + 1) * PAGE, computed + 1, PAGE):
            key = (run.namespace, tokens[:end])
            if key in self.unheld:
                self.unheld.remove(key)
            self.holders[key] = self.holders.get(key, 0) + 1
            run.held.append(key)

    # What happens.

    @rule(target=runs, tokens=PROMPTS, namespace=NAMESPACES)
    def start(self, tokens: Prefix, namespace: str) -> Run | None:
        """Start a request if it fits."""
        match = self.cache.match(as_data(tokens), namespace)
        expected = self.matched(tokens, namespace)
        assert len(match.nodes) == len(expected)
        assert match.revived == sum(key in self.unheld for key in expected)
        more = -(-len(tokens) // PAGE) - len(expected)
        if more + match.revived > self.cache.available:
            return None
        for key in expected:
            self.holders[key] += 1
            if key in self.unheld:
                self.unheld.remove(key)
        self.make_room(more)
        run = Run(tokens, namespace, self.cache.hold(match, more, namespace), len(expected) * PAGE, expected)
        self.live.append(run)
        return run

    @rule(run=runs, tokens=st.integers(1, 5))
    def compute(self, run: Run | None, tokens: int) -> None:
        """Compute part of a prompt, and share its full pages."""
        if run is not None and run in self.live:
            run.computed = min(run.computed + tokens, len(run.tokens))
            chain = chain_hashes(run.tokens, PAGE)
            self.cache.share(run.holding, chain, as_data(run.tokens), run.computed)
            self.cache_pages(run, run.tokens, run.computed)

    @rule(run=runs)
    def grow(self, run: Run | None) -> None:
        """Give a request one more page if there is one."""
        if run is not None and run in self.live and self.cache.available:
            self.make_room(1)
            self.cache.grow(run.holding, 1)

    @rule(run=consumes(runs), output=PROMPTS)
    def release(self, run: Run | None, output: Prefix) -> None:
        """End a request that has produced something."""
        if run is None or run not in self.live:
            return
        tokens = run.tokens + output
        room = len(run.holding.pages) * PAGE
        computed = min(len(tokens), room) if run.computed == len(run.tokens) else run.computed
        self.live.remove(run)
        self.cache_pages(run, tokens, computed)
        self.cache.release(run.holding, as_data(tokens), computed)
        for key in reversed(run.held):
            self.holders[key] -= 1
            if not self.holders[key]:
                self.unheld.append(key)

    @rule(tokens=PROMPTS, namespace=NAMESPACES)
    def wait(self, tokens: Prefix, namespace: str) -> None:
        """Have the prefix index follow one more prompt: it must keep up with everything from now on."""
        self.watched += 1
        findable = chain_hashes(tokens, PAGE)[: (len(tokens) - 1) // PAGE]
        matched = self.cache.index.watch(Request(str(self.watched), "c", len(tokens), 1, findable, namespace))
        assert matched == len(self.matched(tokens, namespace)) * PAGE

    @precondition(lambda self: self.unheld)
    @rule()
    def clear(self) -> None:
        """Forget what nobody holds."""
        self.cache.clear()
        for key in self.unheld:
            del self.holders[key]
        self.unheld.clear()

    @invariant()
    def agree(self) -> None:
        """Every page has one owner, the order of eviction is the model's, and the index shows this cache."""
        self.cache.check_integrity(run.holding for run in self.live)
        self.cache.index.validate()
        assert self.cache.evictable == len(self.unheld)
        assert self.cache.free == PAGES - len(self.holders) - self.private()
        order = [self.path(node) for node in self.cache._unheld]
        assert order == self.unheld

    @staticmethod
    def path(node: object) -> tuple[str, Prefix]:
        """Return a cached page as the model knows it."""
        keys: list[bytes] = []
        namespace: str = node.namespace  # type: ignore[attr-defined]
        while node.parent is not None:  # type: ignore[attr-defined]
            keys.insert(0, node.key)  # type: ignore[attr-defined]
            node = node.parent  # type: ignore[attr-defined]
        data = b"".join(keys)
        return namespace, tuple(data[place] for place in range(0, len(data), 4))


TestCacheAgainstModel = CacheAgainstModel.TestCase


def letters(text: str) -> bytes:
    """Return a prompt of one token a letter."""
    return as_data([ord(letter) for letter in text])


def cache_with(*prompts: str, pages: int = 8) -> tuple[KVCache, list[Holding]]:
    """Return a cache in which these prompts (one letter a token, pages of 2) are computed and held."""
    cache = KVCache(pages, 2, PrefixIndex(2))
    holdings = []
    for prompt in prompts:
        data = letters(prompt)
        match = cache.match(data)
        holding = cache.hold(match, cache.pages_for(len(prompt)) - len(match.nodes))
        cache.share(holding, chain_hashes(data, 2), data, len(prompt))
        holdings.append(holding)
    return cache, holdings


def test_two_requests_that_computed_the_same_page_end_up_with_one() -> None:
    """Where a page was computed twice, one copy is kept and the other one is free again."""
    cache = KVCache(8, 2, PrefixIndex(2))
    data = letters("abcde")
    chain = chain_hashes(data, 2)
    first, second = (cache.hold(cache.match(data), 3) for _ in range(2))
    assert not cache.share(first, chain, data, 4)
    assert cache.share(second, chain, data, 4)
    assert first.pages[:2] == second.pages[:2]
    assert cache.free == 4
    cache.check_integrity([first, second])


def test_a_page_that_nobody_held_is_held_again_by_whoever_computes_the_same() -> None:
    """A page that was let go of meanwhile may not be evicted under the request that computed it as well."""
    cache = KVCache(8, 2, PrefixIndex(2))
    data = letters("abcde")
    chain = chain_hashes(data, 2)
    first, second = (cache.hold(cache.match(data), 3) for _ in range(2))
    cache.share(first, chain, data, 4)
    cache.release(first)
    cache.share(second, chain, data, 4)
    cache.check_integrity([second])
    assert cache.evictable == 0


def test_a_held_page_is_never_evicted() -> None:
    """What a running request shares stays, however much room others want."""
    cache, (held, idle) = cache_with("abcde", "fghij")
    cache.release(idle)
    cache.hold(cache.match(letters("klmnopqrs")), 5)
    assert len(cache.match(letters("abcde")).nodes) == 2
    assert len(cache.match(letters("fghij")).nodes) == 0
    assert cache.available == 0
    assert held.pages


def test_one_run_is_reported_when_the_pages_of_a_prompt_are_evicted_together() -> None:
    """Evicting a prompt of many pages is one event of the prefix index, not one for each page."""
    cache, (only,) = cache_with("abcdefghi")
    events: list[tuple[int, int | None]] = []
    evicted = cache.index.evicted

    def note(blocks: Sequence[BlockHash], *, start: int = 0, end: int | None = None, namespace: str = "") -> None:
        events.append((start, end))
        evicted(blocks, start=start, end=end, namespace=namespace)

    cache.index.evicted = note  # type: ignore[method-assign]
    cache.release(only)
    cache.clear()
    assert events == [(0, 4)]
    assert cache.evicted_pages == 4


def test_a_prompt_is_never_cached_to_its_last_token() -> None:
    """One token at least is computed, since the next one is sampled after it."""
    cache, (only,) = cache_with("abcd")
    cache.release(only)
    assert len(cache.match(letters("abcd")).nodes) == 1
    assert len(cache.match(letters("abcde")).nodes) == 2


def test_prompts_that_hash_alike_are_told_apart() -> None:
    """Pages are found by their tokens: a collision of hashes cannot hand out another prompt's memory."""
    cache = KVCache(8, 2, PrefixIndex(2))
    data, chain = letters("abc"), (7,)
    cache.share(cache.hold(cache.match(data), 2), chain, data, 2)
    assert not cache.match(letters("xyc")).nodes
    assert cache.match(data).nodes


@pytest.mark.parametrize(("pages", "page_size"), [(0, 1), (1, 0)])
def test_memory_of_nothing_is_refused(pages: int, page_size: int) -> None:
    """A cache without pages, or pages without tokens, are configuration errors."""
    with pytest.raises(ValueError, match="expected an integer >= 1"):
        KVCache(pages, page_size, PrefixIndex(1))
