"""A recorded history can be re-executed, by the same policy or by another one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import HostError, SnapshotError
from fairprefix.core.fcfs import FCFS
from fairprefix.core.history import RecordedIndex, Recorder, Replay, opening
from fairprefix.core.policy import Policy, Refusal
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.core.request import Request


def record() -> tuple[list[dict[str, Any]], Recorder]:
    """Record a history with every kind of event; return it as read back from JSON, and the recorder."""
    config = PolicyConfig(quantum=10, weights={"b": 2})
    log: list[dict[str, Any]] = [opening(config, 4)]
    index = RecordedIndex(4, log.append)
    policy = Recorder(make_policy(config, index), log.append)
    policy.arrive(Request("r", "a", 12, 4, (1, 2, 3)))
    policy.arrive(Request("s", "b", 12, 4, (b"\x01", b"\x02"), "other"))
    policy.arrive(Request("t", "a", 8, 4, (1, 2)))
    policy.begin_pass()
    index.cached((1, 2))
    offered = policy.peek()
    assert offered is policy.plan(2)[0]
    policy.refund(policy.take("r", extend=4, reserve=4))
    policy.amend(policy.take("r", extend=4, reserve=4), extend=5, reserve=3)
    policy.defer("s", Refusal.BLOCKED)
    policy.unblock("s")
    policy.take("s", extend=12, reserve=4)
    policy.produced({"a": 1, "b": 1})
    policy.preempt("s", output=1, keep_hold=False)
    policy.reweigh("b", 3)
    index.evicted((1, 2), start=1)
    policy.finish("r", output=1)
    policy.validate()
    return json.loads(json.dumps(log)), policy


def test_a_replay_ends_in_the_recorded_state() -> None:
    """Re-executing a history gives the recorded state, and tells which choices were the host's own."""
    log, policy = record()
    replay = Replay(log[0])
    decisions = [decision for event in log[1:] if (decision := replay.step(event))]
    assert replay.policy.canonical() == policy.canonical()
    assert replay.policy.snapshot() == json.loads(json.dumps(policy.snapshot()))
    assert [decision.taken for decision in decisions] == ["r", "r", "s"]
    assert [decision.agrees for decision in decisions] == [True, True, False]
    assert [decision.charged for decision in decisions] == [4, 4, 12]


def test_another_policy_tells_what_it_would_have_done() -> None:
    """Replaying under another policy follows what was taken, and says what would have been offered."""
    log, _policy = record()
    log = [event for event in log if event["event"] not in ("refund", "amend")]
    replay = Replay(log[0], policy="lpm")
    taken = [event for event in log if event["event"] == "take"]
    assert replay.config.policy == "lpm"
    offers = [d.offered for event in log[1:12] if event not in taken[1:] and (d := replay.step(event))]
    assert offers == ["r"]


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"event": "dance"}, "event = 'dance', expected one of arrive"),
        ({}, "event = 'None'"),
        ({"event": "take", "id": "r"}, "event 'take' lacks or does not know 'extend'"),
        ({"event": "refund", "serial": 99}, "event 'refund' lacks or does not know 99"),
    ],
)
def test_a_broken_event_is_refused(event: dict[str, Any], message: str) -> None:
    """An event that does not exist or lacks a field is refused, by name."""
    log, _policy = record()
    replay = Replay(log[0])
    for earlier in log[1:5]:
        replay.step(earlier)
    with pytest.raises(SnapshotError, match=message):
        replay.step(event)


def test_an_impossible_event_is_refused() -> None:
    """An event that cannot happen at this point is the recording host's fault, and is called that."""
    log, _policy = record()
    with pytest.raises(HostError, match="is unknown"):
        Replay(log[0]).step({"event": "finish", "id": "r", "output": 0})


@pytest.mark.parametrize("first", [{"event": "arrive"}, {"event": "open", "schema": 99}, {"event": "open"}, {}])
def test_a_foreign_beginning_is_refused(first: dict[str, Any]) -> None:
    """A history of another schema version, or none at all, is refused."""
    with pytest.raises(SnapshotError, match="expected"):
        Replay(first)


def test_a_factory_of_ones_own_makes_the_policy() -> None:
    """The replaying policy is what the factory returns for the recorded configuration and index."""
    log, _policy = record()
    given: list[object] = []

    def make(config: PolicyConfig, index: object) -> Policy:
        given.extend((config, index))
        return FCFS(config)

    replay = Replay(log[0], make=make)
    assert isinstance(replay.policy, FCFS)
    assert given == [replay.config, replay.index]


