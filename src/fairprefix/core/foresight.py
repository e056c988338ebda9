"""Whom DLPM would admit next, one after the other, found without admitting anybody.

An account that is planned from leaves its bucket for a heap of the plan's own, where accounts stand by the round
in which they would be offered next. Buckets and rounds stay as they are; counters and queues of these few accounts
are changed as admissions would change them, and put back by `undo`.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heappop, heappush, heapreplace

from fairprefix.core.lane import QUEUED, RUNNING, Entry
from fairprefix.core.refill import RefillSchedule, Standing

_NOTHING = 1
"""Stands for the rank of an account that offers nothing: ranks are never above 0."""

_Next = tuple[int, int, int, Standing, Entry | None]
"""(round, -cached tokens, arrival, whose offer it is, what is offered)."""


class Foresight:
    """The buckets of a schedule as they would be after admissions that do not happen.

    Complexity: O(log n) for every operation.

    Args:
        schedule: the buckets.
        output_cost: service units per output token.
        slack: of the credit gate; None: the published gate.
    """

    def __init__(self, schedule: RefillSchedule, output_cost: int, slack: int | None) -> None:
        self._schedule = schedule
        self._output_cost = output_cost
        self._slack = slack
        self._round = schedule.round
        self._bucket = schedule.now
        self._members = schedule.now.ready + schedule.now.stuck
        """Accounts in the bucket that were not planned from."""
        self._planned: list[_Next] = []
        """A heap of those that were, and wait."""
        self._before: dict[Standing, tuple[int, int, int, int]] = {}
        """What their figures were."""
        self._silent = 0
        self._passed: list[int] = []
        """Rounds that were taken out of the schedule's order."""

    def best(self) -> tuple[Standing, Entry] | None:
        """Return what is offered, and whose it is; None when nothing is."""
        while True:
            offer = self._bucket.best() if self._members else None
            own = self._planned[0] if self._planned and self._planned[0][0] <= self._round else None
            if offer is not None and (own is None or (offer[0], offer[1]) < (own[1], own[2])):
                account = offer[3]
                assert account.offered is not None, account.key
                return account, account.offered
            if own is not None:
                return (own[3], own[4]) if own[4] is not None else None
            if self._members or not self._move_on():
                return None

    def reordered(self, account: Standing) -> None:
        """Follow a change in what the account that is offered offers."""
        entry = account.lane.candidate()
        if account in self._before:
            heapreplace(self._planned, self._next(self._planned[0][0], entry, account))
        else:
            self._schedule.offer(account, entry)

    def admit(self, account: Standing, entry: Entry, charged: int, reserve: int) -> None:
        """Suppose that an entry of the account that is offered is admitted."""
        lane = account.lane
        if account in self._before:
            heappop(self._planned)
        else:
            self._before[account] = (account.balance, account.outstanding, account.settled_at, lane.mark())
            self._members -= 1
            account.withdraw()
        if account.settled_at != self._round:
            account.settle(self._round, self._output_cost, self._slack)
        lane.admit(entry)
        entry.stage = RUNNING
        account.balance -= charged
        account.outstanding += reserve
        if lane.waiting:
            self._place(account)

    def undo(self, planned: Iterable[Entry], accounts: Iterable[Standing]) -> None:
        """Put everything back."""
        for entry, account in zip(planned, accounts, strict=True):
            entry.stage = QUEUED
            account.lane.put_back(entry)
        for account, (balance, outstanding, settled_at, turn) in self._before.items():
            account.balance, account.outstanding, account.settled_at = balance, outstanding, settled_at
            account.lane.turn = turn
            self._schedule.offer(account, account.lane.candidate())
        self._schedule.return_rounds(self._passed)

    def _place(self, account: Standing) -> None:
        output_cost, slack = self._output_cost, self._slack
        rounds = account.rounds_due(output_cost, slack)
        stuck = slack is not None and account.committed(output_cost) + rounds * account.quantum <= 0
        entry = None if stuck else account.lane.candidate()
        heappush(self._planned, self._next(self._round + rounds, entry, account))

    def _next(self, due: int, entry: Entry | None, account: Standing) -> _Next:
        if entry is None:
            self._silent += 1  # those that offer nothing are told apart by a number
            return due, _NOTHING, self._silent, account, None
        return due, -entry.match, entry.seq, account, entry

    def _move_on(self) -> bool:
        """Go to the next round in which somebody is offered; return False when there is none."""
        own = self._planned[0][0] if self._planned else None
        later = self._schedule.first_later()
        if later is not None and (own is None or later.due <= own):
            self._passed.append(self._schedule.take_round())
            self._round, self._bucket = later.due, later
            self._members = later.ready + later.stuck
        elif own is not None:
            self._round = own
        return later is not None or own is not None
