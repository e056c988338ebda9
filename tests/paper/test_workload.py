"""Workloads: the published shapes, functions of their seeds, with sharing that scaling keeps."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairprefix.core.errors import ConfigError
from fairprefix.sim.chains import Chain
from fairprefix.workload import (
    WORKLOADS,
    Call,
    Part,
    Program,
    Workload,
    WorkloadError,
    WorkloadSize,
    make_workload,
    scaled,
)
from fairprefix.workload.draws import Maker
from fairprefix.workload.kinds import DOCUMENT_TOKENS, Judge, TreeOfThoughts

SMALL = WorkloadSize(programs=4, rate=1.0)
COMMIT = 1
"""The call that has a prefix computed before a program forks."""


@pytest.mark.parametrize(("branches", "calls"), [(2, 30), (3, 120), (4, 340)])
def test_trees_have_as_many_calls_as_the_paper_counts(branches: int, calls: int) -> None:
    """Table 3: 30 requests a tree with two branches, 340 with four."""
    tree = TreeOfThoughts(branches).program(Maker("t"), "c", 0)
    assert len(tree.calls) == calls + COMMIT
    assert {call.output.tokens for call in tree.calls[1:]} == {256}


def test_a_thought_goes_on_from_all_thoughts_above_it() -> None:
    """A prompt is its parent's prompt and answer, and the next instruction."""
    tree = TreeOfThoughts(2).program(Maker("t"), "c", 0)
    for call in tree.calls[3:]:
        parent = tree.calls[call.after[0]]
        assert call.prompt[: len(parent.prompt) + 1] == (*parent.prompt, parent.output)


@pytest.mark.parametrize("dimensions", [2, 16])
def test_a_judge_merges_all_dimensions(dimensions: int) -> None:
    """The last call waits for every judgement and has all of them in its prompt."""
    calls = Judge(dimensions).program(Maker("t"), "c", 0).calls
    assert len(calls) == COMMIT + dimensions + 1
    assert calls[-1].after == tuple(range(1, dimensions + 1))
    assert [call.after for call in calls[:-1]] == [(), *[(0,)] * dimensions]  # once the article is computed
    assert {call.output for call in calls[1:-1]} <= set(calls[-1].prompt)


@pytest.mark.parametrize("name", WORKLOADS)
def test_the_same_seed_gives_the_same_workload(name: str) -> None:
    """And another seed another one."""
    size = WorkloadSize(programs=3, rate=1.0, clients=4)
    assert make_workload(name, size).programs == make_workload(name, size).programs
    assert make_workload(name, size).programs != make_workload(name, size, seed=1).programs


def test_misbehaving_clients_ask_for_more_by_more_calls_or_longer_prefixes() -> None:
    """S1 multiplies calls, S2 prompt tokens; the rate of programs stays (LongQA's is the rate itself)."""

    def work(name: str, client: str) -> tuple[int, int]:
        calls = [c for p in make_workload(name, WorkloadSize(programs=40, rate=1.0)).programs
                 if p.client == client for c in p.calls]  # fmt: skip
        return len(calls), sum(call.input_tokens for call in calls) // len(calls)

    for name, more_calls, longer in (
        ("S1@ToT", 11, 0.9), ("S2@ToT", 1, 4), ("S1@Judge", 4, 0.9), ("S2@Judge", 1, 1.1), ("S1@LongQA", 8, 0.8),
        ("S2@LongQA", 1, 1.6),
    ):  # fmt: skip
        (calls, length), (others, other_length) = work(name, "c0"), work(name, "c1")
        assert calls >= more_calls * others, name
        assert length >= longer * other_length, name


def test_documents_have_the_published_length_on_average() -> None:
    """LooGLE's prefix of 21,449 tokens, within a few percent over 105 documents."""
    workload = make_workload("LongQA", WorkloadSize(programs=400, rate=1.0))
    documents = {call.prompt[0].id: call.prompt[0].tokens for p in workload.programs for call in p.calls}
    assert len(documents) == 105
    assert sum(documents.values()) / len(documents) == pytest.approx(DOCUMENT_TOKENS, rel=0.08)


