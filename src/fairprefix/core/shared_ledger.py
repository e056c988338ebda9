"""One deficit per client for all workers: requests wait in one queue and are bound to a worker when it has room.

Late binding needs no prediction of where there will be room, and what counts is a client's service as a whole, not
worker by worker. The price is knowledge: a worker's charges reach the ledger only when it *reports*. In its own
view of a client's credit the unreported charges of all others are missing; the largest sum of them that ever
existed is `unsettled`, the delta of `fairprefix.core.bounds.shared_ledger`.

    ledger = SharedLedger(config)
    policy = ledger.worker("w0", asked)       # a `Policy` for that worker's engine, all of one queue
    ledger.report("w0")                       # now and then; how often is the staleness to be stated

A worker offers the longest cached prefix among the oldest requests of each client with credit in its view. When
nobody queued has any in its view, it reports itself, and if by the settled values nobody queued has credit then,
all clients without credit are refilled: refills are decided on settled values alone. A refill for a charge that is
refunded afterwards stays: with refunds a counter may exceed its quantum by what was refunded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from attrs import define, evolve, field

from fairprefix.core.config import PolicyConfig
from fairprefix.core.cost import CostWeights
from fairprefix.core.deficit import rounds_until_above
from fairprefix.core.errors import HostError, SnapshotError, at_least, reject
from fairprefix.core.lane import Stage
from fairprefix.core.request import Client, Request
from fairprefix.core.routing import WorkerName
from fairprefix.core.snapshot import SCHEMA

Ask = Callable[[Request], int]
"""Returns how many tokens of a request's prompt a worker has cached."""

_FORMAT = "fairprefix.ledger"


@define(eq=False)
class Entry:
    """A request that is not finished."""

    request: Request
    seq: int
    stage: Stage = Stage.QUEUED
    worker: WorkerName | None = None
    """Where it was admitted last."""
    done: int = 0
    """Output tokens before the present admission."""
    paid: bool = False
    serial: int = -1
    charged: int = 0


@define(eq=False)
class Shared:
    """What the ledger knows of a client."""

    client: Client
    weight: int
    balance: int = 0
    """q, settled: what no worker has reported yet is missing."""
    unsettled: dict[WorkerName, int] = field(factory=dict)
    """Charges, less refunds, of each worker since its last report; where they are not 0."""
    queue: OrderedDict[int, Entry] = field(factory=OrderedDict)
    """Its queued requests by age, oldest first."""
    live: dict[WorkerName, int] = field(factory=dict)
    """Its running and held requests by worker, where there are any."""


