"""The monitor of the gap as hosts feed it: who waits is told at once, what is charged in batches."""

from __future__ import annotations

from fairprefix.core.monitor import BoundMonitor
from fairprefix.core.request import Client


class BatchedMonitor:
    """Tells a monitor of backlogs and charges, in their order, and seldom.

    Args:
        monitor: who is told.
        batch: charges, or steps of charges, that are told together at the most.
    """

    def __init__(self, monitor: BoundMonitor, batch: int) -> None:
        self.monitor: BoundMonitor = monitor
        self.waiting: dict[Client, int] = {}
        """Requests that wait, of clients that have any."""
        self.pending: dict[Client, int] = {}
        """Service units that the monitor has not been told of; `flush` puts another dictionary in its place."""
        self.admitted: bool = False
        """Whether an admission is among them: then the next step is told apart from it."""
        self._batch = batch
        self._batched = 0
        self._events = 0

    def queued(self, client: Client, change: int) -> None:
        """Note that `change` (+1 or -1) requests of a client wait more than before."""
        waiting = self.waiting[client] = self.waiting.get(client, 0) + change
        if waiting == 0:
            del self.waiting[client]
            self.flush()
            self.monitor.idle(client, self._events)
        elif waiting == 1 and change == 1:
            self.flush()
            self.monitor.backlogged(client, self._events)

    def charge(self, client: Client, units: int) -> None:
        """Note service; a negative figure corrects what was noted earlier."""
        self.pending[client] = self.pending.get(client, 0) + units

    def step(self) -> None:
        """Count what was charged as one of the batch, and tell the monitor when that is full."""
        self._batched += 1
        if self._batched >= self._batch:
            self.flush()

    def flush(self) -> None:
        """Tell the monitor what it has not been told."""
        self._batched, self.admitted = 0, False
        if self.pending:
            pending, self.pending = self.pending, {}
            self._events += 1
            self.monitor.charged_together(pending, self._events)