@pytest.mark.parametrize("cv", [0.5, 1.0, 2.0])
def test_arrivals_are_a_gamma_process(cv: float) -> None:
    """Mean and coefficient of variation of the gaps are those asked for."""
    times = list(Maker("t").arrivals(4.0, 20_000, cv=cv))
    gaps = [(after - before) / 1e9 for before, after in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert mean == pytest.approx(0.25, rel=0.06)
    assert deviation / mean == pytest.approx(cv, rel=0.06)


def test_a_client_that_calms_down_ends_as_it_never_flooded() -> None:
    """In `Phases` the last but one client has the flood's rate for its first half, the others' afterwards."""
    workload = make_workload("Phases", WorkloadSize(programs=40, rate=1.0, clients=4))
    count = {c: sum(p.client == c for p in workload.programs) for c in workload.clients}
    assert count["c0"] == 40
    assert count["c3"] == 320
    assert count["c2"] == 180
    assert workload.greedy == {"c2", "c3"}


# Chains.


def oracle(parts: list[Part], block_size: int) -> list[tuple[tuple[int, int], ...]]:
    """Return what each full block and everything before it consists of, token by token."""
    tokens = [(part.id, place) for part in parts for place in range(part.tokens)]
    return [tuple(tokens[: end + block_size]) for end in range(0, len(tokens) - block_size + 1, block_size)]


PARTS = st.lists(st.builds(Part, id=st.integers(1, 3), tokens=st.integers(1, 9)), max_size=5)


@given(one=PARTS, other=PARTS, block_size=st.integers(1, 5))
def test_blocks_are_alike_exactly_where_the_tokens_are(
    one: list[Part], other: list[Part], block_size: int
) -> None:
    """A block's hash stands for its tokens and all tokens before it, whatever parts they come from."""
    first, second = Chain(block_size).grow(one).blocks, Chain(block_size).grow(other).blocks
    expected_first, expected_second = oracle(one, block_size), oracle(other, block_size)
    assert len(first) == len(expected_first)
    shared = sum(a == b for a, b in zip(expected_first, expected_second, strict=False))
    assert sum(a == b for a, b in zip(first, second, strict=False)) == shared


def test_a_growing_chain_is_the_chain_of_all_parts() -> None:
    """Growing part by part, or at once, gives the same blocks."""
    parts = [Part(1, 7), Part(2, 30), Part(3, 5)]
    grown = Chain(4)
    for part in parts:
        grown.grow((part,))
    assert grown.blocks == Chain(4).grow(parts).blocks


# Scaling and errors.


def test_scaling_keeps_what_is_shared_and_who_waits() -> None:
    """Lengths shrink; parts keep their identity, calls their dependencies, programs their times."""
    workload = make_workload("S1@ToT", SMALL)
    smaller = scaled(workload, 0.05)
    for before, after in zip(workload.programs, smaller.programs, strict=True):
        assert before.arrival_ns == after.arrival_ns
        assert [c.after for c in before.calls] == [c.after for c in after.calls]
        assert [[p.id for p in c.prompt] for c in before.calls] == [[p.id for p in c.prompt] for c in after.calls]
        assert all(c.limit >= c.output.tokens for c in after.calls)
    assert sum(c.input_tokens for p in smaller.programs for c in p.calls) < 0.1 * sum(
        c.input_tokens for p in workload.programs for c in p.calls
    )
    assert scaled(workload, 1) is workload


@pytest.mark.parametrize("factor", [0, -1, 1.5, True])
def test_a_scale_is_above_zero_and_at_most_one(factor: float) -> None:
    """Anything else is refused."""
    with pytest.raises(ConfigError, match=r"scale = .* above 0 and at most 1"):
        scaled(make_workload("Chat", SMALL), factor)


def test_a_call_may_wait_for_earlier_calls_only() -> None:
    """Anything else would never be sent."""
    call = Call((Part(1, 5),), Part(2, 5), after=(0,))
    with pytest.raises(WorkloadError, match="call 0: waits for call 0"):
        Program("c", 0, [call])


@pytest.mark.parametrize(
    ("calls", "message"),
    [
        ([], "without calls"),
        ([Call((), Part(1, 1))], "empty prompt"),
        ([Call((Part(1, 0),), Part(2, 1))], "part without tokens"),
        ([Call((Part(1, 1),), Part(2, 5), max_output=3)], "max_output = 3"),
    ],
)
def test_programs_that_make_no_sense_are_refused(calls: list[Call], message: str) -> None:
    """With the call that is wrong."""
    with pytest.raises((WorkloadError, ConfigError, ValueError), match=message):
        Program("c", 0, calls)


def test_an_unknown_workload_names_the_nearest() -> None:
    """A slip of the pen is answered with the name that was meant."""
    with pytest.raises(ConfigError, match="did you mean 'S1@ToT'"):
        make_workload("S1@Tot", SMALL)


@pytest.mark.parametrize(
    "field", [{"rate": 0.0}, {"rate": float("inf")}, {"cv": -1.0}, {"programs": 0}, {"clients": 0}]
)
def test_sizes_are_checked(field: dict[str, float]) -> None:
    """Every field has its range."""
    with pytest.raises((ConfigError, ValueError), match=next(iter(field))):
        WorkloadSize(**{"programs": 1, "rate": 1.0, **field})  # type: ignore[arg-type]  # wrong on purpose


def test_a_workload_of_nothing_is_refused() -> None:
    """There would be nothing to measure."""
    with pytest.raises(WorkloadError, match="no programs"):
        Workload("w", [])
