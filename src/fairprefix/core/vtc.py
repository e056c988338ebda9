"""VTC: the virtual token counter (arXiv 2401.00588, Algorithm 2).

The client with the smallest counter is next, its oldest request first. Counters only grow; a client that comes
back after being idle is lifted to the others, so that it cannot spend a share that it left unused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import gcd, lcm
from typing import Any, ClassVar

from fairprefix.core.accounts import OVERFLOW, Account, AccountTable
from fairprefix.core.base import BasePolicy
from fairprefix.core.compiling import mypyc_attr
from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import at_least
from fairprefix.core.heap import LazyHeap
from fairprefix.core.lane import DEFERRED, Entry, Lane
from fairprefix.core.prefixes import Prefixes
from fairprefix.core.request import Client


class _Counter(Account):
    """`balance` is the virtual counter: service divided by weight, in units of 1/scale."""

    __slots__ = ("offer", "stamp")

    def __init__(self, key: str, weight: int, lane: Lane, balance: int) -> None:
        super().__init__(key, weight, lane, balance)
        self.offer: tuple[int, int] | None = None
        """(counter, arrival of its oldest request) while it is backlogged."""
        self.stamp = 0
        """Number of its offers so far."""


_Offer = tuple[int, int, int, _Counter]
"""(counter, arrival, stamp, whose it is); in force while its account bears the same stamp."""


def _in_force(offer: _Offer) -> bool:
    account = offer[3]
    return account.stamp == offer[2] and account.offer is not None


@mypyc_attr(allow_interpreted_subclasses=True)
class VTC(BasePolicy):
    """Virtual token counter with both branches of the lift, and integer weights.

    Head of line: once a request has been refused for lack of room, nobody is offered until the next pass;
    offering the next client instead would void the paper's Lemma 4.3. Blocked requests do not count, neither
    for that nor for the lift.
    """

    name: ClassVar[str] = "vtc"

    def __init__(self, config: PolicyConfig, prefixes: Prefixes | None = None) -> None:
        super().__init__(config, prefixes)
        self._weights = dict(config.weights)
        # Counters are kept in units of 1/scale, so that dividing by any weight in use is exact.
        self._scale = lcm(config.default_weight, *self._weights.values())
        self._table = AccountTable(config.max_clients, self._open_account, self._can_forget)
        self._backlogged: LazyHeap[_Offer] = LazyHeap(_in_force)
        self._last_left: str | None = None
        """Key of the account whose queue ran empty last."""

    def counter(self, client: Client) -> int:
        """Return a client's virtual counter in service units (rounded down); 0 for an unknown client."""
        account = self._table.find(client)
        return account.balance // self._scale if account else 0

    def reweigh(self, client: Client, weight: int) -> None:
        """Change a client's weight for the service to come. O(1), or O(clients) for a weight never seen."""
        at_least("weight", weight, 1)
        self._weights[client] = weight
        factor = weight // gcd(weight, self._scale)
        if factor > 1:
            self._scale *= factor
            for account in self._table:
                account.balance *= factor
                self._offer_account(account)
        account_of = self._table.find(client)
        if account_of and account_of.key == client:
            account_of.weight = weight

    def _open_account(self, key: str) -> _Counter:
        worst = self._table[OVERFLOW].balance if OVERFLOW in self._table else 0
        weight = self._weights.get(key, self.config.default_weight)
        return _Counter(key, weight, Lane(patience=1), worst)

    def _can_forget(self, account: _Counter) -> bool:
        """A returning client is lifted to the floor: a counter below it need not be remembered."""
        return account.key != self._last_left and account.balance <= self._floor()

    def _owner(self, client: Client) -> str:
        return self._table.enlist(client).key

    def _lane(self, entry: Entry) -> Lane:
        return self._table[entry.owner].lane

    def _entered(self, entry: Entry, *, arrival: bool) -> None:
        account = self._table[entry.owner]
        if arrival and account.lane.waiting == 1:
            account.balance = max(account.balance, self._floor())
        self._offer_account(account)

    def _floor(self) -> int:
        """Return what a client that was not backlogged is lifted to."""
        lowest = self._lowest()
        if lowest:
            return lowest.balance
        return self._table[self._last_left].balance if self._last_left is not None else 0

    def _moved(self, entry: Entry) -> None:
        self._offer_account(self._table[entry.owner])

    def _recounted(self, entry: Entry) -> None:
        self._offer_account(self._table[entry.owner])

    def _reordered(self, entry: Entry) -> None:
        """Do nothing: the cache plays no part in the order."""

    def _offer_account(self, account: _Counter) -> None:
        """Bring the account's place among the backlogged ones up to date.

        A counter that has grown may stay where it is: it is looked up again when it gets to the front.
        """
        oldest = account.lane.oldest()
        if oldest is None:
            if account.offer:
                account.offer, self._last_left = None, account.key
            return
        offer = account.offer
        if offer is None or offer[1] != oldest.seq or offer[0] > account.balance:
            self._offer_at(account, oldest.seq)

    def _offer_at(self, account: _Counter, oldest: int) -> None:
        account.offer = (account.balance, oldest)
        account.stamp += 1
        self._backlogged.push((account.balance, oldest, account.stamp, account))

    def _lowest(self) -> _Counter | None:
        """Return the backlogged account with the smallest counter, ties by the age of its oldest request."""
        while lowest := self._backlogged.top():
            counter, oldest, _, account = lowest
            if counter == account.balance:
                return account
            self._offer_at(account, oldest)
        return None

    def _candidate(self) -> Entry | None:
        if any(entry.stage is DEFERRED for entry in self._deferred):
            return None
        lowest = self._lowest()
        return lowest.lane.candidate() if lowest else None

    def _price(self, entry: Entry, extend: int) -> int:
        tokens = entry.request.input_tokens if self.config.vtc_charge == "input" else extend
        return self._cost.extend * tokens

    def _prepare(self, entry: Entry) -> None:
        """Do nothing: what is offered rests on no assumption."""

    def _enter_running(self, entry: Entry, extend: int, reserve: int) -> int:
        """Remember the weight: whatever is given back later is worth as much as when it was charged."""
        entry.weight = self._table[entry.owner].weight
        return super()._enter_running(entry, extend, reserve)

    def _spend(self, entry: Entry, units: int, reserve: int) -> None:
        account = self._table[entry.owner]
        account.balance += units * (self._scale // entry.weight)
        account.outstanding += reserve

    def _spend_output(self, tokens: Mapping[Client, int]) -> None:
        for account, count in self._table.producers(tokens):
            account.balance += self._cost.output * count * (self._scale // account.weight)
            account.outstanding -= count

    def _settled(self, entry: Entry) -> None:
        self._table.release(self._table[entry.owner], entry.request.client)

    def _mark(self, entry: Entry) -> Callable[[], None]:
        account, last_left = self._table[entry.owner], self._last_left
        balance, outstanding = account.balance, account.outstanding

        def undo() -> None:
            account.balance, account.outstanding = balance, outstanding
            self._last_left = last_left

        return undo

    def _state(self) -> dict[str, Any]:
        return {
            "weights": dict(self._weights),
            "scale": self._scale,
            "last_left": self._last_left,
            "accounts": self._table.dump(_SAVED),
        }

    def _load_state(self, state: dict[str, Any]) -> None:
        self._weights, self._scale = dict(state["weights"]), state["scale"]
        self._last_left = state["last_left"]
        self._table.load(state["accounts"])

    def _canonical_state(self) -> tuple[object, ...]:
        least = min((account.balance for account in self._table), default=0)
        accounts = sorted((a.key, a.weight, a.balance - least, a.outstanding, a.live) for a in self._table)
        weights = tuple(sorted(self._weights.items()))
        return (self._last_left, self._scale, weights, tuple(self._table.idle_keys()), tuple(accounts))


_SAVED = ("weight", "balance", "outstanding")
