"""What is cached where: the approximate and the exact index over block hashes."""

from __future__ import annotations

import pytest

from fairprefix.core.errors import HostError
from fairprefix.core.router_catalog import make_router
from fairprefix.core.router_config import RouterConfig
from fairprefix.core.run_index import ApproximateIndex
from fairprefix.core.worker_index import ExactIndex
from fairprefix.core.workers import Workers, slots_of

ALL = 0b111


def approximate(capacity: int = 100) -> ApproximateIndex:
    """Return an index of three workers."""
    index = ApproximateIndex()
    for slot in range(3):
        index.open(slot, capacity)
    return index


def exact() -> ExactIndex:
    """Return an index of three workers."""
    index = ExactIndex()
    for slot in range(3):
        index.open(slot, 2)
    return index


def test_the_longest_match_and_who_has_it_are_found() -> None:
    """Of workers with different parts of a prompt only those with the most count."""
    index = approximate()
    index.sent(0, (1, 2, 3))
    index.sent(1, (1, 2))
    index.sent(2, (1, 9))
    assert index.match((1, 2, 3, 4), "", ALL) == (3, 0b001)
    assert index.match((1, 2), "", ALL) == (2, 0b011)
    assert index.match((1, 5), "", ALL) == (1, 0b111)
    index.validate()


def test_only_workers_in_question_are_looked_at() -> None:
    """The longest match among those that may be chosen, whatever others have."""
    index = approximate()
    index.sent(0, (1, 2, 3))
    index.sent(1, (1,))
    assert index.match((1, 2, 3), "", 0b110) == (1, 0b010)
    assert index.match((7,), "", 0b110) == (0, 0b110), "nothing matches: everybody is as good"
    assert index.match((), "", ALL) == (0, ALL)
    assert index.matched_blocks(1, (1, 2)) == 1


def test_a_block_in_the_middle_that_is_gone_ends_the_match() -> None:
    """What comes after a hole is of no use."""
    index = exact()
    index.stored(0, (1, 2, 3))
    index.removed(0, (2, 8))
    assert index.match((1, 2, 3), "", ALL) == (1, 0b001)
    index.stored(0, (2,))
    index.stored(1, (1,))
    index.removed(1, (1,))
    assert index.match((1, 2, 3), "", ALL) == (3, 0b001)
    index.validate()


def test_beyond_the_capacity_the_least_recently_used_blocks_go_first() -> None:
    """What was sent again stays; of a prompt the end goes before the beginning."""
    index = approximate(capacity=4)
    index.sent(0, (1, 2))
    index.sent(0, (5, 6))
    index.sent(0, (1, 2))
    index.sent(0, (8,))
    assert [index.matched_blocks(0, path) for path in ((1, 2), (5, 6), (8,))] == [2, 1, 1]
    index.validate()


def test_of_a_prompt_longer_than_the_cache_the_beginning_stays() -> None:
    """No more than the capacity is ever held."""
    index = approximate(capacity=3)
    index.sent(0, (1, 2, 3, 4, 5))
    assert index.matched_blocks(0, (1, 2, 3, 4, 5)) == 3
    assert (index.blocks_of(0), index.capacity_of(0)) == (3, 3)


def test_namespaces_do_not_share() -> None:
    """The same block under another salt is another block."""
    index = approximate()
    index.sent(0, (1, 2), "salt")
    assert index.match((1, 2), "", ALL) == (0, ALL)
    assert index.match((1, 2), "salt", ALL) == (2, 0b001)
    index.sent(0, (1,))
    assert len(index) == 3
    index.validate()


def test_hashes_may_be_bytes() -> None:
    """Whatever an engine's hashes are made of."""
    index = exact()
    index.stored(2, (b"a", b"b"))
    assert index.match((b"a", b"b", b"c"), "", ALL) == (2, 0b100)


def test_a_worker_is_forgotten_with_all_that_it_held() -> None:
    """What others hold as well stays, and the slot begins empty again."""
    index = approximate()
    index.sent(0, (1, 2))
    index.sent(1, (1,))
    index.close(0)
    assert len(index) == 1
    assert index.match((1, 2), "", ALL) == (1, 0b010)
    index.open(0, 5)
    assert index.blocks_of(0) == 0
    index.validate()


