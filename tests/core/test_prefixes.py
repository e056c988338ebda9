"""How much of each waiting prompt is cached: the index against a plain set of blocks, and the view that asks."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import hypothesis.strategies as st
import pytest
from hypothesis import given
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from fairprefix.core.errors import ConfigError, HostError
from fairprefix.core.prefixes import AskedPrefixes, NoPrefixes, PrefixIndex, chain_hashes
from fairprefix.core.request import Request
from tests.property.machine import NAMESPACES, machine_settings, pick
from tests.support import arrive, dlpm, lpm, offered, planned, request

PATHS = tuple(
    tuple(int(name[: depth + 1]) for depth in range(len(name)))
    for name in ("1" * trunk + twig for trunk in range(1, 7) for twig in ("", "2", "22", "221", "2222"))
)
"""Chains of blocks: a trunk from which a twig grows at every place."""
RUNS = st.integers(0, 7).flatmap(lambda start: st.tuples(st.just(start), st.none() | st.integers(start, 10)))
"""Where a run starts in its chain, and where it ends; None: with the chain."""
CHAIN = [16575463538019919403, 6021645760266733890]
"""The hashes of 1, 2 and 3, 4 in blocks of two."""
TOKENS = st.lists(st.integers(0, 2**31 - 1), max_size=40)


@given(tokens=TOKENS, block_size=st.integers(1, 8))
def test_a_list_and_its_bytes_have_the_same_hashes(tokens: list[int], block_size: int) -> None:
    """Token ids and the same ids as little-endian 32-bit integers give the same hashes."""
    packed = b"".join(token.to_bytes(4, "little") for token in tokens)
    assert packed == array("i", tokens).tobytes()
    assert chain_hashes(tokens, block_size) == chain_hashes(packed, block_size)


@given(tokens=TOKENS, more=TOKENS, block_size=st.integers(1, 8))
def test_a_longer_prompt_keeps_the_hashes_of_its_beginning(
    tokens: list[int], more: list[int], block_size: int
) -> None:
    """The hashes of a prompt begin with those of each of its prefixes."""
    short, long = chain_hashes(tokens, block_size), chain_hashes(tokens + more, block_size)
    assert long[: len(short)] == short


@given(tokens=TOKENS, block_size=st.integers(1, 8))
def test_a_partial_last_block_is_ignored(tokens: list[int], block_size: int) -> None:
    """There is one hash for each full block and none for the rest."""
    hashes = chain_hashes(tokens, block_size)
    assert len(hashes) == len(tokens) // block_size
    assert hashes == chain_hashes(tokens[: len(hashes) * block_size], block_size)
    assert all(0 <= value < 2**64 for value in hashes)


def test_a_block_is_told_from_the_same_block_after_another() -> None:
    """Hashes are cumulative: equal tokens after different beginnings have different hashes."""
    first, second = chain_hashes([1, 2, 7, 7], 2), chain_hashes([3, 4, 7, 7], 2)
    assert len({*first, *second}) == 4
    assert len(set(chain_hashes([7] * 8, 2))) == 4


def test_a_block_size_below_one_is_refused() -> None:
    """Blocks have at least one token."""
    with pytest.raises(ConfigError, match="block_size = 0 is not valid"):
        chain_hashes([1], 0)
    with pytest.raises(ConfigError, match="block_size = 0 is not valid"):
        PrefixIndex(0)


@pytest.fixture(autouse=True, scope="module")
def few_at_once() -> Iterator[None]:
    """A group of three is large."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fairprefix.core.radix._AT_ONCE", 2)
        yield


