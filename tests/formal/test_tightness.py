"""Histories that come close to the bounds, so that we know what is promised is not more than what is needed."""

from __future__ import annotations

import pytest

from fairprefix.core import bounds
from fairprefix.core.bounds import Bound, Engine
from fairprefix.core.config import PolicyConfig
from fairprefix.core.cost import CostWeights
from tests.formal.exhaustive.world import Kind
from tests.formal.published import table
from tests.formal.report import TIGHTNESS, share
from tests.formal.story import Story, hot

COST = CostWeights(1, 2)


def _note(policy: str, engine: Engine, history: str, bound: Bound, reached: int) -> float:
    """Enter a row into the table, which is that of docs/theory.md, and return the share of the bound reached."""
    row = (engine.reservation, str(bound.value), str(reached), f"{share(reached, bound.value)} %")
    assert row in [(way, promised.split()[0], *found) for _, way, promised, *found in table(2)], "docs/theory.md"
    TIGHTNESS.add(policy, engine.reservation, history, bound.value, reached, share(reached, bound.value))
    return reached / bound.value


def test_dlpm_under_full_reservation_comes_within_a_thousandth_of_its_bound() -> None:
    """One request that fills the memory, first of g, then of f, with f spending its quanta in between.

    A cold request of f is queued all the time; it needs the whole memory, and others are offered before it.
    """
    memory, quantum = 1000, 54
    engine = Engine(
        reservation="full", kv_tokens=memory, max_running=8, longest_input=100, longest_output=memory - 1
    )
    cold = Kind(1, memory - 1)
    story = Story(
        PolicyConfig(quantum=quantum),
        engine,
        {"f": (cold, hot(quantum - 2, 1), hot(quantum - 3, 1)), "g": (cold, hot(quantum - 3, 1))},
    )
    for name in ("g1", "g0", "f0", "g0"):
        story.arrive(name)
    first = story.admit()
    assert first is not None
    story.run(first)
    assert (story.deficit("f"), story.deficit("g")) == (quantum, 1)
    big = story.admit()
    assert big is not None
    story.run(big)
    assert (story.deficit("f"), story.deficit("g")) == (quantum, -2 * (memory - 1))
    while story.deficit("g") <= 0:
        id = story.arrive("f1" if story.deficit("g") < 0 else "f2")
        assert story.admit() == id
        story.run(id)
    assert (story.deficit("f"), story.deficit("g")) == (1, quantum)
    story.arrive("f0")
    last = story.admit()
    assert last is not None
    story.run(last)
    assert story.deficit("f") == -2 * (memory - 1)
    bound = bounds.dlpm_both_backlogged(engine, COST, quantum)
    assert _note("dlpm, deficit", engine, "one request fills the memory", bound, story.gap()) > 0.95
    assert story.gap() == bounds.dlpm_tight_full(engine, COST, quantum).exact


