"""Breaking any one rule of a policy makes the test named after it fail: the wrong variants of docs/theory.md.

Each variant changes one function of a shipping class, in the way that implementations have got it wrong; the check
that the rule's own test calls must then fail. That it passes on the shipping class is that test's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from attrs import frozen

from fairprefix.core.base import BasePolicy
from fairprefix.core.deficit import DeficitAccount
from fairprefix.core.dlpm import DLPM
from fairprefix.core.lane import Entry, Lane, Stage
from fairprefix.core.refill import Bucket, RefillSchedule, Standing
from fairprefix.core.request import Client
from fairprefix.core.vtc import VTC, _Counter
from tests.core import rules
from tests.support import dlpm, lpm, vtc


@frozen
class Variant:
    """A wrong rule, and the check that catches it."""

    name: str
    check: Callable[[], None]
    where: object
    function: str
    wrong: Callable[..., Any]
    also: tuple[object, str, Callable[..., Any]] | None = None
    """What else has to change for the variant to be the same rule throughout."""

    def patches(self) -> list[tuple[object, str, Callable[..., Any]]]:
        """Return what is put in place of what."""
        return [(self.where, self.function, self.wrong), *([self.also] if self.also else [])]


# DLPM.

settle = DeficitAccount.settle
open_account = DLPM._open_account
owner = DLPM._owner
reweigh = DLPM.reweigh
candidate = DLPM._candidate
preempt = BasePolicy.preempt
finish = BasePolicy.finish


def gate_at_zero(account: Standing, output_cost: int, slack: int | None) -> int:  # noqa: ARG001
    """Open the gate once q >= 0."""
    return max(0, -(account.balance // account.quantum))


def refill_any(self: RefillSchedule) -> tuple[int, Bucket]:
    """Move on as soon as anybody queued is due, without waiting for those who have credit."""
    upcoming = self._upcoming()
    return (self.round, self.now) if upcoming is None else (upcoming, self._later[upcoming])


def refill_only_the_waiting(account: Standing, round_now: int, output_cost: int, slack: int | None) -> None:
    """Let the rounds of an idle client pass by."""
    if account.lane.waiting:
        settle(account, round_now, output_cost, slack)
    account.settled_at = round_now


def top_up(account: Standing, round_now: int, output_cost: int, slack: int | None) -> None:  # noqa: ARG001
    """Give every round to everybody, due or not."""
    account.balance += (round_now - account.settled_at) * account.quantum
    account.settled_at = round_now


def charge_the_prompt(self: DLPM, entry: Entry, extend: int) -> int:  # noqa: ARG001
    """Charge the whole prompt."""
    return self._cost.extend * entry.request.input_tokens


def charge_no_output(self: DLPM, tokens: Mapping[Client, int]) -> None:
    """Count output tokens as produced without charging them."""
    for account, count in self._table.producers(tokens):
        account.outstanding -= count


def charge_output_at_the_end(self: DLPM, id: str, *, output: int) -> None:
    """Charge all output when the request finishes."""
    client = self._entries[id].request.client
    finish(self, id, output=output)
    self._table[client].balance -= self._cost.output * output


def forgive(self: DLPM, client: Client) -> str:
    """Let a client that was idle start without debt."""
    account = self._table.enlist(client)
    account.balance = max(account.balance, 0) if account.live == 1 else account.balance
    return account.key


def charge_again(self: DLPM, id: str, *, output: int, keep_hold: bool) -> None:
    """Forget that a preempted request has paid."""
    preempt(self, id, output=output, keep_hold=keep_hold)
    self._entries[id].paid = False


def drop_the_hold(self: DLPM, id: str, *, output: int, keep_hold: bool) -> None:
    """Count nothing for a request that its host will resume."""
    preempt(self, id, output=output, keep_hold=keep_hold)
    entry = self._entries[id]
    self._spend(entry, 0, -entry.reserve)
    entry.reserve = 0


def keep_the_hold(self: DLPM, id: str, *, output: int) -> None:
    """Leave outstanding what an aborted request will never produce."""
    self._entries[id].reserve = 0
    finish(self, id, output=output)


def commit_by_looking(self: DLPM) -> Entry | None:
    """Commit the refill that an offer assumes."""
    self._schedule.advance(self._schedule.view()[0])
    return candidate(self)


def keep_the_blocked(self: BasePolicy, entry: Entry) -> None:
    """Leave a blocked request in the queue, as one without room."""
    entry.stage = Stage.DEFERRED
    self._reordered(entry)


def leave_without_room(self: DLPM) -> Entry | None:
    """Pass over clients whose request has no room when it comes to who holds back the refill."""
    found = candidate(self)
    upcoming = self._schedule._upcoming()
    if found is None and upcoming is not None:
        best = self._schedule._later[upcoming].best()
        return best[3].lane.candidate() if best else None
    return found


def one_weight_for_all(self: DLPM, key: str) -> Standing:
    """Open every account with weight 1."""
    account = open_account(self, key)
    account.weight, account.quantum = 1, self.config.quantum
    return account


def rescale_the_debt(self: DLPM, client: Client, weight: int) -> None:
    """Divide the debt by the new weight."""
    account = self._table[client]
    account.balance = account.balance // weight
    reweigh(self, client, weight)


def charge_floats(self: DLPM, entry: Entry, extend: int) -> float:  # noqa: ARG001
    """Compute in floating point."""
    return float(self._cost.extend * extend)


def no_hold(self: Lane) -> Entry | None:
    """Offer another request when the oldest, whose turn it is, has no room."""
    oldest = self.oldest() if self.turn >= self._due_at else None
    best = self._matches.top()
    return oldest if oldest and oldest.stage is Stage.QUEUED else (best[3] if best else None)


def ignore_the_hold(account: Standing, output_cost: int) -> int:  # noqa: ARG001
    """Let the credit gate look at the counter alone."""
    return account.balance


def reach_everybody(value: int, threshold: int, quantum: int) -> int:
    """Admit on overdraft whatever the debt, and otherwise count rounds as they should be."""
    return 0 if threshold < 0 else max(0, (threshold - value) // quantum + 1)


# VTC.


def no_lift(self: VTC) -> int:  # noqa: ARG001
    """Lift nobody."""
    return 0


def one_branch(self: VTC) -> int:
    """Lift to those who are queued, but not to who left last."""
    lowest = self._backlogged.top()
    return lowest[0] if lowest else 0


def skip(self: VTC) -> Entry | None:
    """Offer the next client when the first one's request does not fit."""
    able = [account for account in self._table if account.lane.candidate()]
    return min(able, key=lambda account: account.balance).lane.candidate() if able else None