class IndexMachine(RuleBasedStateMachine):
    """The index, and the plain set of blocks that it stands for."""

    def __init__(self) -> None:
        super().__init__()
        self.index = PrefixIndex(2, per_look=2)
        self.cache: set[tuple[str, int]] = set()
        self.followed: dict[str, Request] = {}
        self.reported: dict[str, int] = {}
        self.number = 0

    def tokens(self, request: Request) -> int:
        """Return the cached tokens of a request, by the plain set."""
        matched = 0
        for block in request.blocks:
            if (request.namespace, int(block)) not in self.cache:
                break
            matched += 2
        return min(matched, request.input_tokens - 1)

    @rule(path=st.sampled_from((*PATHS, ())), extra=st.integers(0, 2), namespace=st.sampled_from(NAMESPACES))
    def watch(self, path: tuple[int, ...], extra: int, namespace: str) -> None:
        """A request is followed from now on."""
        self.number += 1
        request = Request(f"r{self.number}", "a", max(1, 2 * len(path) + extra), 1, path, namespace)
        assert self.index.watch(request) == self.tokens(request)
        self.followed[request.id] = request
        self.reported[request.id] = self.tokens(request)

    @precondition(lambda self: self.followed)
    @rule(which=pick)
    def forget(self, which: int) -> None:
        """A request is followed no longer."""
        id = list(self.followed)[which % len(self.followed)]
        self.index.forget(id)
        del self.followed[id], self.reported[id]

    @rule(path=st.sampled_from(PATHS), run=RUNS, namespace=st.sampled_from(NAMESPACES))
    def cached(self, path: tuple[int, ...], run: tuple[int, int | None], namespace: str) -> None:
        """A run of blocks becomes cached, also with a hole before it."""
        start, end = run[0], run[1] and min(run[1], len(path))
        self.index.cached(path, start=start, end=end, namespace=namespace)
        self.cache |= {(namespace, block) for block in path[start:end]}

    @rule(path=st.sampled_from(PATHS), run=RUNS, namespace=st.sampled_from(NAMESPACES))
    def evicted(self, path: tuple[int, ...], run: tuple[int, int | None], namespace: str) -> None:
        """A run of blocks is evicted, also out of the middle of longer chains."""
        start, end = run[0], run[1] and min(run[1], len(path))
        self.index.evicted(path, start=start, end=end, namespace=namespace)
        self.cache -= {(namespace, block) for block in path[start:end]}

    @rule()
    def hear(self) -> None:
        """What is reported brings everything that was reported before up to date; then there is no more."""
        while self.index._gained.ids() or self.index._lost.ids():
            changes = self.index.changes()
            assert len(changes) <= 2
            self.reported |= dict(changes)
        assert self.reported == {id: self.tokens(request) for id, request in self.followed.items()}
        assert self.index.changes() == []

    @precondition(lambda self: self.followed)
    @rule(which=pick)
    def confirm(self, which: int) -> None:
        """Whoever is about to be offered is known exactly, whatever has not been heard of yet."""
        id = list(self.followed)[which % len(self.followed)]
        self.reported[id] = self.index.confirm(id)
        assert self.reported[id] == self.tokens(self.followed[id])

    @invariant()
    def agrees(self) -> None:
        """The index holds the same blocks as the plain set."""
        self.index.validate()
        assert self.index.cached_blocks() == len(self.cache)
        for namespace in NAMESPACES:
            for path in PATHS:
                cached = [(namespace, block) in self.cache for block in path]
                assert self.index.matched_blocks(path, namespace) == [*cached, False].index(False)

    def teardown(self) -> None:
        """When nothing is followed and nothing is cached, nothing is left."""
        for id in self.followed:
            self.index.forget(id)
        for namespace in NAMESPACES:
            for path in PATHS:
                self.index.evicted(path, namespace=namespace)
        assert self.index.cached_blocks() == 0  # a look: what was reported last is done by now
        assert not self.index._trees
        assert not self.index._followers
        assert self.index.changes() == []


def test_the_index_is_a_set_of_blocks() -> None:
    """Under any runs of cached and evicted blocks the index matches like a plain set that is searched afresh."""
    run_state_machine_as_test(IndexMachine, settings=machine_settings(30))


def test_one_token_is_always_left_to_compute() -> None:
    """A prompt that is cached as a whole still computes its last token."""
    index = PrefixIndex(4)
    index.cached((1, 2))
    assert index.watch(Request("r1", "a", 8, 1, (1, 2))) == 7
    assert index.watch(Request("r2", "a", 9, 1, (1, 2))) == 8


