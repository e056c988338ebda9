"""Who is offered, who is due for a refill, and when: the accounts of all queued clients by their next round.

Every queued account stands in the bucket of the round in which its gate opens. Nobody is refilled while a queued
client has credit, so the present bucket has run empty when a refill comes; a refill is then nothing but moving on
to the next bucket that is not empty. No account is touched for it, and a thousand rounds of debt are one step.

A bucket orders its accounts by what each would offer: the longest cached prefix, ties by age.
"""

from __future__ import annotations

import heapq

from fairprefix.core.deficit import DeficitAccount
from fairprefix.core.heap import LazyHeap
from fairprefix.core.lane import Entry, Lane

_SPARE_ROUNDS = 64

Offer = tuple[int, int, int, "Standing"]
"""(-cached tokens, arrival, stamp, whose it is); in force while its account bears the same stamp."""


class Standing(DeficitAccount):
    """A deficit account and its place among the queued ones."""

    __slots__ = ("bucket", "offered", "rank", "reach", "stamp", "stuck")

    stuck: bool
    reach: int
    rank: int
    stamp: int

    def __init__(self, key: str, weight: int, lane: Lane, balance: int, *, quantum: int, settled_at: int) -> None:
        super().__init__(key, weight, lane, balance, quantum=quantum, settled_at=settled_at)
        self.bucket: Bucket | None = None
        """Where it stands; None while nothing of it is queued."""
        self.stuck = False
        """Not due in its bucket's round, though its gate will stay shut (credit gate, q above the slack)."""
        self.reach = 0
        """First round in which it may be admitted on overdraft."""
        self.offered: Entry | None = None
        """What its lane would offer, and does while it stands in a bucket."""
        self.rank = 0
        """-cached tokens of that, as of when it was offered."""
        self.stamp = 0
        """Number of its offers so far, void ones included."""

    def withdraw(self) -> None:
        """Void its offer."""
        if self.offered is not None:
            self.offered = None
            self.stamp += 1


class Bucket:
    """The queued accounts whose gate opens in the same round."""

    __slots__ = ("due", "heaps", "ready", "stuck")

    due: int
    ready: int
    stuck: int

    def __init__(self, due: int) -> None:
        self.due = due
        self.ready = 0
        self.stuck = 0
        self.heaps: dict[int, LazyHeap[Offer]] = {}
        """By the round in which overdraft reaches the accounts; one, or two, heaps when weights are equal."""

    def best(self, reached: int | None = None) -> Offer | None:
        """Return the best offer, of the accounts that overdraft reaches by round `reached` if that is given."""
        best = None
        for reach, heap in self.heaps.items():
            if reached is None or reach <= reached:
                top = heap.top()
                if top is not None and (best is None or top < best):
                    best = top
        return best

    def push(self, account: Standing, rank: int, seq: int) -> None:
        """Enter an account's offer."""
        heap = self.heaps.get(account.reach)
        if heap is None:
            heap = self.heaps[account.reach] = LazyHeap(_in_force)
        heap.push((rank, seq, account.stamp, account))


def _in_force(offer: Offer) -> bool:
    return offer[3].stamp == offer[2]


