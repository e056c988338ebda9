"""Counts the refills that clients miss: what voids D2LPM's theorem (arXiv 2501.14312, Theorem 5.1).

The theorem adds up the workers' own bounds, which needs each of two clients to take part in every refill of every
worker: to be queued there, or to have no credit. A client that is backlogged somewhere need not be: at a worker
where it has credit and nothing queued, others are refilled and it is not. Each such *miss* can cost it a quantum
(`fairprefix.core.bounds.d2lpm_both_backlogged`).

Nobody has to watch each refill: q = received * Q - charged, so that what a client has received follows from its
counter at any time, and refills of the worker less those received by the client are those that it missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from attrs import define, field

from fairprefix.core.request import Client


class Refills(Protocol):
    """A worker's policy, as far as it is watched (`fairprefix.core.dlpm.DLPM`)."""

    @property
    def rounds(self) -> int:
        """Return how many refills there were."""
        ...

    def deficit(self, client: Client) -> int:
        """Return a client's deficit counter."""
        ...


@define(eq=False)
class _Seen:
    waiting: int = 0
    """Its queued requests, over all workers."""
    begun: list[int] = field(factory=list)
    """By worker: what it had missed when its backlog began."""
    missed: int = 0
    """In backlogs that are over."""


class RefillWatch:
    """Refills that each client missed while it had a request queued anywhere.

    Args:
        workers: the policies, all with the same quanta.
        quantum: returns the quantum of a client; it must not change.

    Complexity: O(1) for a charge, O(workers) when a client's backlog begins or ends.
    """

    def __init__(
        self, workers: Sequence[Refills], quantum: dict[Client, int] | None, default_quantum: int
    ) -> None:
        self._workers = workers
        self._quantum = dict(quantum or {})
        self._default = default_quantum
        self._charged: list[dict[Client, int]] = [{} for _ in workers]
        self._seen: dict[Client, _Seen] = {}

    def charged(self, worker: int, client: Client, units: int) -> None:
        """Note what a worker has charged a client (negative: given back), in service units."""
        charges = self._charged[worker]
        charges[client] = charges.get(client, 0) + units

    def queued(self, client: Client, change: int) -> None:
        """Note that more (or fewer) requests of a client wait than before, at any worker."""
        seen = self._seen.setdefault(client, _Seen())
        before = seen.waiting
        seen.waiting += change
        if not before:
            seen.begun = self._all_missed(client)
        elif not seen.waiting:
            seen.missed += self._since(seen, client)

    def missed(self, client: Client) -> int:
        """Return how many refills a client has missed, over all workers."""
        seen = self._seen.get(client)
        if seen is None:
            return 0
        return seen.missed + (self._since(seen, client) if seen.waiting else 0)

    def most_missed(self) -> int:
        """Return the refills missed by the client that missed most."""
        return max((self.missed(client) for client in self._seen), default=0)

    def _since(self, seen: _Seen, client: Client) -> int:
        return sum(self._all_missed(client)) - sum(seen.begun)

    def _all_missed(self, client: Client) -> list[int]:
        """Return, by worker, how many refills a client did not receive, whether it was backlogged or not."""
        quantum = self._quantum.get(client, self._default)
        return [
            worker.rounds - (worker.deficit(client) + charges.get(client, 0)) // quantum
            for worker, charges in zip(self._workers, self._charged, strict=True)
        ]