def test_hashes_may_be_bytes() -> None:
    """A host may name its blocks by bytes as well as by integers."""
    index = PrefixIndex(4)
    index.cached((b"x", b"y"))
    assert index.watch(Request("r1", "a", 20, 1, (b"x", b"y", b"z"))) == 8
    assert index.matched_blocks((b"x", b"y", b"z")) == 2
    assert index.matched_blocks((b"x", b"y", b"z"), "other") == 0


def test_an_event_costs_only_what_it_changes() -> None:
    """Caching a block looks at the requests that wait for that very block, however many wait in all."""
    index = PrefixIndex(1)
    for n in range(1000):
        index.watch(Request(f"r{n}", "a", 4, 1, (n, -n - 1)))
    index.cached((7,))
    assert index.changes() == [("r7", 1)]
    index.evicted((7,))
    assert index.changes() == [("r7", 0)]


def test_an_event_that_concerns_many_is_heard_of_bit_by_bit() -> None:
    """However many requests wait for a block, each look brings so many of them up to date, and no more."""
    index = PrefixIndex(1, per_look=64)
    for n in range(1000):
        index.watch(Request(f"r{n}", "a", 4, 1, (7, -n - 1)))
    index.cached((7,))
    looks = [index.changes() for _ in range(17)]
    assert [len(look) for look in looks] == [64] * 15 + [40, 0]
    assert {id for look in looks for id, _ in look} == {f"r{n}" for n in range(1000)}
    index.evicted((7,))
    assert index.confirm("r500") == 0
    assert len(index.changes()) == 64


def test_nothing_is_known_without_a_view() -> None:
    """Without a view of the cache nothing is taken to be cached."""
    view, request = NoPrefixes(), Request("r1", "a", 4, 1, (1,))
    assert view.watch(request) == 0
    assert view.confirm("r1") == 0
    assert list(view.changes()) == []
    view.forget("r1")


class Cache:
    """A cache that can only be asked, and counts the questions."""

    def __init__(self) -> None:
        self.tokens: dict[str, int] = {}
        self.asked: list[str] = []

    def __call__(self, request: Request) -> int:
        """Answer."""
        self.asked.append(request.id)
        return self.tokens.get(request.id, 0)


def test_each_request_is_asked_for_once_a_pass_at_most() -> None:
    """Between two refreshes a request is asked for when it comes, and never again."""
    cache = Cache()
    view = AskedPrefixes(cache, per_pass=2)
    request = Request("r1", "a", 9, 1)
    assert view.watch(request) == 0
    cache.tokens["r1"] = 5
    assert view.confirm("r1") == 0
    assert view.changes() == []
    view.refresh()
    assert view.changes() == [("r1", 5)]
    assert view.confirm("r1") == 5
    assert view.changes() == []
    assert cache.asked == ["r1", "r1"]
    view.forget("r1")
    view.refresh()
    assert view.changes() == []


def test_all_are_asked_for_in_turn() -> None:
    """Each refresh pays for `per_pass` questions; those that were not asked for the longest are next."""
    cache = Cache()
    view = AskedPrefixes(cache, per_pass=2)
    for n in range(5):
        view.watch(Request(f"r{n}", "a", 9, 1))
    cache.asked.clear()
    for _ in range(5):
        view.refresh()
        view.changes()
    assert cache.asked == [f"r{n % 5}" for n in range(10)]


def test_a_view_that_only_asks_for_the_head_may_have_no_budget() -> None:
    """With per_pass = 0 only candidates are asked for."""
    cache = Cache()
    view = AskedPrefixes(cache, per_pass=0)
    view.watch(Request("r1", "a", 9, 1))
    view.refresh()
    assert view.changes() == []
    assert view.confirm("r1") == 0
    assert cache.asked == ["r1", "r1"]
    with pytest.raises(ConfigError, match="per_pass = -1 is not valid"):
        AskedPrefixes(cache, per_pass=-1)


