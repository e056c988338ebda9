"""One ledger for several workers: late binding, refills on settled values, and what workers do not know."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import ConfigError, HostError, SnapshotError
from fairprefix.core.ledger_view import LedgerView
from fairprefix.core.policy import Refusal
from fairprefix.core.request import Request
from fairprefix.core.shared_ledger import SharedLedger


def shared(**settings: Any) -> tuple[SharedLedger, LedgerView, LedgerView]:  # noqa: ANN401 (any field)
    """Return a ledger and two workers' views; the first block of a path is cached at "u", nothing at "v"."""
    look = settings.pop("look", 8)
    ledger = SharedLedger(PolicyConfig(**{"quantum": 10, **settings}), look=look)
    return ledger, LedgerView(ledger, "u", lambda request: len(request.blocks[:1])), LedgerView(ledger, "v")


def arrive(view: LedgerView, *ids: str, path: tuple[int, ...] = (), prompt: int = 4) -> None:
    """Let requests arrive of the clients that their ids begin with."""
    for id in ids:
        view.arrive(Request(id, id[0], prompt, 5, path))


def offered(view: LedgerView) -> str | None:
    """Return the id of the request that is offered."""
    found = view.peek()
    return found.id if found else None


def test_every_worker_offers_from_the_same_queue() -> None:
    """What one has taken the others do not offer any more."""
    _, u, v = shared()
    arrive(u, "a1", "a2")
    assert (offered(u), offered(v)) == ("a1", "a1")
    u.take("a1", extend=4, reserve=5)
    assert (offered(u), offered(v)) == ("a2", "a2")


def test_each_worker_prefers_what_it_has_cached() -> None:
    """Longest prefix first, by what that worker has, then the oldest."""
    _, u, v = shared()
    arrive(u, "a1")
    arrive(u, "a2", path=(1,))
    assert (offered(u), offered(v)) == ("a2", "a1")


def test_only_the_oldest_requests_of_a_client_are_considered() -> None:
    """What looking costs is bounded."""
    _, u, _v = shared(look=1)
    arrive(u, "a1")
    arrive(u, "a2", path=(1,))
    assert offered(u) == "a1"


def test_a_worker_does_not_know_what_others_have_not_reported() -> None:
    """Credit that was spent elsewhere is still seen, until it is reported; how much that was is kept."""
    ledger, u, v = shared()
    arrive(u, "a1", "a2", "a3", "b1", prompt=20)
    u.take("a1", extend=20, reserve=0)
    assert (ledger.deficit("a"), ledger.unreported("a"), ledger.rounds) == (10, 20, 1)
    assert offered(u) == "b1"
    assert offered(v) == "a2", "v has not heard of a1"
    ledger.report("u")
    assert (ledger.deficit("a"), ledger.unreported("a"), ledger.unsettled) == (-10, 0, 20)
    assert offered(v) == "b1"


def test_refills_are_decided_on_settled_values() -> None:
    """A worker settles its own charges first, credit is not topped up, and looking commits nothing."""
    ledger, u, _v = shared()
    arrive(u, "a1", "a2", prompt=35)
    u.take("a1", extend=35, reserve=0)
    arrive(u, "b1", prompt=35)
    assert offered(u) == "b1"
    assert (ledger.rounds, ledger.deficit("a")) == (1, 10)
    u.take("b1", extend=1, reserve=0)
    u.finish("b1", output=0)
    assert (ledger.rounds, ledger.deficit("a"), ledger.deficit("b")) == (2, -15, 10)
    assert offered(u) == "a2"
    u.take("a2", extend=3, reserve=0)
    assert (ledger.rounds, ledger.deficit("a"), ledger.deficit("b")) == (4, 5, 9)


def test_nobody_is_refilled_while_somebody_has_credit_and_no_room() -> None:
    """A large request is not starved: its place is kept, at this worker and in this pass."""
    ledger, u, v = shared()
    arrive(u, "a1", "b1")
    u.take("a1", extend=30, reserve=0)
    arrive(u, "a2")
    u.defer("b1", Refusal.NO_ROOM)
    assert offered(u) is None
    assert offered(v) == "b1", "the other worker may have room"
    u.begin_pass()
    assert offered(u) == "b1"
    assert ledger.rounds == 1