def vtc_charges_extend(self: VTC, entry: Entry, extend: int) -> int:  # noqa: ARG001
    """Charge what is computed where the whole prompt is due."""
    return self._cost.extend * extend


def vtc_without_weights(self: VTC, key: str) -> _Counter:
    """Open every account with weight 1."""
    return _Counter(key, 1, Lane(patience=1), balance=0 * len(self._weights))


def accept_anything(field: str, value: Any, least: int) -> Any:  # noqa: ANN401, ARG001
    """Check nothing."""
    return value


VARIANTS = [
    Variant(
        "admit at q >= 0",
        lambda: rules.check_gate(dlpm),
        DeficitAccount,
        "rounds_due",
        gate_at_zero,
    ),
    Variant("refill any", lambda: rules.check_refill_needs_all(dlpm), RefillSchedule, "view", refill_any),
    Variant(
        "refill past those without room",
        lambda: rules.check_no_room_keeps_its_place(dlpm),
        DLPM,
        "_candidate",
        leave_without_room,
    ),
    Variant(
        "refill only the waiting",
        lambda: rules.check_refill_reaches_idle_clients(dlpm),
        DeficitAccount,
        "settle",
        refill_only_the_waiting,
    ),
    Variant(
        "top up idle credit",
        lambda: rules.check_credit_is_not_topped_up(dlpm),
        DeficitAccount,
        "settle",
        top_up,
    ),
    Variant(
        "charge the whole prompt", lambda: rules.check_extend_is_charged(dlpm), DLPM, "_price", charge_the_prompt
    ),
    Variant(
        "do not charge output",
        lambda: rules.check_output_is_charged_as_produced(dlpm),
        DLPM,
        "_spend_output",
        charge_no_output,
    ),
    Variant(
        "charge output only at the end",
        lambda: rules.check_output_is_charged_as_produced(dlpm),
        DLPM,
        "finish",
        charge_output_at_the_end,
        also=(DLPM, "_spend_output", charge_no_output),
    ),
    Variant(
        "charge output once more at the end",
        lambda: rules.check_output_is_charged_as_produced(dlpm),
        DLPM,
        "finish",
        charge_output_at_the_end,
    ),
    Variant("forgive debt on return", lambda: rules.check_debt_survives_idleness(dlpm), DLPM, "_owner", forgive),
    Variant(
        "forget debtors",
        lambda: rules.check_debt_survives_idleness(dlpm),
        DLPM,
        "_can_forget",
        lambda _self, _account: True,
    ),
    Variant(
        "charge twice after a preemption",
        lambda: rules.check_recomputation_is_free(dlpm),
        DLPM,
        "preempt",
        charge_again,
    ),
    Variant(
        "drop the hold on preemption",
        lambda: rules.check_hold_survives_preemption(dlpm),
        DLPM,
        "preempt",
        drop_the_hold,
    ),
    Variant(
        "do not give back on abort",
        lambda: rules.check_abort_gives_the_hold_back(dlpm),
        DLPM,
        "finish",
        keep_the_hold,
    ),
    Variant(
        "commit by looking",
        lambda: rules.check_looking_commits_nothing(dlpm),
        DLPM,
        "_candidate",
        commit_by_looking,
    ),
    Variant(
        "let the blocked hold back the rest",
        lambda: rules.check_blocked_frees_others(dlpm),
        BasePolicy,
        "_dequeue",
        keep_the_blocked,
    ),
    Variant("ignore weights", lambda: rules.check_weights_count(dlpm), DLPM, "_open_account", one_weight_for_all),
    Variant("rescale debt", lambda: rules.check_reweigh_keeps_debt(dlpm), DLPM, "reweigh", rescale_the_debt),
    Variant("count in floats", lambda: rules.check_counters_are_integers(dlpm), DLPM, "_price", charge_floats),
    Variant("bounded wait without hold", lambda: rules.check_bounded_wait_holds(lpm), Lane, "candidate", no_hold),
    Variant(
        "bounded wait without hold, by client",
        lambda: rules.check_bounded_wait_holds(dlpm),
        Lane,
        "candidate",
        no_hold,
    ),
    Variant(
        "credit gate without hold",
        lambda: rules.check_credit_gate(dlpm),
        DeficitAccount,
        "committed",
        ignore_the_hold,
    ),
    Variant(
        "overdraft without limit",
        lambda: rules.check_overdraft(dlpm),
        "fairprefix.core.dlpm",
        "rounds_until_above",
        reach_everybody,
    ),
    Variant(
        "a quantum of 0",
        rules.check_quantum_must_be_positive,
        "fairprefix.core.config",
        "at_least",
        accept_anything,
    ),
    Variant("VTC without lift", lambda: rules.check_lift_to_the_lowest(vtc), VTC, "_floor", no_lift),
    Variant(
        "VTC without the second branch of the lift",
        lambda: rules.check_lift_to_the_last_that_left(vtc),
        VTC,
        "_floor",
        one_branch,
    ),
    Variant("VTC that skips", lambda: rules.check_head_of_line(vtc), VTC, "_candidate", skip),
    Variant("VTC that charges extend", lambda: rules.check_vtc_charges(vtc), VTC, "_price", vtc_charges_extend),
    Variant(
        "VTC without weights", lambda: rules.check_vtc_weights(vtc), VTC, "_open_account", vtc_without_weights
    ),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: str(variant.name))
def test_a_wrong_rule_is_caught(variant: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Breaking one rule of a shipping policy makes the check that is named after the rule fail."""
    for where, function, wrong in variant.patches():
        if isinstance(where, str):
            monkeypatch.setattr(f"{where}.{function}", wrong)
        else:
            monkeypatch.setattr(where, function, wrong)
    with pytest.raises(AssertionError):
        variant.check()


def test_every_check_passes_on_the_shipping_policies() -> None:
    """No check fails unless a rule is broken."""
    for variant in VARIANTS:
        variant.check()