@pytest.mark.parametrize("answer", [-1, 4, 5])
def test_an_impossible_answer_is_an_error(answer: int) -> None:
    """A cache cannot hold less than nothing of a prompt, nor all of it."""
    view = AskedPrefixes(lambda _: answer)
    with pytest.raises(
        HostError, match=f"answered {answer} cached tokens for request 'r1' of 4 tokens: expected 0 to 3"
    ):
        view.watch(Request("r1", "a", 4, 1))


def test_a_candidate_is_confirmed_before_it_is_offered() -> None:
    """Where the cache can only be asked, a candidate whose match has shrunk makes way for the next."""
    for policy_of in (lpm, dlpm):
        cache = Cache()
        view = AskedPrefixes(cache, per_pass=0)
        cache.tokens |= {"a1": 3, "a2": 2}
        policy = policy_of(view)
        arrive(policy, "a1", "a2", "a3", prompt=9)
        assert planned(policy, 3) == ["a1", "a2", "a3"]
        cache.tokens["a1"] = 0
        view.refresh()
        assert planned(policy, 3) == ["a2", "a1", "a3"]
        policy.validate()


def test_a_grown_match_is_found_within_the_budget() -> None:
    """A request whose match has grown overtakes the others once it has been asked for in its turn."""
    cache = Cache()
    view = AskedPrefixes(cache, per_pass=1)
    policy = lpm(view)
    arrive(policy, "a1", "a2", "a3", prompt=9)
    cache.tokens["a3"] = 4
    heads = []
    for _ in range(3):
        view.refresh()
        heads.append(offered(policy))
    assert heads == ["a1", "a1", "a3"]


def test_block_by_block_is_the_same_as_a_run() -> None:
    """Cached from the first on, evicted from the last on; nothing at all is no report."""
    index, chain = PrefixIndex(1), (1, 2, 3, 4, 5)
    for place in range(5):
        index.cached(chain, start=place, end=place + 1)
    assert index.matched_blocks(chain) == 5
    for place in (4, 3, 2):
        index.evicted(chain, start=place, end=place + 1)
    index.evicted(chain, start=2, end=2)
    index.cached(chain, start=2, end=2)
    assert index.matched_blocks(chain) == index.cached_blocks() == 2


def test_only_what_belongs_together_is_joined() -> None:
    """The same chain elsewhere, or something else that happens to it, is another run."""
    chain = (1, 2, 3, 4)
    index = PrefixIndex(1)
    index.cached(chain, end=2, namespace="u")
    index.cached(chain, start=2, namespace="v")
    assert (index.matched_blocks(chain, "u"), index.matched_blocks(chain, "v")) == (2, 0)
    index.cached(chain, namespace="u")
    index.cached(chain, namespace="v")
    index.evicted(chain, start=2, namespace="u")
    index.evicted(chain, end=2, namespace="v")
    assert (index.matched_blocks(chain, "u"), index.matched_blocks(chain, "v")) == (2, 0)
    index.cached(chain, start=2, namespace="u")
    index.evicted(chain, end=2, namespace="u")
    assert index.matched_blocks(chain, "u") == 0
    index.cached(chain, end=2, namespace="u")
    assert index.matched_blocks(chain, "u") == 4


def test_another_chain_is_not_joined() -> None:
    """Though it is evicted up to the very place from which on the chain before it was."""
    index, first, second = PrefixIndex(1), (1, 2, 3, 4), (5, 6, 7, 8)
    index.cached(first)
    index.cached(second)
    index.evicted(first, start=2)
    index.evicted(second, end=2)
    assert (index.matched_blocks(first), index.matched_blocks(second), index.cached_blocks()) == (2, 0, 4)


