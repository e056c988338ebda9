"""Snapshots: plain data with a schema version, refused when they are not ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from fairprefix.core.base import BasePolicy
from fairprefix.core.catalog import make_policy, restore_policy
from fairprefix.core.config import POLICIES, PolicyConfig
from fairprefix.core.dlpm import DLPM
from fairprefix.core.errors import SnapshotError
from fairprefix.core.fcfs import FCFS
from fairprefix.core.lpm import LPM
from fairprefix.core.policy import Refusal
from fairprefix.core.request import Request
from fairprefix.core.snapshot import SCHEMA, dump_request, load_request
from fairprefix.core.vtc import VTC
from tests.support import arrive, dlpm, fcfs, hot, lpm, offered, planned, run, vtc

every_policy = pytest.mark.parametrize("make", [fcfs, lpm, vtc, dlpm])


@pytest.mark.parametrize(("name", "cls"), [("fcfs", FCFS), ("lpm", LPM), ("vtc", VTC), ("dlpm", DLPM)])
def test_a_policy_is_made_by_its_name(name: str, cls: type[BasePolicy]) -> None:
    """The configuration's policy decides the class, and a view of the cache is passed on."""
    assert type(make_policy(PolicyConfig(policy=name))) is cls
    assert set(POLICIES) == {"fcfs", "lpm", "vtc", "dlpm"}
    index = hot(1)
    arrive(make_policy(PolicyConfig(policy=name), index), "a1", path=(1,))
    assert index.confirm("a1") == 0


@every_policy
def test_every_stage_survives_a_snapshot(make: Callable[..., BasePolicy]) -> None:
    """Requests queued, refused, blocked, running and held, their receipts and the pass, are as before."""
    policy = make(hot(1), weights={"a": 2}, bounded_wait=3)
    run(policy, "a1", extend=5, reserve=4)
    receipt = run(policy, "b1", extend=5, reserve=4)
    policy.preempt("a1", output=1, keep_hold=True)
    arrive(policy, "a2", "b2", "c1", prompt=4)
    policy.reweigh("c", 3)
    policy.defer("b2", Refusal.BLOCKED)
    policy.defer("a2", Refusal.NO_ROOM)
    copy = restore_policy(json.loads(json.dumps(policy.snapshot())), hot(1))
    copy.validate()
    assert copy.canonical() == policy.canonical()
    assert copy.snapshot() == policy.snapshot()
    assert offered(copy) == offered(policy)
    for either in (policy, copy):
        either.refund(receipt)
        either.unblock("b2")
        either.take("a1", extend=6, reserve=3)
        either.begin_pass()
    assert planned(copy, 9) == planned(policy, 9)
    assert len(planned(copy, 9)) == 4
    assert copy.canonical() == policy.canonical()


def test_a_snapshot_carries_its_format_version_and_configuration() -> None:
    """A snapshot says what it is, of which schema version, and how the policy was configured."""
    snapshot = dlpm(quantum=7).snapshot()
    assert (snapshot["format"], snapshot["schema"], snapshot["policy"]) == ("fairprefix.snapshot", SCHEMA, "dlpm")
    assert snapshot["config"]["quantum"] == 7


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": "other"}, "snapshot: format = 'other', expected 'fairprefix.snapshot'"),
        ({"schema": SCHEMA + 1}, f"snapshot: schema = {SCHEMA + 1}, expected {SCHEMA}"),
        ({"policy": "edf"}, "snapshot: policy = 'edf', expected one of fcfs, lpm, vtc, dlpm"),
        ({"policy": None}, "snapshot: policy = 'None', expected one of fcfs, lpm, vtc, dlpm"),
    ],
)
def test_a_snapshot_of_another_kind_is_refused(changed: dict[str, Any], message: str) -> None:
    """What is no snapshot, or of another version or policy, is refused with what was found and expected."""
    with pytest.raises(SnapshotError) as caught:
        restore_policy(dlpm().snapshot() | changed)
    assert str(caught.value) == message


def test_a_snapshot_fits_its_own_policy_only() -> None:
    """A class refuses the snapshot of another policy, and what is no mapping at all."""
    with pytest.raises(SnapshotError, match="snapshot: policy = 'dlpm', expected 'vtc'"):
        VTC.restore(dlpm().snapshot())
    nothing: Any = None
    with pytest.raises(SnapshotError, match=r"snapshot: format = None, expected 'fairprefix\.snapshot'"):
        VTC.restore(nothing)


def test_hashes_given_as_bytes_survive_json() -> None:
    """Blocks come back as they were, integers and bytes alike."""
    original = Request("r1", "a", 9, 3, (b"\x00\xff", 2**64 - 1, b""), "salt")
    copy = load_request(json.loads(json.dumps(dump_request(original))))
    assert copy.blocks == (b"\x00\xff", 2**64 - 1, b"")
    assert (copy.id, copy.client, copy.input_tokens, copy.max_output, copy.namespace) == ("r1", "a", 9, 3, "salt")


@every_policy
def test_equal_states_have_one_canonical_form(make: Callable[..., BasePolicy]) -> None:
    """States that behave alike are equal, and hashable, though they were reached on different ways."""
    first, second = make(), make()
    arrive(first, "a1", "b1")
    arrive(second, "a1", "b1")
    second.refund(second.take("b1", extend=1, reserve=2))
    second.plan(2)
    second.defer("a1", Refusal.NO_ROOM)
    assert first.canonical() != second.canonical()
    second.begin_pass()
    if isinstance(first, DLPM):
        first.refund(first.take("a1", extend=1, reserve=1))
    if isinstance(first, VTC):
        first.refund(first.take("b1", extend=1, reserve=1))
    assert first.canonical() == second.canonical()
    assert hash(first.canonical()) == hash(second.canonical())
