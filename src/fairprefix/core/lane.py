"""The waiting requests of one queue, in arrival order and in the order of their cached prefixes."""

from __future__ import annotations

from enum import Enum

from fairprefix.core.compiling import mypyc_attr
from fairprefix.core.heap import LazyHeap
from fairprefix.core.request import Request


class Stage(Enum):
    """Where a request stands in the life cycle drawn in `fairprefix.core.policy`."""

    QUEUED = "queued"
    DEFERRED = "deferred"
    """Queued, but refused for lack of room in this pass."""
    BLOCKED = "blocked"
    RUNNING = "running"
    HELD = "held"
    """Preempted; the host resumes it by itself."""


# Up to Python 3.11 looking a member up in its class costs ten times as much as a name of the module.
QUEUED, DEFERRED, BLOCKED, RUNNING, HELD = Stage
WAITING = (QUEUED, DEFERRED)


class Entry:
    """What a policy keeps about one request that is not finished yet."""

    # The interpreter lays them out by name: `stage` and what is read with it lie side by side.
    __slots__ = (
        *("request", "seq", "owner", "stage", "match", "done", "paid", "priced"),
        *("weight", "advanced", "serial", "extend", "reserve", "charged", "times_entered", "times_ranked"),
    )

    def __init__(self, request: Request, seq: int, owner: str) -> None:
        self.request = request
        self.seq = seq
        """Place in the order of arrival; kept over blocking, preemption and refunds."""
        self.owner = owner
        """Key of the account that pays for it."""
        self.stage = QUEUED
        self.match = 0
        """Cached tokens of its prompt, as last heard; kept up to date while it waits."""
        self.done = 0
        """Output tokens produced before the present admission."""
        self.paid = False
        """An earlier admission has paid for its prompt."""
        self.priced = False
        """The present admission is charged for (not when recomputation is free and it has paid before)."""
        self.weight = 1
        """Weight of its client when it was admitted (VTC divides charge and refund by the same weight)."""
        self.advanced = False
        """The present admission counted as a turn of its lane."""
        self.serial = -1
        """The receipt that is in force; -1 when there is none."""
        self.extend = 0
        self.reserve = 0
        """Output tokens that it may produce beyond `done` under the present admission."""
        self.charged = 0
        """Service units charged by the present admission."""
        self.times_entered = 0
        """Times that it was put into the order of arrival; what its lane holds of the times before is stale."""
        self.times_ranked = 0
        """The same of the order of cached prefixes."""


_NEVER = 1 << 62

_Arrival = tuple[int, int, Entry]
"""(place in the order of arrival, how often entered, entry)."""

_Match = tuple[int, int, int, Entry]
"""(-cached tokens, place in the order of arrival, how often ranked, entry)."""


def _waits(item: _Arrival) -> bool:
    entry = item[2]
    return entry.times_entered == item[1] and entry.stage in WAITING


def _is_queued(item: _Match) -> bool:
    entry = item[3]
    return entry.times_ranked == item[2] and entry.stage is QUEUED


@mypyc_attr(allow_interpreted_subclasses=True)
class Lane:
    """A queue that offers the longest cached prefix first, and every `patience`-th time its oldest request.

    With `patience` 1 it is first come, first served; with None it never looks at age (pure LPM). If the oldest
    is due but was refused for lack of room, the lane offers nothing else until that one is placed: this hold is
    what makes the wait bounded. A request with p older ones starts at or before admission `patience * (p + 1)`.

    Complexity: every operation is O(log n) amortised in the number of requests that wait in it.
    """

    __slots__ = ("_arrivals", "_due_at", "_matches", "_oldest_asked", "patience", "turn", "waiting")

    patience: int | None
    waiting: int
    turn: int

    def __init__(self, patience: int | None) -> None:
        self.patience = patience
        self._due_at = _NEVER if patience is None else patience - 1
        """The turn in which the oldest request is due."""
        self._oldest_asked = False
        """Whether entries taken on trial may have been dropped from the order of arrival."""
        self.waiting = 0
        """Requests QUEUED or DEFERRED."""
        self.turn = 0
        """Admissions since the oldest request was last taken out of turn."""
        self._arrivals: LazyHeap[_Arrival] = LazyHeap(_waits)
        self._matches: LazyHeap[_Match] = LazyHeap(_is_queued)

    def enter(self, entry: Entry) -> None:
        """Queue an entry; its stage says whether it is offered in this pass."""
        self.waiting += 1
        self._arrive(entry)
        self.rekey(entry)

    def mark(self) -> int:
        """Begin to take entries on trial; return the turn, to be restored when they have been put back."""
        self._oldest_asked = False
        return self.turn

    def put_back(self, entry: Entry) -> None:
        """Queue an entry again that was taken on trial."""
        self.waiting += 1
        if self._oldest_asked:
            self._arrive(entry)
        self.rekey(entry)

    def leave(self) -> None:
        """Count out an entry that waited, and is not admitted."""
        self.waiting -= 1

    def rekey(self, entry: Entry) -> None:
        """Note that the cached prefix of a waiting entry has changed, or that it is offered again."""
        if self.patience != 1:
            entry.times_ranked += 1
            self._matches.push((-entry.match, entry.seq, entry.times_ranked, entry))

    def oldest(self) -> Entry | None:
        """Return the entry that arrived first among those that wait, deferred or not."""
        self._oldest_asked = True
        first = self._arrivals.top()
        return first[2] if first else None

    def candidate(self) -> Entry | None:
        """Return the entry to offer, or None when all are deferred or the oldest is waited for."""
        if self.turn >= self._due_at:
            oldest = self.oldest()
            return oldest if oldest and oldest.stage is QUEUED else None
        best = self._matches.top()
        return best[3] if best else None

    def admit(self, entry: Entry) -> bool:
        """Count out an entry that still waits, and advance the turn; return whether the admission counted.

        While the oldest is due, the admission of any other one (a host may take what it likes) does not count:
        the oldest stays due.
        """
        self.waiting -= 1
        if self.patience is None or (self.turn >= self._due_at and entry is not self.oldest()):
            return False
        self.turn = (self.turn + 1) % self.patience
        return True

    def _arrive(self, entry: Entry) -> None:
        entry.times_entered += 1
        self._arrivals.push((entry.seq, entry.times_entered, entry))

    def take_back(self) -> None:
        """Take back the turn of an admission that counted, but did not happen."""
        assert self.patience is not None, "without patience no admission counts"
        self.turn = (self.turn - 1) % self.patience
