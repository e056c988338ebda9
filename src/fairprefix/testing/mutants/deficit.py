"""Wrong variants of DLPM: what it charges, when it refills, and what it remembers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairprefix.core.config import PolicyConfig
from fairprefix.core.cost import CostWeights
from fairprefix.core.dlpm import DLPM
from fairprefix.core.lane import Entry, Lane, Stage
from fairprefix.core.prefixes import Prefixes
from fairprefix.core.refill import Standing
from fairprefix.core.request import Client

WAITING = (Stage.QUEUED, Stage.DEFERRED)


class _GateAtZero(Standing):
    __slots__ = ()

    def rounds_due(self, output_cost: int, slack: int | None) -> int:  # noqa: ARG002
        """Count rounds until the counter is 0."""
        return max(0, -(self.balance // self.quantum))


class AdmitsAtZero(DLPM):
    """Admits while q >= 0 instead of q > 0."""

    def _open_account(self, key: str) -> Standing:
        account = super()._open_account(key)
        account.__class__ = _GateAtZero
        return account


class RefillsAny(DLPM):
    """Refills whoever is next in the order of prefixes, although other queued clients still have credit."""

    def _candidate(self) -> Entry | None:
        offers = [offer for account in self._table if (offer := account.lane.candidate())]
        return min(offers, key=lambda entry: (-entry.match, entry.seq), default=None)

    def _prepare(self, entry: Entry) -> None:
        account = self._settled_account(self._table[entry.owner])
        account.balance += account.rounds_due(self._cost.output, self._slack) * account.quantum


class RefillsTheWaiting(DLPM):
    """Refills only clients that are queued: who is idle in debt stays in debt."""

    def _owner(self, client: Client) -> str:
        key = super()._owner(client)
        account = self._table[key]
        if not account.lane.waiting:
            account.settled_at = self._schedule.round
        return key


class _ToppedUp(Standing):
    __slots__ = ()

    def settle(self, round_now: int, output_cost: int, slack: int | None) -> None:  # noqa: ARG002
        """Take every refill, due or not."""
        self.balance += (round_now - self.settled_at) * self.quantum
        self.settled_at = round_now


class TopsUp(DLPM):
    """Tops up the credit of clients that are idle."""

    def _open_account(self, key: str) -> Standing:
        account = super()._open_account(key)
        account.__class__ = _ToppedUp
        return account


class ForgivesDebt(DLPM):
    """Forgets a client's debt when it leaves and comes back (appendix A.2 of the paper)."""

    def _owner(self, client: Client) -> str:
        key = super()._owner(client)
        account = self._settled_account(self._table[key])
        if account.live == 1:
            account.balance = max(0, account.balance)
        return key


class ChargesThePrompt(DLPM):
    """Charges the whole prompt where only the extend tokens are due."""

    def _price(self, entry: Entry, extend: int) -> int:  # noqa: ARG002
        return self._cost.extend * entry.request.input_tokens


class ChargesNoOutput(DLPM):
    """Counts output as produced, and charges nothing for it."""

    def produced(self, tokens: Mapping[Client, int]) -> None:
        """Count, at a price of 0."""
        cost, self._cost = self._cost, CostWeights(1, 0)
        super().produced(tokens)
        self._cost = cost


class ChargesAtTheEnd(ChargesNoOutput):
    """Charges output when the request finishes."""

    def finish(self, id: str, *, output: int) -> None:
        """Charge, and settle."""
        account = self._table[self._get(id, tuple(Stage)).owner]
        self._settled_account(account).balance -= self._cost.output * output
        super().finish(id, output=output)


class ChargesTwice(DLPM):
    """Charges again what is computed again after a preemption, although recomputation is free."""

    def preempt(self, id: str, *, output: int, keep_hold: bool) -> None:
        """Forget that the request has paid."""
        super().preempt(id, output=output, keep_hold=keep_hold)
        self._entries[id].paid = False


