"""What one worker sees of a shared ledger: a `Policy` like any other, but with everybody's queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fairprefix.core.cost import Receipt
from fairprefix.core.errors import HostError, at_least
from fairprefix.core.lane import Stage
from fairprefix.core.policy import Refusal
from fairprefix.core.request import Client, Request
from fairprefix.core.routing import WorkerName
from fairprefix.core.shared_ledger import Ask, Entry, SharedLedger


class LedgerView:
    """A worker's side of a shared ledger (`fairprefix.core.policy.Policy`).

    Whatever arrives through one view is offered through all of them, and may be finished through any.

    Args:
        ledger: the ledger.
        worker: the worker's name.
        ask: how many tokens of a prompt this worker has cached; without it, none.
    """

    def __init__(self, ledger: SharedLedger, worker: WorkerName, ask: Ask = lambda _request: 0) -> None:
        self.ledger = ledger
        self.worker = worker
        self._ask = ask
        self._deferred: set[str] = set()

    def arrive(self, request: Request) -> None:
        """Queue a new request for all workers."""
        self.ledger.enter(request)

    def begin_pass(self) -> None:
        """Offer again what found no room here."""
        self._deferred.clear()

    def peek(self) -> Request | None:
        """Return the request to admit here next, or None; see `SharedLedger.best` for what that costs."""
        entry = self.ledger.best(self.worker, self._ask, self._deferred)
        return entry.request if entry else None

    def plan(self, limit: int, *, budget: int | None = None) -> Sequence[Request]:
        """Return the next `limit` requests, as if each were taken in its turn. O(clients + requests queued)."""
        at_least("limit", limit, 0)
        left = at_least("budget", budget, 0) if budget is not None else None
        undo = self.ledger.mark()
        planned: list[Request] = []
        while len(planned) < limit and left != 0 and (request := self.peek()):
            planned.append(request)
            extend = request.input_tokens - self._ask(request)
            self.take(request.id, extend=extend, reserve=0)
            left = left and max(left - extend, 0)
        undo()
        return planned

    def take(self, id: str, *, extend: int, reserve: int) -> Receipt:
        """Admit a request here and charge its client; the ledger hears of it with the next report. O(clients)."""
        entry = self._get(id, Stage.QUEUED, Stage.HELD)
        at_least("extend", extend, 0)
        at_least("reserve", reserve, 0)
        ledger = self.ledger
        shared = ledger.shared(entry.request.client)
        if entry.stage is Stage.QUEUED:
            rounds = ledger.rounds_due(self.worker)
            if rounds:
                ledger.refill(self.worker, rounds)
            ledger.dequeue(entry)
        else:
            self._count(entry, -1)
        entry.stage, entry.worker = Stage.RUNNING, self.worker
        self._count(entry, +1)
        free = entry.paid and ledger.config.recompute == "free"
        entry.charged = 0 if free else ledger.cost.service(extend, 0)
        ledger.charge(shared, self.worker, entry.charged)
        return self._write_receipt(entry, extend, reserve)

    def amend(self, receipt: Receipt, *, extend: int | None = None, reserve: int | None = None) -> Receipt:
        """Correct an admission; the old receipt is void afterwards. O(1)."""
        entry = self._redeem(receipt, Stage.RUNNING, Stage.HELD)
        new_extend = receipt.extend if extend is None else at_least("extend", extend, 0)
        new_reserve = receipt.reserve if reserve is None else at_least("reserve", reserve, 0)
        free = entry.paid and self.ledger.config.recompute == "free"
        units = 0 if free else self.ledger.cost.service(new_extend, 0)
        self.ledger.charge(self.ledger.shared(receipt.client), self.worker, units - entry.charged)
        entry.charged = units
        return self._write_receipt(entry, new_extend, new_reserve)

    def refund(self, receipt: Receipt) -> None:
        """Undo an admission that did not happen after all. O(1), and O(queued) where an older request is back."""
        entry = self._redeem(receipt, Stage.RUNNING)
        self.ledger.charge(self.ledger.shared(receipt.client), self.worker, -entry.charged)
        self._leave(entry)
        self.ledger.enqueue(entry)

    def defer(self, id: str, why: Refusal) -> None:
        """Set a queued request aside: here for lack of room, everywhere if it is blocked. O(1)."""
        entry = self._get(id, Stage.QUEUED)
        if why is Refusal.BLOCKED:
            self.ledger.dequeue(entry)
            entry.stage = Stage.BLOCKED
        else:
            self._deferred.add(id)

    def unblock(self, id: str) -> None:
        """Queue a blocked request again."""
        self.ledger.enqueue(self._get(id, Stage.BLOCKED))

    def produced(self, tokens: Mapping[Client, int]) -> None:
        """Charge output tokens that this worker has produced; all or none. O(clients)."""
        for client, count in tokens.items():
            if not self.ledger.shared(client).live.get(self.worker):
                raise HostError(f"client {client!r} has no request here that could have produced {count} tokens")
        for client, count in tokens.items():
            self.ledger.charge(self.ledger.shared(client), self.worker, self.ledger.cost.service(0, count))

    def preempt(self, id: str, *, output: int, keep_hold: bool) -> None:
        """Note that a request will be computed again: here if the host resumes it, else anywhere."""
        entry = self._get(id, Stage.RUNNING)
        self._advance(entry, output)
        entry.paid = True
        if keep_hold:
            entry.stage = Stage.HELD
            return
        self._leave(entry)
        self.ledger.enqueue(entry)

    def finish(self, id: str, *, output: int) -> None:
        """Forget a request that is done, aborted or failed."""
        entry = self._get(id, *Stage)
        self._advance(entry, output)
        if entry.stage is Stage.QUEUED:
            self.ledger.dequeue(entry)
        elif entry.stage is not Stage.BLOCKED:
            self._leave(entry)
        self._deferred.discard(id)
        del self.ledger.entries[id]

    def reweigh(self, client: Client, weight: int) -> None:
        """Change a client's weight, for all workers."""
        self.ledger.reweigh(client, weight)

    def snapshot(self) -> dict[str, Any]:
        """Return the ledger's snapshot."""
        return self.ledger.snapshot()

    def canonical(self) -> tuple[object, ...]:
        """Return a hashable form of the ledger and of what was deferred here."""
        return (self.worker, tuple(sorted(self._deferred)), *self.ledger.canonical())

    def validate(self) -> None:
        """Check the ledger."""
        self.ledger.validate()

    # Inside.

    def _get(self, id: str, *stages: Stage) -> Entry:
        entry = self.ledger.entries.get(id)
        if entry is None:
            raise HostError(f"request {id!r} is unknown: it never arrived, or is finished already")
        if entry.stage not in stages:
            expected = ", ".join(stage.value for stage in stages)
            raise HostError(f"request {id!r} is {entry.stage.value}; this call needs: {expected}")
        return entry

    def _redeem(self, receipt: Receipt, *stages: Stage) -> Entry:
        entry = self._get(receipt.request, *stages)
        if entry.serial != receipt.serial:
            raise HostError(f"receipt {receipt.serial} of request {receipt.request!r} is void")
        return entry

    def _write_receipt(self, entry: Entry, extend: int, reserve: int) -> Receipt:
        entry.serial = self.ledger.next_serial
        self.ledger.next_serial += 1
        return Receipt(entry.request.id, entry.request.client, entry.serial, extend, reserve, entry.charged)

    def _leave(self, entry: Entry) -> None:
        self._count(entry, -1)
        entry.worker, entry.charged = None, 0

    def _count(self, entry: Entry, change: int) -> None:
        assert entry.worker is not None
        live = self.ledger.shared(entry.request.client).live
        live[entry.worker] = live.get(entry.worker, 0) + change
        if not live[entry.worker]:
            del live[entry.worker]

    @staticmethod
    def _advance(entry: Entry, output: int) -> None:
        if at_least("output", output, 0) < entry.done:
            raise HostError(f"request {entry.request.id!r} has produced {entry.done} tokens already, not {output}")
        entry.done = output