class SharedLedger:
    """The ledger and the queue; `fairprefix.core.ledger_view.LedgerView` is what a worker talks to.

    Args:
        config: quantum, weights, cost and recomputation; the gate is the published one.
        look: how many of a client's oldest requests a worker considers.
    """

    cost: CostWeights
    rounds: int
    unsettled: int

    def __init__(self, config: PolicyConfig, *, look: int = 8) -> None:
        if config.gate != "deficit" or config.overdraft:
            raise reject("gate", config.gate, "'deficit', without overdraft, with a shared ledger")
        self.config = config
        self.cost = config.cost
        self.rounds = 0
        """Refill rounds so far."""
        self.unsettled = 0
        """Delta: the most, in service units, that all workers together had not reported of one client."""
        self.entries: dict[str, Entry] = {}
        self._look = at_least("look", look, 1)
        self._clients: dict[Client, Shared] = {}
        self._weights = dict(config.weights)
        self._queued: dict[Client, Shared] = {}
        self._next_seq = 0
        self.next_serial = 0

    def deficit(self, client: Client) -> int:
        """Return a client's settled counter q; 0 for an unknown client."""
        shared = self._clients.get(client)
        return shared.balance if shared else 0

    def unreported(self, client: Client) -> int:
        """Return what workers have charged a client and not reported yet."""
        shared = self._clients.get(client)
        return sum(shared.unsettled.values()) if shared else 0

    def report(self, worker: WorkerName) -> None:
        """Settle what a worker has charged. O(clients)."""
        for shared in self._clients.values():
            shared.balance -= shared.unsettled.pop(worker, 0)

    def reweigh(self, client: Client, weight: int) -> None:
        """Change a client's weight from the next refill on."""
        self._weights[client] = at_least("weight", weight, 1)
        if client in self._clients:
            self._clients[client].weight = weight

    # For the views.

    def enter(self, request: Request) -> None:
        """Queue a new request."""
        if request.id in self.entries:
            raise HostError(f"request {request.id!r} has arrived already and is not finished")
        entry = self.entries[request.id] = Entry(request, self._next_seq)
        self._next_seq += 1
        self.enqueue(entry)

    def shared(self, client: Client) -> Shared:
        """Return the account of a client, a new one if it has none."""
        shared = self._clients.get(client)
        if shared is None:
            weight = self._weights.get(client, self.config.default_weight)
            shared = self._clients[client] = Shared(client, weight)
        return shared

    def enqueue(self, entry: Entry) -> None:
        """Put a request into its old place in the queue."""
        shared = self.shared(entry.request.client)
        entry.stage = Stage.QUEUED
        is_back = bool(shared.queue) and entry.seq < next(reversed(shared.queue))
        shared.queue[entry.seq] = entry
        if is_back:
            shared.queue = OrderedDict(sorted(shared.queue.items()))
        self._queued[shared.client] = shared

    def dequeue(self, entry: Entry) -> Shared:
        """Take a request out of the queue; return its client's account."""
        shared = self._clients[entry.request.client]
        del shared.queue[entry.seq]
        if not shared.queue:
            del self._queued[shared.client]
        return shared

    def best(self, worker: WorkerName, ask: Ask, skip: set[str]) -> Entry | None:
        """Return the request to offer at a worker, as if refilled if that is due; commits nothing.

        Complexity: O(clients queued * look), and that many questions.
        """
        rounds = self.rounds_due(worker)
        candidates = (
            entry
            for shared in self._queued.values()
            if self._refilled(shared, self._view(shared, worker), rounds) > 0
            for entry in islice((e for e in shared.queue.values() if e.request.id not in skip), self._look)
        )
        return min(candidates, key=lambda entry: (-ask(entry.request), entry.seq), default=None)

    def rounds_due(self, worker: WorkerName) -> int:
        """Return after how many refills somebody has credit in a worker's view: 0 if somebody has."""
        return min(
            (
                rounds_until_above(self._view(shared, worker), 0, self._quantum(shared))
                for shared in self._queued.values()
            ),
            default=0,
        )

    def refill(self, worker: WorkerName, rounds: int) -> None:
        """Settle a worker and carry out refills that are due then."""
        self.report(worker)
        for shared in self._clients.values():
            shared.balance = self._refilled(shared, shared.balance, rounds)
        self.rounds += rounds

    def charge(self, shared: Shared, worker: WorkerName, units: int) -> None:
        """Charge a client at a worker, or give back if `units` is negative."""
        total = shared.unsettled.get(worker, 0) + units
        if total:
            shared.unsettled[worker] = total
        else:
            shared.unsettled.pop(worker, None)
        # What one worker has to give back does not hide what another one has charged.
        self.unsettled = max(self.unsettled, sum(max(one, 0) for one in shared.unsettled.values()))

    def _quantum(self, shared: Shared) -> int:
        return shared.weight * self.config.quantum

    @staticmethod
    def _view(shared: Shared, worker: WorkerName) -> int:
        """Return a client's credit as a worker sees it: it knows its own charges, and those reported by others."""
        return shared.balance - shared.unsettled.get(worker, 0)

    def _refilled(self, shared: Shared, counter: int, rounds: int) -> int:
        """Return what a counter is after some refills: credit is not topped up."""
        quantum = self._quantum(shared)
        return counter + min(rounds, rounds_until_above(counter, 0, quantum)) * quantum

    def mark(self) -> Callable[[], None]:
        """Return what brings the present state back. O(clients + requests)."""
        clients = [
            (s, evolve(s, unsettled=dict(s.unsettled), queue=s.queue.copy())) for s in self._clients.values()
        ]
        lives = [dict(s.live) for s in self._clients.values()]
        entries = [(entry, evolve(entry)) for entry in self.entries.values()]
        numbers = self.rounds, self.unsettled, self.next_serial

        def undo() -> None:
            for (shared, before), live in zip(clients, lives, strict=True):
                shared.balance, shared.unsettled, shared.queue = before.balance, before.unsettled, before.queue
                shared.live = live
            for entry, before_entry in entries:
                entry.stage, entry.worker = before_entry.stage, before_entry.worker
                entry.serial, entry.charged = before_entry.serial, before_entry.charged
            self._queued = {s.client: s for s, _ in clients if s.queue}
            self.rounds, self.unsettled, self.next_serial = numbers

        return undo

    # State.

    def snapshot(self) -> dict[str, Any]:
        """Return the accounts, as if all workers had reported; requests are their hosts' to send again."""
        return {
            "format": _FORMAT,
            "schema": SCHEMA,
            "config": self.config.to_mapping(),
            "weights": dict(self._weights),
            "rounds": self.rounds,
            "unsettled": self.unsettled,
            "balances": {s.client: s.balance - sum(s.unsettled.values()) for s in self._clients.values()},
        }

    @classmethod
    def restore(cls, snapshot: Any, *, look: int = 8) -> SharedLedger:  # noqa: ANN401 (read from a file)
        """Return a ledger with the accounts of a snapshot and without requests.

        Raises:
            SnapshotError: it is none, or of another schema version.
        """
        for key, expected in (("format", _FORMAT), ("schema", SCHEMA)):
            found = snapshot.get(key) if isinstance(snapshot, dict) else None
            if found != expected:
                raise SnapshotError(f"snapshot: {key} = {found!r}, expected {expected!r}")
        ledger = cls(PolicyConfig.from_mapping(snapshot["config"]), look=look)
        ledger.rounds, ledger.unsettled = snapshot["rounds"], snapshot["unsettled"]
        ledger._weights = dict(snapshot["weights"])
        for client, balance in snapshot["balances"].items():
            ledger.shared(client).balance = balance
        return ledger

    def canonical(self) -> tuple[object, ...]:
        """Return a hashable form of the state."""
        entries = sorted(self.entries.values(), key=lambda entry: entry.seq)
        return (
            tuple((e.request.id, e.stage, e.worker, e.done, e.paid, e.charged) for e in entries),
            tuple(
                (s.client, s.weight, s.balance, tuple(sorted(s.unsettled.items())))
                for s in sorted(self._clients.values(), key=lambda shared: shared.client)
            ),
            tuple(sorted(self._weights.items())),
        )

    def validate(self) -> None:
        """Check the counters' range, and the queues against the requests."""
        for client, shared in self._clients.items():
            queued = {
                e.seq for e in self.entries.values() if e.request.client == client and e.stage is Stage.QUEUED
            }
            assert list(shared.queue) == sorted(queued), client
            assert (client in self._queued) == bool(queued), client
            assert sum(max(one, 0) for one in shared.unsettled.values()) <= self.unsettled, client
            for worker in self._workers():
                live = sum(e.worker == worker and e.request.client == client for e in self._admitted())
                assert shared.live.get(worker, 0) == live, (client, worker)

    def _admitted(self) -> Iterator[Entry]:
        return (e for e in self.entries.values() if e.stage in (Stage.RUNNING, Stage.HELD))

    def _workers(self) -> set[WorkerName]:
        return {worker for shared in self._clients.values() for worker in shared.live}