def test_a_blocked_request_holds_nobody_back() -> None:
    """It leaves the queue of all workers until it is ready."""
    _, u, v = shared()
    arrive(u, "a1", "b1")
    u.take("a1", extend=30, reserve=0)
    arrive(u, "a2")
    u.defer("b1", Refusal.BLOCKED)
    assert offered(u) == "a2"
    v.unblock("b1")
    assert offered(u) == "b1"
    u.defer("b1", Refusal.BLOCKED)
    u.finish("b1", output=0)
    with pytest.raises(HostError, match="'b1' is unknown"):
        u.unblock("b1")


def test_output_is_charged_where_it_is_produced() -> None:
    """And only to clients that have something running there."""
    ledger, u, v = shared()
    arrive(u, "a1")
    u.take("a1", extend=4, reserve=5)
    u.produced({"a": 3})
    assert ledger.unreported("a") == 10
    with pytest.raises(HostError, match="'a' has no request here"):
        v.produced({"a": 1})


def test_an_amended_admission_costs_its_true_size() -> None:
    """The old receipt is void; None leaves a figure as it is."""
    ledger, u, _v = shared()
    arrive(u, "a1")
    first = u.take("a1", extend=4, reserve=5)
    second = u.amend(first, extend=1)
    assert (ledger.unreported("a"), second.extend, second.reserve, second.charged) == (1, 1, 5, 1)
    third = u.amend(second, reserve=2)
    assert (third.extend, third.reserve) == (1, 2)
    with pytest.raises(HostError, match="is void"):
        u.amend(second)


def test_a_refunded_request_is_back_in_its_old_place() -> None:
    """Its charge is given back, before and after the report."""
    ledger, u, v = shared()
    arrive(u, "a1", "a2")
    receipt = u.take("a1", extend=4, reserve=5)
    v.take("a2", extend=4, reserve=5)
    ledger.report("u")
    u.refund(receipt)
    assert (ledger.deficit("a"), ledger.unreported("a")) == (6, 0)
    ledger.report("u")
    assert ledger.deficit("a") == 10
    arrive(u, "a3")
    assert offered(v) == "a1"
    ledger.validate()


def test_the_oldest_request_is_the_first_one_again_after_a_refund() -> None:
    """It is among the few that are considered, though others were queued meanwhile."""
    ledger, u, _v = shared(look=1)
    arrive(u, "a1", "a2")
    u.refund(u.take("a1", extend=4, reserve=5))
    assert offered(u) == "a1"
    ledger.validate()


def test_a_preempted_request_may_resume_anywhere_for_free() -> None:
    """Unless recomputation is charged; where the host resumes it by itself, it is not offered."""
    for recompute, cost in (("free", 0), ("charged", 6)):
        ledger, u, v = shared(recompute=recompute, quantum=100)
        arrive(u, "a1")
        arrive(u, "a2")
        u.take("a1", extend=4, reserve=5)
        u.produced({"a": 2})
        u.preempt("a1", output=2, keep_hold=False)
        assert offered(v) == "a1", "it has kept its place"
        ledger.report("u")
        again = v.take("a1", extend=6, reserve=3)
        assert ledger.unreported("a") == cost
        v.amend(again, extend=6)
        assert ledger.unreported("a") == cost
        v.preempt("a1", output=2, keep_hold=True)
        assert offered(v) == "a2"
        v.take("a1", extend=6, reserve=3)
        v.finish("a1", output=5)
        with pytest.raises(HostError, match="'a2' is queued; this call needs: running"):
            v.preempt("a2", output=0, keep_hold=False)
        ledger.validate()


def test_output_does_not_shrink() -> None:
    """A request that has produced two tokens has not produced one."""
    _, u, _v = shared()
    arrive(u, "a1")
    u.take("a1", extend=4, reserve=5)
    u.preempt("a1", output=2, keep_hold=False)
    with pytest.raises(HostError, match="has produced 2 tokens already, not 1"):
        u.finish("a1", output=1)


