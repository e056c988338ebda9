"""One gateway's copy of a ledger that several gateways share, and the policy that its queue asks.

The copy knows its own charges at once, and those of the others as of the last report. It never refills by itself:
that is decided where all reports come together. Only while that place cannot be reached a gateway goes on alone,
fair among those who come through it; what it has given by then is reported as it is, and nothing is made up for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen

from fairprefix.core.config import PolicyConfig
from fairprefix.core.ledger_view import LedgerView
from fairprefix.core.request import Client, Request
from fairprefix.core.routing import WorkerName
from fairprefix.core.shared_ledger import Ask, SharedLedger


@frozen
class Report:
    """What a gateway tells the others; the same one is sent again if its answer was lost."""

    serial: int
    changes: tuple[tuple[Client, int], ...]
    """By how much each client's balance has changed here, in service units; where it has."""
    waiting: tuple[tuple[Client, int], ...]
    """Who waits here, and with which weight."""
    wants_refill: bool
    """Whether somebody waits and nobody who does has credit."""
    clients: tuple[Client, ...]
    """Whose balances are asked for."""
    views: tuple[int, ...]
    """Their credit as it was seen here when this was written."""


class ReplicaLedger(SharedLedger):
    """A copy of a shared ledger.

    Args:
        config: quantum, weights and cost; the gate is the published one.
        name: this gateway.
        look: how many of a client's oldest requests are considered.
    """

    def __init__(self, config: PolicyConfig, name: WorkerName, *, look: int = 8) -> None:
        super().__init__(config, look=look)
        self.name = name
        self.connected = True
        """Whether refills are left to the place where all reports come together: so it is until that fails."""
        self._settled: dict[Client, int] = {}
        """Balances as of the last answer; 0 where a client is missing."""
        self._serial = 0
        self._sent: Report | None = None

    def rounds_due(self, worker: WorkerName) -> int:
        """Return after how many refills of its own somebody has credit: none are carried out while connected."""
        return 0 if self.connected else super().rounds_due(worker)

    @property
    def starved(self) -> bool:
        """Whether somebody waits and nobody who does has credit here."""
        return bool(self._queued) and super().rounds_due(self.name) > 0

    @property
    def largest_unreported(self) -> int:
        """The most that has ever been charged to one client here without being reported, in service units."""
        return self.unsettled

    @property
    def quiet(self) -> bool:
        """Whether there is nothing to report, and nothing to ask for."""
        return (
            self._sent is None
            and not self._queued
            and all(self._view(one, self.name) == self._settled.get(one.client) for one in self._clients.values())
        )

    def write(self) -> Report:
        """Return what is to be reported; what was not answered comes first, as it was."""
        if self._sent is None:
            self._serial += 1
            shared = list(self._clients.values())
            views = tuple(self._view(one, self.name) for one in shared)
            changes = (
                (one.client, view - self._settled.get(one.client, 0))
                for one, view in zip(shared, views, strict=True)
            )
            self._sent = Report(
                self._serial,
                tuple((client, change) for client, change in changes if change),
                tuple((one.client, one.weight) for one in self._queued.values()),
                self.starved,
                tuple(one.client for one in shared),
                views,
            )
        return self._sent

    def read(self, balances: Sequence[int]) -> None:
        """Take in the answer to the last report: the settled balances of the clients that it asks for."""
        sent, self._sent = self._sent, None
        assert sent is not None
        assert len(balances) == len(sent.clients)
        for client, seen, balance in zip(sent.clients, sent.views, balances, strict=True):
            shared = self._clients[client]
            # What has happened here since the report was written is in nobody's balance yet.
            since = seen - self._view(shared, self.name)
            shared.balance = self._settled[client] = balance
            shared.unsettled.pop(self.name, None)
            if since:
                shared.unsettled[self.name] = since
            elif not shared.queue and not shared.live:
                del self._clients[client], self._settled[client]

    def validate(self) -> None:
        """Check the copy."""
        super().validate()
        assert set(self._settled) <= set(self._clients)


class ReplicaPolicy(LedgerView):
    """The policy of a gateway's queue: like any other, but it may hold requests back that others have to pass.

    Args:
        ledger: the copy.
        ask: how many tokens of a prompt the worker has cached.
        wake: told when somebody waits for news from the other gateways.
    """

    def __init__(
        self, ledger: ReplicaLedger, ask: Ask = lambda _request: 0, wake: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(ledger, ledger.name, ask)
        self.replica = ledger
        self._wake = wake

    @property
    def holds_back(self) -> bool:
        """Whether whoever waits has to wait for clients of other gateways, or for a refill."""
        return self.replica.connected and self.replica.starved

    def deficit(self, client: Client) -> int:
        """Return a client's credit as it is seen here, in service units."""
        return self.ledger.deficit(client) - self.ledger.unreported(client)

    def peek(self) -> Request | None:
        """Return the request to admit next; None while nobody has credit."""
        found = super().peek()
        if found is None and self.holds_back:
            self._wake()
        return found
