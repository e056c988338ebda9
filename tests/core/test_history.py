"""A recorded history can be re-executed, by the same policy or by another one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import HostError, SnapshotError
from fairprefix.core.history import RecordedIndex, Recorder, Replay, opening
from fairprefix.core.policy import Refusal
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