class DropsTheHold(DLPM):
    """Counts nothing as outstanding for a preempted request that the engine resumes by itself."""

    def preempt(self, id: str, *, output: int, keep_hold: bool) -> None:
        """Drop what is outstanding."""
        super().preempt(id, output=output, keep_hold=keep_hold)
        entry = self._entries[id]
        self._spend(entry, 0, -entry.reserve)
        entry.reserve = 0
        self._moved(entry)


class KeepsTheHold(DLPM):
    """Leaves outstanding what an aborted request will never produce."""

    def finish(self, id: str, *, output: int) -> None:
        """Pretend that nothing was left to produce."""
        entry = self._get(id, tuple(Stage))
        if entry.stage is Stage.RUNNING:
            entry.reserve = output - entry.done
        super().finish(id, output=output)


class LosesRefunds(DLPM):
    """Keeps the charge of an admission that did not happen."""

    def refund(self, receipt: Any) -> None:  # noqa: ANN401 (a receipt)
        """Give nothing back."""
        super().refund(receipt)
        account = self._table[self._entries[receipt.request].owner]
        account.balance -= receipt.charged
        self._moved(self._entries[receipt.request])


class CommitsByLooking(DLPM):
    """Commits the refill that an offer assumes, although nobody was admitted yet."""

    def _candidate(self) -> Entry | None:
        self._schedule.advance(self._schedule.view()[0])
        return super()._candidate()


class FreezesOnBlocked(DLPM):
    """Lets a blocked request with credit hold back everybody's refill."""

    def _candidate(self) -> Entry | None:
        refill = self._schedule.view()[0] != self._schedule.round
        if refill and any(self._blocks(entry) for entry in self._entries.values()):
            return None
        return super()._candidate()

    def _blocks(self, entry: Entry) -> bool:
        return entry.stage is Stage.BLOCKED and self._settled_account(self._table[entry.owner]).balance >= 0


class IgnoresWeights(DLPM):
    """Gives every client the same quantum."""

    def _open_account(self, key: str) -> Standing:
        account = super()._open_account(key)
        account.weight, account.quantum = 1, self.config.quantum
        return account


class RescalesDebt(DLPM):
    """Divides a client's debt by its new weight."""

    def reweigh(self, client: Client, weight: int) -> None:
        """Rescale, and change the weight."""
        account = self._table.find(client)
        if account:
            self._settled_account(account).balance //= weight
        super().reweigh(client, weight)


class CountsInFloats(DLPM):
    """Keeps counters as floating-point numbers."""

    def _spend(self, entry: Entry, units: int, reserve: int) -> None:
        super()._spend(entry, units, reserve)
        account: Any = self._table[entry.owner]
        account.balance = float(account.balance)


class _NoHold(Lane):
    def candidate(self) -> Entry | None:
        """Offer the best match when the oldest, whose turn it is, has no room."""
        best = self._matches.top()
        return super().candidate() or (best[3] if best else None)


class WaitsWithoutHold(DLPM):
    """Takes the oldest request in turn, but passes it over when it does not fit."""

    def _open_account(self, key: str) -> Standing:
        account = super()._open_account(key)
        account.lane = _NoHold(self.config.bounded_wait)
        return account


class ForgetsOnRestore(DLPM):
    """Loses debts when it is restored from a snapshot."""

    def _load_state(self, state: dict[str, Any]) -> None:
        super()._load_state(state)
        for account in self._table:
            account.balance = max(0, account.balance)


class IgnoresPrefixes(DLPM):
    """Serves each client first come, first served, while claiming to look at the cache."""

    def __init__(self, config: PolicyConfig, prefixes: Prefixes | None = None) -> None:
        super().__init__(config, None)
        del prefixes


class SpinsWithoutRoom(DLPM):
    """Looks again and again for a request that fits: Algorithm 1 taken literally never ends when nothing does."""

    def _candidate(self) -> Entry | None:
        found = super()._candidate()
        while found is None and any(entry.stage is Stage.DEFERRED for entry in self._entries.values()):
            found = super()._candidate()
        return found
