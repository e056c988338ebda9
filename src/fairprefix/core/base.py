"""The life cycle of requests, shared by the policies of this package.

A policy of your own need not build on this: `fairprefix.core.policy.Policy` is all that a host asks for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from fairprefix.core.compiling import mypyc_attr
from fairprefix.core.config import PolicyConfig
from fairprefix.core.cost import Receipt
from fairprefix.core.errors import ConfigError, HostError, at_least, reject
from fairprefix.core.lane import BLOCKED, DEFERRED, HELD, QUEUED, RUNNING, WAITING, Entry, Lane, Stage
from fairprefix.core.policy import Refusal
from fairprefix.core.prefixes import NoPrefixes, Prefixes
from fairprefix.core.request import Client, Request
from fairprefix.core.snapshot import dump_entry, load_entry, open_snapshot, seal_snapshot

ADMISSIBLE = (QUEUED, DEFERRED, HELD)
ADMITTED = (RUNNING, HELD)
ANYWHERE = tuple(Stage)

_INTEGERS = {int}

CORRECTIONS = 8
"""Candidates that are looked at for one offer."""


@mypyc_attr(allow_interpreted_subclasses=True)
class BasePolicy(ABC):
    """Keeps the requests; what to offer next and what to charge is up to the subclass.

    Args:
        config: the parameters.
        prefixes: the view of the cache; without one, nothing is ever taken to be cached.
    """

    name: ClassVar[str]

    def __init__(self, config: PolicyConfig, prefixes: Prefixes | None = None) -> None:
        self.config = config
        self._cost = config.cost
        self._recompute_charged = config.recompute == "charged"
        self._prefixes: Prefixes = prefixes if prefixes is not None else NoPrefixes()
        self._entries: dict[str, Entry] = {}
        self._deferred: list[Entry] = []
        self._next_seq = 0
        self._next_serial = 0

    # What a subclass decides.

    @abstractmethod
    def _owner(self, client: Client) -> str:
        """Return the key of the account that pays for a new request of `client`, and count it there."""

    @abstractmethod
    def _lane(self, entry: Entry) -> Lane:
        """Return the queue that an entry waits in."""

    @abstractmethod
    def _entered(self, entry: Entry, *, arrival: bool) -> None:
        """React to an entry that has just been queued; `arrival` is False after a refund."""

    @abstractmethod
    def _moved(self, entry: Entry) -> None:
        """React to a change in how many requests wait in the entry's lane, and in its account."""

    @abstractmethod
    def _recounted(self, entry: Entry) -> None:
        """React to a change in the entry's account, nothing else."""

    @abstractmethod
    def _reordered(self, entry: Entry) -> None:
        """React to a change in what the entry's lane offers, nothing else; must not touch the account."""

    @abstractmethod
    def _candidate(self) -> Entry | None:
        """Return the entry to offer, going by the matches as they are known; commits nothing."""

    @abstractmethod
    def _price(self, entry: Entry, extend: int) -> int:
        """Return the service units that an admission with `extend` tokens costs."""

    @abstractmethod
    def _prepare(self, entry: Entry) -> None:
        """Commit whatever was assumed when `entry`, which still waits, was offered."""

    @abstractmethod
    def _spend(self, entry: Entry, units: int, reserve: int) -> None:
        """Charge `units` to the entry's account and add `reserve` to its outstanding output tokens."""

    @abstractmethod
    def _spend_output(self, tokens: Mapping[Client, int]) -> None:
        """Charge output tokens, all or none: a client without live requests cannot have produced any."""

    @abstractmethod
    def _settled(self, entry: Entry) -> None:
        """Count out an entry that is finished."""

    @abstractmethod
    def _mark(self, entry: Entry) -> Callable[[], None]:
        """Return what undoes all that happens to the entry's account, and beside accounts, from now on.

        Undone in the reverse order, once for each account; what is offered is brought up to date afterwards.
        """

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """Return the subclass's own state for a snapshot."""

    @abstractmethod
    def _load_state(self, state: dict[str, Any]) -> None:
        """Read back what `_state` returned; the entries follow afterwards."""

    @abstractmethod
    def _canonical_state(self) -> tuple[object, ...]:
        """Return the subclass's own part of `canonical`."""

    @abstractmethod
    def reweigh(self, client: Client, weight: int) -> None:
        """Change a client's weight; see `fairprefix.core.policy.Policy`."""

    # Life cycle.

    def arrive(self, request: Request) -> None:
        """Queue a new request. O(log n), and the look-up of its cached prefix."""
        if request.id in self._entries:
            raise HostError(f"request {request.id!r} has arrived already and is not finished")
        match = self._prefixes.watch(request)
        entry = Entry(request, self._next_seq, self._owner(request.client))
        self._next_seq += 1
        self._entries[request.id] = entry
        self._enqueue(entry, match, arrival=True)

    def begin_pass(self) -> None:
        """Offer again what was deferred for lack of room. O(deferred log n)."""
        deferred, self._deferred = self._deferred, []
        for entry in deferred:
            if entry.stage is DEFERRED:
                entry.stage = QUEUED
                self._lane(entry).rekey(entry)
                self._reordered(entry)

    def peek(self) -> Request | None:
        """Return the request to admit next, or None. O(log n + changes in the cache since the last look)."""
        entry = self._offer()
        return entry.request if entry else None

    def plan(self, limit: int, *, budget: int | None = None) -> Sequence[Request]:
        """Return the next `limit` requests, as if each were taken in its turn. O(planned log n)."""
        at_least("limit", limit, 0)
        left = at_least("budget", budget, 0) if budget is not None else None
        planned: list[Entry] = []
        undo: dict[str, Callable[[], None]] = {}
        while len(planned) < limit and left != 0 and (entry := self._offer()):
            planned.append(entry)
            if entry.owner not in undo:
                undo[entry.owner] = self._mark_owner(entry)
            request, done = entry.request, entry.done
            extend = request.input_tokens + done - entry.match
            self._enter_running(entry, extend, max(request.max_output - done, 0))
            left = left and max(left - extend, 0)
        self._undo(planned, undo)
        return [entry.request for entry in planned]

    def take(self, id: str, *, extend: int, reserve: int) -> Receipt:
        """Admit a request and charge its client. O(log n)."""
        entry = self._get(id, ADMISSIBLE)
        if type(extend) is not int or extend < 0:
            raise _unnatural("extend", extend)
        if type(reserve) is not int or reserve < 0:
            raise _unnatural("reserve", reserve)
        if entry.stage in WAITING:
            self._prefixes.forget(id)
        charged = self._enter_running(entry, extend, reserve)
        return self._write_receipt(entry, extend, reserve, charged)

    def amend(self, receipt: Receipt, *, extend: int | None = None, reserve: int | None = None) -> Receipt:
        """Correct an admission; the old receipt is void afterwards. O(log n)."""
        entry = self._redeem(receipt, ADMITTED)
        new_extend = receipt.extend if extend is None else at_least("extend", extend, 0)
        new_reserve = receipt.reserve if reserve is None else at_least("reserve", reserve, 0)
        charged = self._price(entry, new_extend) if entry.priced else 0
        self._spend(entry, charged - receipt.charged, new_reserve - receipt.reserve)
        self._recounted(entry)
        entry.reserve += new_reserve - receipt.reserve
        return self._write_receipt(entry, new_extend, new_reserve, charged)

    def refund(self, receipt: Receipt) -> None:
        """Undo an admission that did not happen after all. O(log n)."""
        entry = self._redeem(receipt, (RUNNING,))
        match = self._prefixes.watch(entry.request)
        self._spend(entry, -receipt.charged, -entry.reserve)
        if entry.advanced:
            self._lane(entry).take_back()
        self._clear(entry)
        self._enqueue(entry, match, arrival=False)

    def defer(self, id: str, why: Refusal) -> None:
        """Set a queued request aside. O(log n)."""
        entry = self._get(id, WAITING)
        if why is Refusal.BLOCKED:
            self._dequeue(entry)
        elif entry.stage is QUEUED:
            entry.stage = DEFERRED
            self._deferred.append(entry)
            self._reordered(entry)

    def unblock(self, id: str) -> None:
        """Queue a blocked request again. O(log n)."""
        entry = self._get(id, (BLOCKED,))
        self._enqueue(entry, self._prefixes.watch(entry.request), arrival=True)

    def produced(self, tokens: Mapping[Client, int]) -> None:
        """Charge output tokens. O(clients named here), and O(log n) for each that waits as well."""
        counts = tokens.values()
        if counts and (set(map(type, counts)) != _INTEGERS or min(counts) < 0):
            client = next(client for client, count in tokens.items() if type(count) is not int or count < 0)
            raise _unnatural(f"produced[{client!r}]", tokens[client])
        self._spend_output(tokens)

    def preempt(self, id: str, *, output: int, keep_hold: bool) -> None:
        """Note that a running request lost its memory. O(log n)."""
        entry = self._get(id, (RUNNING,))
        match = 0 if keep_hold else self._prefixes.watch(entry.request)
        entry.reserve -= self._advance(entry, output)
        entry.paid = entry.paid or entry.priced
        if keep_hold:
            entry.stage = HELD
            return
        self._spend(entry, 0, -entry.reserve)
        self._clear(entry)
        self._enqueue(entry, match, arrival=True)

    def finish(self, id: str, *, output: int) -> None:
        """Settle a request for good. O(log n)."""
        entry = self._get(id, ANYWHERE)
        late = self._advance(entry, output)
        if entry.stage in WAITING:
            self._dequeue(entry)
        # What was reserved and not produced is given back; output that came after a preemption is counted in.
        self._spend(entry, 0, late - entry.reserve)
        self._recounted(entry)
        del self._entries[id]
        self._settled(entry)

    # State.

    def snapshot(self) -> dict[str, Any]:
        """Return the whole state as JSON-serialisable data. O(requests + clients)."""
        body = {
            "next_seq": self._next_seq,
            "next_serial": self._next_serial,
            "deferred": [entry.request.id for entry in self._deferred if entry.stage is DEFERRED],
            "entries": [dump_entry(entry) for entry in self._entries.values()],
            "state": self._state(),
        }
        return seal_snapshot(self.name, self.config, body)

    @classmethod
    def restore(cls, snapshot: Mapping[str, Any], prefixes: Prefixes | None = None) -> BasePolicy:
        """Return a policy in the state of a snapshot; `prefixes` must show the same cache.

        Raises:
            SnapshotError: it is not a snapshot of this policy, or of another schema version.
        """
        config, body = open_snapshot(snapshot, cls.name)
        policy = cls(config, prefixes)
        policy._load(body)
        return policy

    def _load(self, body: Mapping[str, Any]) -> None:
        self._next_seq, self._next_serial = body["next_seq"], body["next_serial"]
        self._load_state(body["state"])
        for data in body["entries"]:
            entry = load_entry(data)
            self._entries[entry.request.id] = entry
            if entry.stage in WAITING:
                entry.match = self._prefixes.watch(entry.request)
                self._lane(entry).enter(entry)
        self._deferred = [self._entries[id] for id in body["deferred"]]
        for entry in self._entries.values():
            self._moved(entry)

    def canonical(self) -> tuple[object, ...]:
        """Return a hashable form of the state, equal for states that behave alike from here on."""
        for entry in self._entries.values():
            if entry.stage in WAITING and (match := self._prefixes.confirm(entry.request.id)) != entry.match:
                self._rematch(entry, match)
        entries = sorted(self._entries.values(), key=lambda entry: entry.seq)
        return (
            self.name,
            tuple((e.request.id, e.owner, e.stage.value, e.match if e.stage in WAITING else 0, e.extend,
                   e.reserve, e.charged, e.done, e.paid, e.priced, e.weight, e.advanced) for e in entries),
            self._canonical_state(),
        )  # fmt: skip

    def validate(self) -> None:
        """Check what holds for every policy: each waiting request is counted in its lane, once."""
        waiting: dict[int, int] = {}
        for entry in self._entries.values():
            lane = id(self._lane(entry))
            waiting[lane] = waiting.get(lane, 0) + (entry.stage in WAITING)
        for entry in self._entries.values():
            lane_of = self._lane(entry)
            assert lane_of.waiting == waiting[id(lane_of)], f"{entry.owner!r}: {lane_of.waiting} waiting"
            assert entry.done >= 0, f"{entry.request.id!r}: output {entry.done}"

    # Inside.

    def _offer(self) -> Entry | None:
        """Return the candidate whose match has been confirmed.

        Where many candidates in a row have lost what they had cached, the search for a better one ends after a
        while: the last one, whose match is known by then, is offered.
        """
        prefixes = self._prefixes
        changes = prefixes.changes()
        if changes:
            self._follow(changes)
        for _ in range(CORRECTIONS):
            entry = self._candidate()
            if entry is None:
                return None
            match = prefixes.confirm(entry.request.id)
            if match == entry.match:
                return entry
            self._rematch(entry, match)
        return entry

    def _follow(self, changes: Iterable[tuple[str, int]]) -> None:
        """Follow changes in the cache: (id, cached tokens)."""
        reordered: dict[str, Entry] = {}
        for id, match in changes:
            entry = self._entries[id]
            entry.match = match
            self._lane(entry).rekey(entry)
            reordered[entry.owner] = entry
        for entry in reordered.values():
            self._reordered(entry)

    def _rematch(self, entry: Entry, match: int) -> None:
        entry.match = match
        self._lane(entry).rekey(entry)
        self._reordered(entry)

    def _get(self, id: str, stages: Sequence[Stage]) -> Entry:
        entry = self._entries.get(id)
        if entry is None:
            raise HostError(f"request {id!r} is unknown: it never arrived, or is finished already")
        if entry.stage not in stages:
            expected = ", ".join(stage.value for stage in stages)
            raise HostError(f"request {id!r} is {entry.stage.value}; this call needs: {expected}")
        return entry

    def _redeem(self, receipt: Receipt, stages: Sequence[Stage]) -> Entry:
        entry = self._get(receipt.request, stages)
        if entry.serial != receipt.serial:
            raise HostError(f"receipt {receipt.serial} of request {receipt.request!r} is void")
        return entry

    def _enqueue(self, entry: Entry, match: int, *, arrival: bool) -> None:
        entry.stage, entry.match = QUEUED, match
        self._lane(entry).enter(entry)
        self._entered(entry, arrival=arrival)

    def _dequeue(self, entry: Entry) -> None:
        entry.stage = BLOCKED
        self._lane(entry).leave()
        self._prefixes.forget(entry.request.id)
        self._moved(entry)

    def _enter_running(self, entry: Entry, extend: int, reserve: int) -> int:
        """Admit an entry; return what it was charged."""
        entry.advanced = False
        if entry.stage in WAITING:
            self._prepare(entry)
            entry.advanced = self._lane(entry).admit(entry)
        entry.stage = RUNNING
        entry.priced = self._recompute_charged or not entry.paid
        charged = self._price(entry, extend) if entry.priced else 0
        self._spend(entry, charged, reserve - entry.reserve)
        self._moved(entry)
        entry.reserve = reserve
        return charged

    def _write_receipt(self, entry: Entry, extend: int, reserve: int, charged: int) -> Receipt:
        entry.serial, entry.extend, entry.charged = self._next_serial, extend, charged
        self._next_serial += 1
        return Receipt(entry.request.id, entry.request.client, entry.serial, extend, reserve, charged)

    @staticmethod
    def _clear(entry: Entry) -> None:
        entry.serial, entry.extend, entry.reserve, entry.charged = -1, 0, 0, 0
        entry.priced = entry.advanced = False
        entry.weight = 1

    @staticmethod
    def _advance(entry: Entry, output: int) -> int:
        """Note the output of a request so far; return how much of it is new."""
        if type(output) is not int or output < 0:
            raise _unnatural("output", output)
        fresh = output - entry.done
        if fresh < 0:
            raise HostError(f"request {entry.request.id!r} has produced {entry.done} tokens already, not {output}")
        entry.done = output
        return fresh

    def _mark_owner(self, entry: Entry) -> Callable[[], None]:
        """Return what undoes all that happens from now on to the account and the lane of an entry."""
        lane = self._lane(entry)
        turn, undo_policy = lane.turn, self._mark(entry)

        def undo() -> None:
            lane.turn = turn
            undo_policy()

        return undo

    def _undo(self, planned: Sequence[Entry], owners: dict[str, Callable[[], None]]) -> None:
        """Undo the admissions of entries that were QUEUED; `owners`: their accounts, in the order of admission."""
        for entry in planned:
            self._clear(entry)
            entry.stage = QUEUED
            self._lane(entry).enter(entry)
        for undo in reversed(owners.values()):
            undo()
        # Only now: on the way back, refills that are about to be undone would be settled for good.
        for entry in {entry.owner: entry for entry in planned}.values():
            self._moved(entry)


def _unnatural(field: str, value: int) -> ConfigError:
    """Return the error for a figure that is negative, or not an integer: it would end up in a counter."""
    return reject(field, value, "an integer >= 0")