def test_a_recorded_index_is_the_index_that_it_records() -> None:
    """Every argument of a report reaches the index itself, in both directions and in each namespace."""
    log: list[dict[str, Any]] = []
    plain, recorded = PrefixIndex(4), RecordedIndex(4, log.append)
    for index in (plain, recorded):
        index.cached((1, 2, 3, 4), end=3)
        index.cached((1, 2, 3, 4), start=3)
        index.cached((1, 2), namespace="other")
        index.evicted((1, 2, 3, 4), start=2, end=4)
        index.cached((5, 6, 7))
        index.evicted((5, 6, 7), start=1, end=3)
        index.cached((8, 9), end=1)
        index.evicted((1, 2), start=1, namespace="other")
        index.cached((10, 11))
        index.evicted((10, 11))
        index.cached((12, 13, 14))
        index.evicted((12, 13, 14), start=1, end=2)
        index.cached((12, 13, 14), start=2)
    replay = Replay(opening(PolicyConfig(), 4))
    for event in log:
        replay.step(event)
    chains = [(1, 2, 3, 4), (5, 6, 7), (8, 9), (10, 11), (12, 13, 14)]
    for index in (recorded, replay.index):
        for chain in chains:
            for namespace in ("", "other"):
                assert index.matched_blocks(chain, namespace) == plain.matched_blocks(chain, namespace)
        assert index.cached_blocks() == plain.cached_blocks()
    assert [plain.matched_blocks(chain) for chain in chains] == [2, 1, 1, 0, 1]


def test_everything_that_decides_is_recorded_and_replayed() -> None:
    """Passes, holds, and amended reserves reach the policy itself, its record, and whoever replays that."""
    log: list[dict[str, Any]] = [opening(PolicyConfig(quantum=10, gate="credit", slack=5), 4)]
    direct = make_policy(PolicyConfig(quantum=10, gate="credit", slack=5))
    recorder = Recorder(make_policy(PolicyConfig(quantum=10, gate="credit", slack=5)), log.append)
    decisions: list[str | None] = []
    for policy in (direct, recorder):
        for id in ("a1", "a2", "a3"):
            policy.arrive(Request(id, id[0], 4, 6))
        policy.defer("a1", Refusal.NO_ROOM)
        policy.begin_pass()
        receipt = policy.take("a1", extend=4, reserve=6)
        receipt = policy.amend(receipt, extend=3, reserve=2)
        policy.amend(receipt, extend=2)
        policy.preempt("a1", output=0, keep_hold=True)
        policy.take("a2", extend=4, reserve=1)
        policy.preempt("a2", output=0, keep_hold=False)
        for id in ("a2", "a3"):
            policy.defer(id, Refusal.NO_ROOM)
        policy.begin_pass()
        offered = policy.peek()
        decisions.append(offered.id if offered else None)
    assert decisions == ["a2", "a2"]
    assert recorder.canonical() == direct.canonical()
    replay = Replay(log[0])
    told = [decision for event in log[1:] if (decision := replay.step(event))]
    assert replay.policy.canonical() == direct.canonical()
    offered = replay.policy.peek()
    assert offered is not None
    assert offered.id == "a2"
    assert [decision.client for decision in told] == ["a", "a"]


def test_a_receipt_amended_in_a_replay_can_be_amended_and_refunded_again() -> None:
    """Each amended receipt takes its predecessor's place, reserve and all."""
    log: list[dict[str, Any]] = [opening(PolicyConfig(quantum=10), 4)]
    recorder = Recorder(make_policy(PolicyConfig(quantum=10)), log.append)
    recorder.arrive(Request("a1", "a", 4, 6))
    receipt = recorder.take("a1", extend=4, reserve=6)
    receipt = recorder.amend(receipt, reserve=1)
    receipt = recorder.amend(receipt, extend=1)
    recorder.refund(receipt)
    replay = Replay(log[0])
    for event in log[1:]:
        replay.step(event)
    assert replay.policy.canonical() == recorder.canonical()


def test_an_admission_that_nobody_offered_is_told() -> None:
    """Where the replaying policy offers nobody, the decision says so, and differs."""
    log: list[dict[str, Any]] = [opening(PolicyConfig(quantum=10), 4)]
    recorder = Recorder(make_policy(PolicyConfig(quantum=10)), log.append)
    recorder.arrive(Request("a1", "a", 4, 6))
    recorder.defer("a1", Refusal.NO_ROOM)
    recorder.take("a1", extend=4, reserve=6)
    replay = Replay(log[0])
    (decision,) = [decision for event in log[1:] if (decision := replay.step(event))]
    assert (decision.taken, decision.offered, decision.agrees) == ("a1", None, False)