def test_neighbouring_blocks_share_one_mask() -> None:
    """Memory is one number per run of blocks with the same holders, not one per block."""
    index = exact()
    path = tuple(range(100))
    for slot in (2, 1):
        index.stored(slot, path)
    index.stored(1, path)
    assert len({id(index._holders[block]) for block in path}) == 1


def test_a_prompt_is_one_run_until_another_one_parts_from_it() -> None:
    """Memory and time are by runs, not by blocks; the ages of both parts stay what they were."""
    index = approximate(capacity=8)
    index.sent(0, (1, 2, 3, 4, 5, 6))
    index.sent(1, (1, 2, 3, 4, 5, 6))
    assert len(index._runs) == 1
    index.sent(0, (1, 2, 9))
    assert [run.keys for run in index._runs.values()] == [(1, 2), (3, 4, 5, 6), (9,)]
    assert list(index.next_evicted(0)) == [6, 5, 4, 3, 9, 2, 1]
    assert list(index.next_evicted(1)) == [6, 5, 4, 3, 2, 1]
    assert index.match((1, 2, 3, 4, 5, 7), "", ALL) == (5, 0b011)
    assert index.match((1, 2, 9), "", ALL) == (3, 0b001)
    index.sent(0, (20, 21, 22))
    assert list(index.next_evicted(0)) == [4, 3, 9, 2, 1, 22, 21, 20]
    index.validate()


def test_a_block_in_the_midst_of_a_chain_is_no_beginning() -> None:
    """Though a run begins with it, where two prompts part."""
    index = approximate()
    index.sent(0, (1, 2))
    index.sent(1, (1, 9))
    assert index.match((2,), "", ALL) == (0, ALL)


def test_prompts_part_after_any_number_of_blocks() -> None:
    """Runs of every length up to 20 are divided just there."""
    for length in range(1, 21):
        index = approximate()
        path = tuple(range(length))
        index.sent(0, path)
        for common in range(length):
            other = (*path[:common], *range(100 + common, 120))
            assert index.match(other, "", ALL)[0] == common, (length, common)


def test_what_is_not_out_of_date_stays() -> None:
    """Prompts that are sent again and again do not drive away others while there is room."""
    index = approximate()
    index.sent(0, (5, 6))
    for _ in range(1000):
        index.sent(0, (1, 2, 3))
    assert list(index.next_evicted(0)) == [6, 5, 3, 2, 1]
    index.validate()


def test_entries_that_are_out_of_date_do_not_pile_up() -> None:
    """A prompt that is sent again and again takes no more memory than once."""
    index = approximate()
    for _ in range(1000):
        index.sent(0, (1, 2, 3))
    assert len(index._held[0].ages) < 100
    index.validate()
    index.clear(0)
    index.sent(0, (5, 6))
    assert list(index.next_evicted(0)) == [6, 5]
    index.validate()


def test_what_is_no_chain_of_cumulative_hashes_does_no_harm() -> None:
    """A block that turns up after another beginning is not taken for the same thing, and nothing breaks."""
    index = approximate(capacity=3)
    index.sent(0, (1, 2))
    index.sent(0, (7, 1, 2))
    index.sent(0, (8, 7, 1))
    index.sent(1, (2, 1))
    assert index.match((7, 1), "", ALL)[0] <= 2
    index.validate()


def test_an_exact_index_hears_nothing_from_dispatches() -> None:
    """Only events count; a worker may hold more than was announced."""
    index = exact()
    index.sent(0, (1, 2))
    assert len(index) == 0
    index.stored(0, (1, 2, 3))
    index.validate()
    index.clear(0)
    assert len(index) == 0


def test_an_exact_index_survives_dump_and_load() -> None:
    """Blocks and capacities are the same afterwards; what was reported first is taken to be the oldest."""
    index = exact()
    index.stored(1, (1, 2), "salt")
    index.stored(1, (4,))
    other = ExactIndex()
    other.load(index.dump())
    assert other.canonical() == index.canonical()
    assert (list(other.next_evicted(1)), other.blocks_of(1)) == ([("salt", 1), ("salt", 2), 4], 3)
    assert other.capacity_of(1) == 2
    other.close(1)
    assert len(other) == 0
    other.validate()