def test_a_plan_is_what_taking_one_after_the_other_would_give() -> None:
    """Refills between them are assumed, and nothing is changed by looking."""
    ledger, u, _v = shared()
    arrive(u, "a1", "a2", "b1", "b2", prompt=12)
    before = (u.canonical(), ledger.rounds, ledger.unsettled)
    planned = [request.id for request in u.plan(10)]
    assert planned == ["a1", "b1", "a2", "b2"]
    assert (u.canonical(), ledger.rounds, ledger.unsettled) == before
    assert [request.id for request in u.plan(2)] == planned[:2]
    assert [request.id for request in u.plan(10, budget=u.plan(1)[0].input_tokens)] == planned[:1]
    taken = []
    while id := offered(u):
        u.take(id, extend=12, reserve=0)
        taken.append(id)
    assert taken == planned
    u.validate()


def test_weights_multiply_the_quantum() -> None:
    """From the next refill on; of known clients and of those to come."""
    ledger, u, _v = shared(weights={"a": 3})
    arrive(u, "a1", "b1", prompt=30)
    assert offered(u) == "a1"
    u.take("a1", extend=1, reserve=0)
    assert (ledger.deficit("a"), ledger.deficit("b")) == (30, 10)
    u.reweigh("b", 2)
    u.reweigh("c", 5)
    arrive(u, "c1")
    u.finish("b1", output=0)
    u.take("c1", extend=1, reserve=0)
    assert ledger.deficit("c") == 50
    with pytest.raises(ConfigError, match="weight = 0"):
        u.reweigh("a", 0)


def test_accounts_survive_a_restart_and_requests_do_not() -> None:
    """A snapshot counts what was not reported yet; its form is checked."""
    _, u, _v = shared(weights={"a": 3})
    arrive(u, "a1", "b1")
    u.take("a1", extend=25, reserve=0)
    u.reweigh("b", 2)
    snapshot = json.loads(json.dumps(u.snapshot()))
    restored = SharedLedger.restore(snapshot)
    assert [restored.deficit(client) for client in "abz"] == [5, 10, 0]
    assert (restored.rounds, restored.unreported("z")) == (1, 0)
    assert restored.snapshot() == snapshot
    assert LedgerView(restored, "u").peek() is None
    for wrong in ({**snapshot, "schema": 99}, {**snapshot, "format": "x"}, None):
        with pytest.raises(SnapshotError, match="snapshot: "):
            SharedLedger.restore(wrong)


def test_only_the_published_gate_is_shared() -> None:
    """The credit gate and overdraft are refused with a reason."""
    for settings in ({"gate": "credit"}, {"overdraft": 1}):
        with pytest.raises(ConfigError, match="without overdraft, with a shared ledger"):
            SharedLedger(PolicyConfig(**settings))


def test_a_request_arrives_once() -> None:
    """Whatever worker it arrives through."""
    _, u, v = shared()
    arrive(u, "a1")
    with pytest.raises(HostError, match="'a1' has arrived already"):
        arrive(v, "a1")


# What is compared with what, to the unit.


def spent(view: LedgerView, id: str, units: int) -> None:
    """Let a request arrive, be admitted for some units, and finish."""
    arrive(view, id, prompt=units)
    view.take(id, extend=units, reserve=0)
    view.finish(id, output=0)


def test_one_unit_of_credit_is_credit_and_none_is_none() -> None:
    """Who has used up its quantum to the unit is not offered while somebody has one unit left."""
    _, u, _v = shared()
    arrive(u, "a1", "b1")
    u.take("a1", extend=10, reserve=0)
    u.take("b1", extend=9, reserve=0)
    arrive(u, "a2", "b2")
    assert offered(u) == "b2"