def test_who_has_gained_comes_before_who_has_lost() -> None:
    """Whoever has lost stands too far ahead, where it is found out; whoever has gained is found by nobody else."""
    index = PrefixIndex(1, per_look=2)
    index.cached((1, 2, 3))
    for id, blocks in {"l1": (1, 2, 3, 4), "l2": (1, 2, 3, 5), "g1": (6, 7), "g2": (6, 8)}.items():
        index.watch(Request(id, "a", 9, 1, blocks))
    index.evicted((1, 2, 3), start=1)
    index.cached((6,))
    index.evicted((1,))
    assert index.changes() == [("g1", 1), ("g2", 1)]
    assert index.changes() == [("l1", 0), ("l2", 0)]
    assert index.changes() == []


def test_a_large_group_that_was_set_aside_is_heard_of_in_the_order_of_arrival() -> None:
    """It is taken up a few at a time; whoever has left meanwhile, or was asked for, is not told of again."""
    index = PrefixIndex(1, per_look=1)
    index.cached((1,))
    for n in range(9):
        index.watch(Request(f"r{n}", "a", 9, 1, (1, -n - 1)))
    index.evicted((1,))
    assert index.changes() == [("r0", 0)]
    index.forget("r1")
    index.forget("r5")
    assert index.confirm("r6") == 0
    heard = [change for _ in range(9) for change in index.changes()]
    assert heard == [("r2", 0), ("r3", 0), ("r4", 0), ("r7", 0), ("r8", 0)]
    index.validate()


def test_the_search_for_a_better_candidate_ends() -> None:
    """When all that waits has lost what it had cached, somebody is offered after a few looks all the same."""
    index = PrefixIndex(1, per_look=1)
    policy = lpm(index)
    index.cached((1, 2, 3))
    for n in range(100):
        policy.arrive(Request(f"r{n}", "a", 9, 1, (1, 2, 3, -n - 1)))
    index.evicted((1, 2, 3))
    offered = policy.peek()
    assert offered is not None
    known = [entry.match for entry in policy._entries.values()]
    assert known.count(0) <= 1 + 8
    assert policy._entries[offered.id].match == 0
    policy.canonical()
    assert {entry.match for entry in policy._entries.values()} == {0}


def test_the_hash_of_a_chain_is_the_same_everywhere() -> None:
    """Hosts on other machines, and histories of last year, know blocks by the same numbers."""
    assert list(chain_hashes([1, 2, 3, 4, 5], 2)) == CHAIN
    assert list(chain_hashes(array("i", [1, 2, 3, 4]).tobytes(), 2)) == CHAIN


def test_a_prompt_of_one_token_has_nothing_cached() -> None:
    """One token is always computed: a host that says otherwise of a prompt of one is wrong."""
    asked = AskedPrefixes(lambda _request: 1)
    with pytest.raises(HostError):
        asked.watch(request("a1", prompt=1))
    assert asked.watch(request("a2", prompt=2)) == 1


def test_nobody_is_asked_for_before_the_first_refresh_nor_twice_between_two() -> None:
    """A request is asked for when it comes, and after each refresh in turn, sixteen of them unless said."""
    questions: list[str] = []

    def ask(asked: Request) -> int:
        questions.append(asked.id)
        return 0

    view = AskedPrefixes(ask)
    for n in range(40):
        view.watch(request(f"a{n}", prompt=3))
    assert len(questions) == 40
    assert list(view.changes()) == []
    view.confirm("a0")
    assert len(questions) == 40
    for _ in range(3):
        questions.clear()
        view.refresh()
        assert list(view.changes()) == []
        assert list(view.changes()) == []
        assert len(questions) == 16
    questions.clear()
    view.refresh()
    view.confirm("a0")
    view.confirm("a0")
    assert questions == ["a0"]


def test_what_comes_and_goes_between_two_looks_is_no_change() -> None:
    """Nothing is reported of a request whose match is what it was, and it hears of the next event."""
    index = PrefixIndex(1)
    index.watch(Request("r1", "a", 4, 1, (7, 8)))
    index.cached((7,))
    index.evicted((7,))
    assert index.changes() == []
    index.cached((7, 8))
    assert index.changes() == [("r1", 2)]