def test_an_index_survives_dump_and_load() -> None:
    """Blocks, their order of use, and capacities are the same afterwards."""
    index = approximate(capacity=3)
    index.sent(1, (1, 2), "salt")
    index.sent(1, (4, 5))
    other = ApproximateIndex()
    other.load(index.dump())
    assert other.canonical() == index.canonical()
    other.validate()


def test_events_of_workers_reach_an_exact_index() -> None:
    """The router passes on what a worker has stored and removed, by the worker's name."""
    router = make_router(RouterConfig(router="least_loaded", index="exact"))
    router.worker_joined("u")
    router.stored("u", (1, 2))
    router.removed("u", (2,))
    assert router.index.matched_blocks(0, (1, 2)) == 1
    router.cleared("u")
    assert len(router.index) == 0


def test_events_are_about_one_namespace() -> None:
    """The router passes it on: what is stored and removed there is nothing elsewhere."""
    router = make_router(RouterConfig(router="least_loaded", index="exact"))
    router.worker_joined("u")
    router.stored("u", (1, 2), "salt")
    router.removed("u", (2,))
    assert [router.index.matched_blocks(0, (1, 2), name) for name in ("salt", "")] == [2, 0]
    router.removed("u", (2,), "salt")
    assert router.index.matched_blocks(0, (1, 2), "salt") == 1


def test_a_first_block_that_nobody_holds_is_no_match() -> None:
    """Everybody is as good then, also by exact knowledge."""
    index = exact()
    index.stored(0, (1,))
    assert index.match((7, 1), "", ALL) == (0, ALL)


def test_a_cleared_worker_begins_anew() -> None:
    """What it stores after that is known again, and nothing else."""
    index = exact()
    index.stored(0, (1, 2))
    index.clear(0)
    index.stored(0, (1,))
    assert index.match((1, 2), "", ALL) == (1, 0b001)
    index.validate()


def test_a_block_that_was_reported_before_does_not_hide_new_ones() -> None:
    """Workers report a prompt's blocks together, old and new ones."""
    index = exact()
    index.stored(0, (1,))
    index.stored(0, (1, 2, 3))
    assert index.matched_blocks(0, (1, 2, 3)) == 3
    index.validate()


def test_an_approximate_index_takes_no_events() -> None:
    """The error says what to set."""
    router = make_router(RouterConfig())
    router.worker_joined("u")
    with pytest.raises(HostError, match="index = 'exact'"):
        router.stored("u", (1,))
    with pytest.raises(HostError, match="index = 'exact'"):
        router.removed("u", (1,))


def test_a_slot_without_a_worker_is_free() -> None:
    """Sets of slots are read in ascending order, and a free slot is used again."""
    workers = Workers()
    for name in "abc":
        workers.join(name, 1, 1)
    workers.leave(workers.named("b"))
    assert slots_of(workers.usable) == (0, 2)
    assert (len(workers), "b" in workers, workers.occupied(1)) == (2, False, False)
    assert workers.join("d", 1, 1).slot == 1


def test_a_worker_that_is_back_is_as_if_it_had_never_been_away() -> None:
    """Nothing tells that it was suspended."""
    workers = Workers()
    worker = workers.join("a", 1, 1)
    before = workers.canonical()
    workers.suspend(worker)
    assert workers.canonical() != before
    workers.resume(worker)
    assert workers.canonical() == before


def test_a_worker_is_held_to_its_capacity_where_a_chain_ends_in_another_ones_beginning() -> None:
    """What does not continue as a chain is left out, and what is too much is evicted all the same."""
    index = ApproximateIndex()
    index.open(0, 10)
    index.open(1, 3)
    index.sent(0, (5, 6))
    index.sent(0, (1, 2))
    index.sent(1, (7, 8))
    index.sent(1, (1, 2, 5))
    assert index.blocks_of(1) <= 3
    assert index.match((1, 2), "", 1 << 1)[0] == 2
    index.validate()
