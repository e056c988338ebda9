"""DLPM: deficit longest prefix match (arXiv 2501.14312, Algorithm 1), with the corrections of docs/theory.md.

Requests are offered in the order of their cached prefixes, but only those of clients with credit. Extend tokens
are charged at admission and output tokens as they are produced, so a counter may go below zero; when every queued
client is due, all due clients get one quantum, as often as it takes. Debt survives idleness; credit is kept but
never topped up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from fairprefix.core.accounts import OVERFLOW, AccountTable
from fairprefix.core.base import CORRECTIONS, BasePolicy
from fairprefix.core.compiling import mypyc_attr
from fairprefix.core.config import PolicyConfig
from fairprefix.core.deficit import rounds_until_above
from fairprefix.core.errors import at_least
from fairprefix.core.foresight import Foresight
from fairprefix.core.lane import Entry, Lane
from fairprefix.core.prefixes import Prefixes
from fairprefix.core.refill import RefillSchedule, Standing
from fairprefix.core.request import Client, Request


@mypyc_attr(allow_interpreted_subclasses=True)
class DLPM(BasePolicy):
    """Deficit longest prefix match, under the published gate or the credit gate.

    The paper's loop is replaced by an equal closed form: refills are lazy (`fairprefix.core.deficit`), are
    assumed when somebody is offered, and committed when that request is admitted. A request without room keeps
    its place and, if its client has credit, holds back the refill; a blocked one leaves the queue.
    """

    name: ClassVar[str] = "dlpm"

    def __init__(self, config: PolicyConfig, prefixes: Prefixes | None = None) -> None:
        super().__init__(config, prefixes)
        self._weights = dict(config.weights)
        self._slack = config.slack if config.gate == "credit" else None
        self._schedule = RefillSchedule()
        self._table = AccountTable(config.max_clients, self._open_account, self._can_forget)
        self._accounts = self._table.by_key

    def deficit(self, client: Client) -> int:
        """Return a client's deficit counter q in service units, refills included; 0 for an unknown client."""
        account = self._table.find(client)
        return self._settled_account(account).balance if account else 0

    def outstanding(self, client: Client) -> int:
        """Return h: the output that a client's admitted requests may still be charged, in service units."""
        account = self._table.find(client)
        return self._cost.output * account.outstanding if account else 0

    @property
    def rounds(self) -> int:
        """The number of refill rounds so far."""
        return self._schedule.round

    def reweigh(self, client: Client, weight: int) -> None:
        """Change a client's weight from the next refill on. O(log n)."""
        self._weights[client] = at_least("weight", weight, 1)
        account = self._table.find(client)
        if account and account.key == client:
            self._settled_account(account)
            account.weight, account.quantum = weight, weight * self.config.quantum
            self._update(account)

    def plan(self, limit: int, *, budget: int | None = None) -> Sequence[Request]:
        """Return the next `limit` requests, as if each were taken in its turn. O(planned log n)."""
        if type(self) is not DLPM or self.config.overdraft:
            # A subclass may have changed any rule: what follows from them is found by trying.
            return super().plan(limit, budget=budget)
        at_least("limit", limit, 0)
        left = at_least("budget", budget, 0) if budget is not None else None
        for _ in range(limit):
            changes = self._prefixes.changes()
            if not changes:
                break
            self._follow(changes)
        ahead = Foresight(self._schedule, self._cost.output, self._slack)
        planned: list[Entry] = []
        free = self.config.recompute == "free"
        try:
            while len(planned) < limit and left != 0 and (entry := self._offer_ahead(ahead)):
                request, done = entry.request, entry.done
                extend = request.input_tokens + done - entry.match
                charged = 0 if free and entry.paid else self._price(entry, extend)
                ahead.admit(self._accounts[entry.owner], entry, charged, max(request.max_output - done, 0))
                planned.append(entry)
                left = left and max(left - extend, 0)
        finally:  # also when the cache gives no answer
            ahead.undo(planned, [self._accounts[entry.owner] for entry in planned])
        return [entry.request for entry in planned]

    # Accounts.

    def _open_account(self, key: str) -> Standing:
        worst = self._settled_account(self._table[OVERFLOW]).balance if OVERFLOW in self._table else 0
        weight = self._weights.get(key, self.config.default_weight)
        return Standing(
            key,
            weight,
            Lane(self.config.bounded_wait),
            min(0, worst),
            quantum=weight * self.config.quantum,
            settled_at=self._schedule.round,
        )

    def _can_forget(self, account: Standing) -> bool:
        """Credit may be dropped, debt may not."""
        return self._settled_account(account).balance >= 0

    def _settled_account(self, account: Standing) -> Standing:
        if account.settled_at != self._schedule.round:
            account.settle(self._schedule.round, self._cost.output, self._slack)
        return account

    def _place(self, account: Standing) -> bool:
        """Bring the place of a settled account among the queued ones up to date; return whether it moved."""
        if not account.lane.waiting:
            self._schedule.remove(account)
            return False
        now, slack, output_cost = self._schedule.round, self._slack, self._cost.output
        rounds = account.rounds_due(output_cost, slack)
        stuck = slack is not None and account.committed(output_cost) + rounds * account.quantum <= 0
        # Only accounts that are due and may be overdrawn need to be told apart within a bucket.
        reach = 0
        if rounds and self.config.overdraft:
            reach = now + rounds_until_above(account.balance, -self.config.overdraft, account.quantum)
        return self._schedule.place(account, due=now + rounds, reach=reach, stuck=stuck)

    def _update(self, account: Standing) -> None:
        """Follow a change in a settled account's figures; what it offers stays the same."""
        if account.bucket is not None and not self._stays(account) and self._place(account):
            self._offer_account(account)

    def _stays(self, account: Standing) -> bool:
        """Return whether a settled account stands where it belongs, as far as that is told quickly: mostly."""
        bucket, slack, credit = account.bucket, self._slack, account.balance
        if bucket is None or account.stuck:
            return False
        if slack is not None and account.outstanding > 0:
            credit -= self._cost.output * account.outstanding
        if bucket is self._schedule.now:
            return credit > 0
        # After the refills until its round there is credit, and one refill earlier it is still due.
        refills = (bucket.due - self._schedule.round) * account.quantum
        if self.config.overdraft or credit <= -refills:
            return False
        before = refills - account.quantum
        return credit <= -before and (slack is None or account.balance <= slack - before)

    def _offer_account(self, account: Standing) -> None:
        self._schedule.offer(account, account.lane.candidate())

    # What the base asks for.

    def _owner(self, client: Client) -> str:
        return self._table.enlist(client).key

    def _lane(self, entry: Entry) -> Lane:
        return self._accounts[entry.owner].lane

    def _entered(self, entry: Entry, *, arrival: bool) -> None:  # noqa: ARG002 (no lift: debt speaks for itself)
        self._moved(entry)

    def _moved(self, entry: Entry) -> None:
        account = self._accounts[entry.owner]
        if account.settled_at != self._schedule.round:
            self._settled_account(account)
        if not account.lane.waiting or not self._stays(account):
            self._place(account)
        self._schedule.offer(account, account.lane.candidate())

    def _recounted(self, entry: Entry) -> None:
        self._update(self._accounts[entry.owner])

    def _reordered(self, entry: Entry) -> None:
        self._offer_account(self._accounts[entry.owner])

    def _candidate(self) -> Entry | None:
        view_round, bucket = self._schedule.view()
        best = bucket.best()
        if best is None and self.config.overdraft:
            best = self._schedule.overdraft(view_round)
        return best[3].offered if best else None

    def _offer_ahead(self, ahead: Foresight) -> Entry | None:
        """Return whom `_offer` would return after the admissions that are foreseen."""
        for _ in range(CORRECTIONS):
            offer = ahead.best()
            if offer is None:
                return None
            account, entry = offer
            match = self._prefixes.confirm(entry.request.id)
            if match == entry.match:
                return entry
            entry.match = match
            account.lane.rekey(entry)
            ahead.reordered(account)
        return entry

    def _price(self, entry: Entry, extend: int) -> int:  # noqa: ARG002 (the same for everybody)
        return self._cost.extend * extend

    def _prepare(self, entry: Entry) -> None:
        """Commit the refill without which the entry would not have been offered."""
        account = self._accounts[entry.owner]
        if account.bucket is self._schedule.now:
            return
        view_round, bucket = self._schedule.view()
        reached = self.config.overdraft and self._schedule.round < account.reach <= view_round
        if account.bucket is bucket or reached:
            self._schedule.advance(view_round)

    def _spend(self, entry: Entry, units: int, reserve: int) -> None:
        account = self._accounts[entry.owner]
        if account.settled_at != self._schedule.round:
            self._settled_account(account)
        account.balance -= units
        account.outstanding += reserve

    def _spend_output(self, tokens: Mapping[Client, int]) -> None:
        output_cost = self._cost.output
        for account, count in self._table.producers(tokens):
            if account.settled_at != self._schedule.round:
                self._settled_account(account)
            account.balance -= output_cost * count
            account.outstanding -= count
            if account.bucket is not None and not self._stays(account) and self._place(account):
                self._offer_account(account)

    def _settled(self, entry: Entry) -> None:
        self._table.release(self._accounts[entry.owner], entry.request.client)

    def _mark(self, entry: Entry) -> Callable[[], None]:
        account = self._accounts[entry.owner]
        before = (account.balance, account.outstanding, account.settled_at)
        round_before, bucket_before = self._schedule.round, account.bucket

        def undo() -> None:
            account.balance, account.outstanding, account.settled_at = before
            if self._schedule.round != round_before or account.bucket is not bucket_before:
                self._schedule.remove(account)
                self._schedule.go_back(round_before)

        return undo

    # State.

    def validate(self) -> None:
        """Check the counters' range and every account's place; see `BasePolicy.validate` for the rest."""
        super().validate()
        for account in self._table:
            self._settled_account(account)
            assert (account.bucket is not None) == (account.lane.waiting > 0), account.key
            assert account.quantum == account.weight * self.config.quantum, account.key
            live = sum(entry.owner == account.key for entry in self._entries.values())
            assert account.live == live, f"{account.key!r}: {account.live} live requests, not {live}"
            offered = account.lane.candidate() if account.bucket and not account.stuck else None
            assert account.offered is offered, f"{account.key!r}: offers {account.offered}, not {offered}"
            if account.bucket is not None and account.bucket is not self._schedule.now:
                opens = account.bucket.due - self._schedule.round
                assert opens == account.rounds_due(self._cost.output, self._slack) > 0, f"{account.key!r}: {opens}"
            elif account.bucket is not None:
                assert account.rounds_due(self._cost.output, self._slack) == 0, account.key
        self._schedule.validate([account for account in self._table if account.bucket])

    def _state(self) -> dict[str, Any]:
        for account in self._table:
            self._settled_account(account)
        return {
            "weights": dict(self._weights),
            "round": self._schedule.round,
            "accounts": self._table.dump(_SAVED),
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        self._weights = dict(state["weights"])
        self._schedule.round = state["round"]
        self._table.load(state["accounts"])

    def _canonical_state(self) -> tuple[object, ...]:
        accounts = [self._settled_account(account) for account in self._table]
        return (
            tuple(sorted(self._weights.items())),
            tuple(self._table.idle_keys()),
            tuple(sorted((a.key, a.weight, a.balance, a.outstanding, a.live, a.lane.turn) for a in accounts)),
        )


_SAVED = ("weight", "quantum", "balance", "outstanding", "settled_at", "live")