def test_nobody_is_refilled_while_somebody_has_one_unit() -> None:
    """Neither whoever has it, nor anybody else."""
    ledger, u, _v = shared()
    spent(u, "a1", 9)
    arrive(u, "a2")
    u.take("a2", extend=1, reserve=0)
    assert (ledger.rounds, ledger.deficit("a"), ledger.unreported("a")) == (1, 10, 10)


def test_one_unit_of_credit_is_not_topped_up() -> None:
    """Others are refilled, as often as they need it; who has credit is not."""
    ledger, u, _v = shared()
    arrive(u, "a1", "b1")
    u.take("a1", extend=9, reserve=0)
    u.take("b1", extend=35, reserve=0)
    arrive(u, "b2")
    u.take("b2", extend=1, reserve=0)
    ledger.report("u")
    assert (ledger.rounds, ledger.deficit("a"), ledger.deficit("b")) == (4, 1, 4)


def test_what_a_worker_has_not_charged_is_not_missing_in_its_view() -> None:
    """The last unit that is reported to be left can be spent anywhere."""
    ledger, u, v = shared()
    arrive(u, "a1", "b1")
    for id, units in (("a1", 9), ("b1", 1)):
        u.take(id, extend=units, reserve=0)
    ledger.report("u")
    arrive(u, "a2", "b2")
    assert offered(v) == "a2"


def test_with_nobody_queued_no_refill_is_due() -> None:
    """Nor is anybody offered."""
    ledger, u, _v = shared()
    assert (ledger.rounds_due("u"), u.peek()) == (0, None)


def test_what_is_to_be_given_back_is_no_charge_that_others_do_not_know() -> None:
    """Delta counts charges alone: 4 at first, 20 in the end, whatever u has to give back meanwhile."""
    ledger, u, v = shared()
    assert ledger.unsettled == 0
    arrive(u, "a1", "a2")
    receipt = u.take("a1", extend=4, reserve=0)
    ledger.report("u")
    u.refund(receipt)
    assert (ledger.unreported("a"), ledger.unsettled) == (-4, 4)
    v.take("a2", extend=20, reserve=0)
    assert ledger.unsettled == 20
    ledger.validate()


def test_giving_back_everywhere_is_sound() -> None:
    """Two refunds of one unit each, at two workers, are within a delta of one."""
    ledger, u, v = shared()
    arrive(u, "a1", "a2")
    receipts = []
    for view, id in ((u, "a1"), (v, "a2")):
        receipts.append((view, view.take(id, extend=1, reserve=0)))
        ledger.report(view.worker)
    for view, receipt in receipts:
        view.refund(receipt)
    assert (ledger.unreported("a"), ledger.unsettled) == (-2, 1)
    ledger.validate()


def test_the_smallest_weight_and_look_are_taken_and_smaller_ones_named() -> None:
    """Both are at least 1."""
    ledger, u, _v = shared(look=1, weights={"a": 3})
    u.reweigh("a", 1)
    spent(u, "a1", 1)
    assert ledger.deficit("a") == 10
    with pytest.raises(ConfigError, match=r"^look = 0 .* integer >= 1"):
        shared(look=0)


@pytest.mark.parametrize("begun", ["new", "restored"])
def test_eight_requests_of_a_client_are_considered_unless_said(begun: str) -> None:
    """Also after a restart; the ninth is not, wherever it is cached."""
    ledger = SharedLedger(PolicyConfig())
    if begun == "restored":
        ledger = SharedLedger.restore(ledger.snapshot())
    view = LedgerView(ledger, "u", lambda request: len(request.blocks))
    arrive(view, *(f"a{number}" for number in range(1, 9)))
    arrive(view, "az", path=(1,))
    assert offered(view) == "a1"
    view.finish("a1", output=0)
    assert offered(view) == "az"


def test_how_far_is_looked_can_be_said_after_a_restart() -> None:
    """It is no part of a snapshot."""
    ledger = SharedLedger.restore(SharedLedger(PolicyConfig()).snapshot(), look=1)
    view = LedgerView(ledger, "u", lambda request: len(request.blocks))
    arrive(view, "a1")
    arrive(view, "a2", path=(1,))
    assert offered(view) == "a1"