class RefillSchedule:
    """The buckets, and the round that all of them count from.

    Complexity: `place` O(log clients); `upcoming` O(1) amortised; `advance` O(1), whatever the number of clients.
    """

    round: int
    now: Bucket

    def __init__(self) -> None:
        self.round = 0
        self.now = Bucket(0)
        """The accounts whose gate is open, and those that are stuck."""
        self._later: dict[int, Bucket] = {}
        """Buckets of rounds to come; none of them is empty."""
        self._rounds: list[int] = []
        """A heap of their rounds, and of rounds whose bucket ran empty."""

    def place(self, account: Standing, *, due: int, reach: int, stuck: bool) -> bool:
        """Put a queued account into the bucket of the round `due` (now, if that is past).

        Returns whether it was elsewhere: then its offer is void and has to be made anew.
        """
        found = self.now if due <= self.round else self._later.get(due)
        if account.bucket is found and found and account.stuck is stuck and account.reach == reach:
            return False
        self.remove(account)
        bucket = self.now if due <= self.round else self._bucket(due)
        account.bucket, account.stuck, account.reach = bucket, stuck, reach
        bucket.stuck += stuck
        bucket.ready += not stuck
        return True

    def remove(self, account: Standing) -> None:
        """Take an account out of its bucket; its offer is void."""
        bucket = account.bucket
        if bucket:
            bucket.stuck -= account.stuck
            bucket.ready -= not account.stuck
            if bucket is not self.now and not bucket.ready and not bucket.stuck:
                del self._later[bucket.due]
        account.bucket = None
        account.withdraw()

    def offer(self, account: Standing, entry: Entry | None) -> None:
        """Set what a placed account offers; a stuck one offers nothing."""
        if entry is None or account.stuck or account.bucket is None:
            account.withdraw()
            return
        rank = -entry.match
        if account.offered is not entry or account.rank != rank:
            account.offered, account.rank = entry, rank
            account.stamp += 1
            account.bucket.push(account, rank, entry.seq)

    def view(self) -> tuple[int, Bucket]:
        """Return round and bucket to offer from: the present ones while somebody in there is not due."""
        if self.now.ready or self.now.stuck:
            return self.round, self.now
        upcoming = self._upcoming()
        return (self.round, self.now) if upcoming is None else (upcoming, self._later[upcoming])

    def overdraft(self, view_round: int) -> Offer | None:
        """Return the best offer of the accounts that overdraft reaches in a round."""
        offers = [
            best for due, bucket in self._later.items() if due > view_round and (best := bucket.best(view_round))
        ]
        return min(offers, default=None)

    def advance(self, round_next: int) -> None:
        """Commit the refills up to a later round, which `view` has returned."""
        self.now, self.round = self._later.pop(round_next), round_next

    def go_back(self, round_before: int) -> None:
        """Undo `advance`; accounts that have changed since must have been removed, and be placed again."""
        if round_before != self.round:
            if self.now.ready or self.now.stuck:
                self.now.due = self.round
                self._later[self.round] = self.now
                heapq.heappush(self._rounds, self.round)
            self.now, self.round = Bucket(round_before), round_before

    def first_later(self) -> Bucket | None:
        """Return the first bucket of the rounds to come."""
        upcoming = self._upcoming()
        return None if upcoming is None else self._later[upcoming]

    def take_round(self) -> int:
        """Take the round of the first bucket out of their order: `first_later` is the one after it."""
        taken = heapq.heappop(self._rounds)
        # A bucket that became empty and was needed again has left its round here twice.
        while self._rounds and self._rounds[0] == taken:
            heapq.heappop(self._rounds)
        return taken

    def return_rounds(self, rounds: list[int]) -> None:
        """Put back what `take_round` returned."""
        for round_passed in rounds:
            heapq.heappush(self._rounds, round_passed)

    def validate(self, queued: list[Standing]) -> None:
        """Check that the buckets count exactly the queued accounts."""
        buckets = [self.now, *self._later.values()]
        for account in queued:
            assert any(account.bucket is bucket for bucket in buckets), account.key
        for bucket in buckets:
            members = [account for account in queued if account.bucket is bucket]
            assert bucket.stuck == sum(account.stuck for account in members), bucket.stuck
            assert bucket.ready == len(members) - bucket.stuck, bucket.ready

    def _bucket(self, due: int) -> Bucket:
        bucket = self._later.get(due)
        if bucket is None:
            bucket = self._later[due] = Bucket(due)
            heapq.heappush(self._rounds, due)
            if len(self._rounds) > 2 * len(self._later) + _SPARE_ROUNDS:
                self._rounds = sorted(self._later)
        return bucket

    def _upcoming(self) -> int | None:
        """Return the first round to come that has a bucket."""
        while self._rounds and self._rounds[0] not in self._later:
            heapq.heappop(self._rounds)
        return self._rounds[0] if self._rounds else None