def test_dlpm_without_reservation_comes_close_to_its_bound() -> None:
    """Five hundred requests whose outputs are graded so that they fill the memory all the time.

    Parameters chosen for it: N = M/2, so that B (about M*ln M) is large beside one prompt of M tokens, which is
    what keeps the others from being admitted meanwhile.
    """
    memory, running, quantum = 1000, 500, 500
    outputs = [memory // (running - k) - 1 for k in range(running)]
    engine = Engine(
        reservation="none",
        kv_tokens=memory,
        max_running=running,
        longest_input=memory,
        longest_output=max(outputs),
    )
    graded = [hot(1, output) for output in outputs]
    cold = Kind(memory, 1)
    story = Story(
        PolicyConfig(quantum=quantum),
        engine,
        {"f": (*graded, hot(quantum - 2, 1), cold), "g": (*graded, cold)},
        slots=1,
    )
    debt = -2 * sum(outputs)
    assert -debt == bounds.held_output(engine, COST)
    for name in [*(f"g{k}" for k in range(running)), "f501", "g500"]:
        story.arrive(name)
    assert story.admit_all() == running
    story.step(max(outputs))
    assert (story.deficit("f"), story.deficit("g")) == (quantum, debt)
    assert not story.world.runs
    while story.deficit("g") + quantum <= 0:
        story.serve("f500")
    for k in range(running):
        story.arrive(f"f{k}")
    assert story.admit_all() == running
    story.step(max(outputs))
    assert story.deficit("f") == debt
    bound = bounds.dlpm_both_backlogged(engine, COST, quantum)
    assert _note("dlpm, deficit", engine, "500 graded requests fill it all the time", bound, story.gap()) > 0.8


@pytest.mark.parametrize("slack", [0, 20])
def test_the_credit_gate_comes_within_a_hundredth_of_its_bound(slack: int) -> None:
    """One longest request, first of g, then of f; before each, the other one's counter is at Q + S.

    A counter gets there by a refill while a request holds the slack, which then ends without having produced.
    """
    longest_input, longest_output = 10, 100
    quantum = 23 if slack else 19
    engine = Engine(
        reservation="full",
        kv_tokens=longest_input + longest_output,
        max_running=8,
        longest_input=longest_input,
        longest_output=longest_output,
    )
    cold = Kind(longest_input, longest_output)
    kinds = (
        cold,
        hot(3, (quantum - 3) // 2),  # costs a quantum, and holds the slack
        hot(2, (quantum - 3) // 2),  # costs one less
        hot(3, (quantum + slack - 3) // 2),  # costs quantum and slack
        hot(1, 10),  # holds the slack
    )
    story = Story(PolicyConfig(quantum=quantum, gate="credit", slack=slack), engine, {"f": kinds, "g": kinds})
    debt = -(longest_input + 2 * longest_output) + 1
    # g spends its first quantum; f waits for room.
    story.arrive("g0")
    story.arrive("f0")
    story.arrive("g0")
    story.serve("g1")
    if slack:
        holds = story.arrive("f1")
        assert story.admit() == holds
    else:
        story.serve("f1")
    # The refill is taken up by g, and f is relieved of its hold.
    almost = story.arrive("g2")
    assert story.admit() == almost
    if slack:
        story.end(holds)
    story.run(almost)
    assert (story.deficit("f"), story.deficit("g")) == (quantum + slack, 1)
    big = story.admit()
    assert big is not None
    story.run(big)
    assert (story.deficit("f"), story.deficit("g")) == (quantum + slack, debt)
    # f spends all that it gets, until g has its slack and one more.
    story.serve("f3")
    while story.deficit("g") + quantum < slack + 1:
        story.serve("f1")
    if slack:
        story.serve("f1")
        holds = story.arrive("g4")
        assert story.admit() == holds
        assert story.deficit("g") == slack
    almost = story.arrive("f2")
    assert story.admit() == almost
    if slack:
        story.end(holds)
    story.run(almost)
    assert (story.deficit("f"), story.deficit("g")) == (1, quantum + slack)
    story.arrive("f0")
    last = story.admit()
    assert last is not None
    story.run(last)
    bound = bounds.credit_both_backlogged(engine, COST, quantum, slack=slack)
    assert _note(f"dlpm, credit S={slack}", engine, "one longest request", bound, story.gap()) > 0.99


@pytest.mark.parametrize("policy", ["fcfs", "lpm", "vtc", "dlpm"])
def test_no_work_conserving_policy_escapes_the_lower_bound(policy: str) -> None:
    """A client f fills all slots just before g arrives, and receives w_q*N*O before g can be served at all."""
    engine = Engine(reservation="full", kv_tokens=1000, max_running=4, longest_input=1, longest_output=100)
    story = Story(
        PolicyConfig(policy=policy, quantum=10), engine, {"f": (Kind(1, 100),), "g": (Kind(1, 1),)}, slots=6
    )
    for _ in range(5):
        story.arrive("f0")
    assert story.admit_all() == 4
    story.arrive("g0")
    for _ in range(100):
        assert story.admit() is None
        story.step()
    forced = bounds.lower_bound_work_conserving(engine, COST)
    assert _note(policy, engine, "all slots taken (bound from below)", forced, story.gap()) == 1.0


@pytest.mark.parametrize("policy", ["fcfs", "lpm", "vtc", "dlpm"])
def test_the_lower_bound_is_reached_where_the_memory_and_not_the_slots_limit_it(policy: str) -> None:
    """w_q*M itself: f's outputs add up to M, and what g sends does not fit before the last of them is produced."""
    memory, outputs = 10, (1, 1, 2, 3, 3)
    engine = Engine(reservation="none", kv_tokens=memory, max_running=5, longest_input=9, longest_output=4)
    large = Kind(9, 1)
    story = Story(
        PolicyConfig(policy=policy, quantum=10),
        engine,
        {"f": (*(Kind(1, output) for output in outputs), large), "g": (large,)},
    )
    for name in ("f0", "f1", "f2", "f3", "f4", "f5"):
        story.arrive(name)
    assert story.admit_all() == len(outputs)
    story.arrive("g0")
    story.step(max(outputs))
    assert not story.world.runs
    forced = bounds.lower_bound_work_conserving(engine, COST)
    assert forced.exact == COST.output * memory
    assert _note(policy, engine, "the memory is taken (bound from below)", forced, story.gap()) == 1.0
