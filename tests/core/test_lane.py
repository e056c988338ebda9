"""The queue of one client: longest prefix first, and every k-th time the oldest."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from fairprefix.core.base import BasePolicy
from fairprefix.core.lane import Entry, Lane
from fairprefix.core.policy import Refusal
from tests.core import rules
from tests.support import admit, arrive, dlpm, fcfs, hot, lpm, offered, planned, request


class NoHold(Lane):
    """A lane that passes over its oldest request when that has no room, though it is its turn."""

    def candidate(self) -> object:  # type: ignore[override]
        """Return the oldest in its turn, or else the best that is left."""
        return super().candidate() or (best[3] if (best := self._matches.top()) else None)

    def admit(self, entry: Entry) -> bool:  # noqa: ARG002 (whichever it was)
        """Let the turn pass, whoever was admitted."""
        self.turn = (self.turn + 1) % (self.patience or 1)
        return True


def place_of_the_cold_one(policy: BasePolicy, *, older: int, fits: tuple[int, int]) -> int | None:
    """Return at which own admission a client's cold request starts, against a stream of hot ones; None: never.

    `older` cold requests are before it. With `fits` (n, m) a cold request finds room in pass m of every n.
    """
    arrive(policy, *(f"a-cold{n}" for n in range(older + 1)), prompt=4)
    last, admissions = f"a-cold{older}", 0
    for turn in range(1, 201):
        arrive(policy, f"a-hot{turn}", prompt=4, path=(1,))
        policy.begin_pass()
        cold_fits = turn % fits[0] == fits[1] % fits[0]
        while (id := offered(policy)) and "cold" in id and not cold_fits:
            policy.defer(id, Refusal.NO_ROOM)
        if id:
            policy.take(id, extend=0, reserve=1)
            policy.finish(id, output=0)
            admissions += 1
        if id == last:
            return admissions
    return None


@given(
    k=st.integers(1, 5),
    older=st.integers(0, 4),
    fits=st.tuples(st.integers(1, 4), st.integers(0, 3)),
    of_one_client=st.booleans(),
)
def test_the_wait_is_bounded(k: int, older: int, fits: tuple[int, int], *, of_one_client: bool) -> None:
    """A request with p older ones starts at or before own admission k*(p+1), though it seldom finds room."""
    make = dlpm if of_one_client else lpm
    policy = make(hot(1), bounded_wait=k)
    place = place_of_the_cold_one(policy, older=older, fits=fits)
    assert place is not None
    assert place <= k * (older + 1)


def test_without_a_bounded_wait_a_cold_request_starves() -> None:
    """Under pure LPM order a stream of hot requests keeps a cold one waiting for ever."""
    assert place_of_the_cold_one(lpm(hot(1)), older=0, fits=(1, 0)) is None


def test_without_the_hold_a_cold_request_starves(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the oldest did not hold up the rest in its turn, its turn could pass whenever it has no room."""
    monkeypatch.setattr("fairprefix.core.fcfs.Lane", NoHold)
    assert place_of_the_cold_one(lpm(hot(1), bounded_wait=2), older=0, fits=(2, 1)) is None
    monkeypatch.undo()
    assert place_of_the_cold_one(lpm(hot(1), bounded_wait=2), older=0, fits=(2, 1)) == 2


@pytest.mark.parametrize("waiting", [10, 1000])
def test_whoever_comes_back_again_and_again_takes_up_no_more_room(waiting: int) -> None:
    """However often entries are queued again, or are ranked anew: a lane grows to four times what waits."""
    lane = Lane(8)
    entries = [Entry(request(f"r{n}"), n, "a") for n in range(waiting)]
    for entry in entries:
        lane.enter(entry)
    longest = 0
    for turn in range(20 * waiting):
        entry = entries[turn % 7]
        lane.leave()
        entry.match = 16 * (turn // 7 % 2)
        lane.enter(entry)
        lane.rekey(entry)
        longest = max(longest, len(lane._arrivals), len(lane._matches))
    assert lane.waiting == waiting
    assert longest <= 4 * waiting + 64


def test_the_oldest_waits_its_turn_with_hold() -> None:
    """When it is the oldest request's turn and it has no room, its queue admits nothing else."""
    rules.check_bounded_wait_holds(lpm)


def test_lpm_offers_the_longest_cached_prefix() -> None:
    """LPM offers by cached tokens, ties by age, and follows the cache as it changes."""
    index = hot(1, 2, 3)
    policy = lpm(index)
    arrive(policy, "a1", prompt=9)
    arrive(policy, "a2", prompt=9, path=(1,))
    arrive(policy, "a3", prompt=9, path=(1, 2, 3))
    arrive(policy, "a4", prompt=9, path=(1, 9))
    assert planned(policy, 4) == ["a3", "a2", "a4", "a1"]
    index.cached((1, 9), start=1)
    assert planned(policy, 4) == ["a3", "a4", "a2", "a1"]
    index.evicted((1, 2, 3))
    assert planned(policy, 4) == ["a1", "a2", "a3", "a4"]


def test_lpm_passes_over_what_does_not_fit() -> None:
    """Under LPM a refused request keeps its place and the next one is offered; a new pass begins at the top."""
    policy = lpm(hot(1))
    arrive(policy, "a1", "a2", prompt=4)
    arrive(policy, "a3", prompt=4, path=(1,))
    policy.defer("a3", Refusal.NO_ROOM)
    assert planned(policy, 3) == ["a1", "a2"]
    assert admit(policy) == "a1"
    policy.begin_pass()
    assert planned(policy, 3) == ["a3", "a2"]


def test_fcfs_is_head_of_line() -> None:
    """Under FCFS the oldest request is next, whatever is cached, and holds up the others until it fits."""
    policy = fcfs(hot(1))
    arrive(policy, "a1", prompt=4)
    arrive(policy, "b1", prompt=4, path=(1,))
    policy.defer("b1", Refusal.NO_ROOM)
    assert offered(policy) == "a1"
    policy.defer("a1", Refusal.NO_ROOM)
    assert offered(policy) is None
    policy.begin_pass()
    policy.defer("a1", Refusal.BLOCKED)
    assert offered(policy) == "b1"
    policy.unblock("a1")
    assert planned(policy, 2) == ["a1", "b1"], "it has kept its place"


def test_policies_without_accounts_know_no_weights() -> None:
    """FCFS and LPM accept weights and output, and do nothing about either."""
    for policy in (fcfs(), lpm()):
        before = policy.canonical()
        policy.reweigh("a", 7)
        policy.produced({"a": 3})
        assert policy.canonical() == before


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_refund_gives_the_turn_back(k: int) -> None:
    """After a refund the oldest request is due in the same turn as before."""
    policy = lpm(hot(1), bounded_wait=k)
    arrive(policy, *(f"a{n}" for n in range(5)), prompt=4)
    arrive(policy, *(f"a{n}" for n in range(5, 9)), prompt=4, path=(1,))
    for _ in range(2 * k):
        before = planned(policy, 9)
        receipt = policy.take(before[0], extend=1, reserve=1)
        policy.refund(receipt)
        assert planned(policy, 9) == before
        policy.take(before[0], extend=1, reserve=1)


def test_a_refund_without_turns_changes_nothing_else() -> None:
    """Where no turns are taken, a refund just queues the request again, in its old place."""
    policy = lpm()
    policy.arrive(request("a1"))
    policy.arrive(request("a2"))
    policy.refund(policy.take("a1", extend=1, reserve=1))
    assert planned(policy, 2) == ["a1", "a2"]
