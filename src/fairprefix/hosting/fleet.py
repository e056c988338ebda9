"""What can be promised for several workers whose policies report now and then, and how the seen gap compares.

Requests are bound to a worker when they are dispatched, each worker runs DLPM (`fairprefix.hosting.gate`): the
bound is the sum of the workers' own, and a quantum for each refill that a client missed where it had nothing
queued (`fairprefix.core.bounds.d2lpm_both_backlogged`). Misses follow from counters that the workers report. What
is late is taken against us: a refill counts as missed if its client was busy at any time since the worker's report
before, and what workers may not have reported yet, the *staleness* of what is seen here, is added to the bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from attrs import define, field, frozen

from fairprefix.core.bounds import Engine
from fairprefix.core.config import PolicyConfig
from fairprefix.core.guarantee import Arrangement, Guarantee, cluster_guarantee
from fairprefix.core.monitor import BoundMonitor
from fairprefix.core.request import Client
from fairprefix.core.routing import WorkerName
from fairprefix.hosting.figures import Sample

_LATE_ENDS = 4
"""A gap is of two clients over an interval with two ends; at each end each client's service is known late."""


@frozen
class ClientReport:
    """How a client stands at a worker."""

    client: Client
    received: int
    """Refills that it got, since the beginning."""
    service: int
    """Service units that it was charged, since the beginning."""
    waited: bool
    """Whether it had a request queued throughout the time since the last report."""


@frozen
class WorkerReport:
    """What a worker tells: those of its clients of which something has changed."""

    rounds: int
    """Refill rounds so far."""
    clients: tuple[ClientReport, ...]
    holds: bool = True
    """Whether its policy is still at work; False once arrival order has taken over."""
    continued: bool = False
    """Whether it has reported before, here or to a monitor that this one has taken over from."""


@define(eq=False)
class _Worker:
    rounds: int = 0
    heard: bool = False
    reported_at: int = 0
    """Number of its last report, over all workers."""
    clients: dict[Client, ClientReport] = field(factory=dict)
    fresh: dict[Client, int] = field(factory=dict)
    """Service that came with its last report: as much may be under way again."""

    def service(self, client: Client) -> int:
        """Return what a client was charged here, as far as reported."""
        return self.clients[client].service if client in self.clients else 0

    def received(self, client: Client) -> int:
        """Return how many refills a client got here, as far as reported."""
        return self.clients[client].received if client in self.clients else 0


@define(eq=False)
class _Busy:
    """A client with requests that are dispatched and not done: whoever is queued anywhere is among these."""

    requests: int = 0
    until: int = -1
    """Number of the last report when it had none any more; without meaning while it has some."""


class FleetMonitor:
    """Adds up what workers report.

    Args:
        config: the policy of every worker.
        limits: of every worker's engine.
        top: clients whose gaps are followed exactly.
    """

    def __init__(self, config: PolicyConfig, limits: Engine, *, top: int = 8) -> None:
        self.config = config
        self.limits = limits
        self.unsettled: int = 0
        """The most service units of one client that came with one round of reports: how late service is known."""
        self.failed: set[WorkerName] = set()
        """Workers at which arrival order has taken over: nothing is promised for them."""
        self._workers: dict[WorkerName, _Worker] = {}
        self._most_workers = 0
        self._busy: dict[Client, _Busy] = {}
        self._misses: dict[Client, int] = {}
        self._reports = 0
        self._monitor = BoundMonitor(
            config.cost, weights=config.weights, default_weight=config.default_weight, top=top
        )

    # Requests, as whoever dispatches them knows them.

    def dispatched(self, client: Client) -> None:
        """Note that a request is on its way to a worker."""
        self._busy.setdefault(client, _Busy()).requests += 1

    def done(self, client: Client) -> None:
        """Note that a request is over."""
        busy = self._busy[client]
        busy.requests -= 1
        busy.until = self._reports
        if not busy.requests and len(self._busy) > self.config.max_clients:
            del self._busy[client]

    # Workers.

    def joined(self, worker: WorkerName) -> None:
        """Expect reports of a worker."""
        self._workers.setdefault(worker, _Worker(reported_at=self._reports))
        self._most_workers = max(self._most_workers, len(self._workers))

    def left(self, worker: WorkerName) -> None:
        """Expect no more reports of a worker; what it did not report is not known."""
        gone = self._workers.pop(worker, None)
        self.failed.discard(worker)
        for client in gone.clients if gone else ():
            self._see_backlog(client)

    def reported(self, worker: WorkerName, report: WorkerReport) -> None:
        """Take in what a worker tells. O(clients that are busy, or told of)."""
        self.joined(worker)
        seen = self._workers[worker]
        self._reports += 1
        if not report.holds:
            self.failed.add(worker)
        told = {one.client: one for one in report.clients}
        # What a worker did before this monitor was there is where it starts from.
        units: dict[Client, int] = {}
        if seen.heard or not report.continued:
            self._count_misses(seen, report.rounds, told)
            units = {client: one.service - seen.service(client) for client, one in told.items()}
        seen.rounds, seen.reported_at, seen.fresh, seen.heard = report.rounds, self._reports, units, True
        seen.clients |= told
        for client in told:
            self.unsettled = max(self.unsettled, sum(w.fresh.get(client, 0) for w in self._workers.values()))
        self._monitor.charged_together({client: cost for client, cost in units.items() if cost}, self._reports)
        for client in told:
            self._see_backlog(client)

    def _count_misses(self, seen: _Worker, rounds: int, told: dict[Client, ClientReport]) -> None:
        passed = rounds - seen.rounds
        for client, busy in list(self._busy.items()):
            if not busy.requests and busy.until < seen.reported_at:
                if busy.until < min(worker.reported_at for worker in self._workers.values()):
                    del self._busy[client]
                continue
            got = told[client].received - seen.received(client) if client in told else 0
            missed = max(passed - got, 0)
            if missed:
                self._misses[client] = self._misses.get(client, 0) + missed

    def _see_backlog(self, client: Client) -> None:
        waits = any(w.clients[client].waited for w in self._workers.values() if client in w.clients)
        (self._monitor.backlogged if waits else self._monitor.idle)(client, self._reports)

    # What is promised.

    @property
    def misses(self) -> int:
        """Refills missed by the client that missed most."""
        return max(self._misses.values(), default=0)

    @property
    def largest_gap(self) -> float:
        """The largest gap, in service units per unit of weight, of two clients that both waited, as seen here."""
        return float(self._monitor.largest_gap.exact)

    @property
    def silent(self) -> list[WorkerName]:
        """Workers that have not reported yet, or never do: what is missed there is not known."""
        return sorted(name for name, worker in self._workers.items() if not worker.heard)

    def guarantee(self) -> Guarantee | None:
        """Return the bound for the most workers that there ever were; None without any, or without DLPM.

        Nor is there one while a worker is silent, or has failed.
        """
        if not self._most_workers or self.config.policy != "dlpm" or self.silent or self.failed:
            return None
        # Whoever will come, two may have the default weight, or a lighter one that is configured.
        clients: Iterable[Client] = (*self.config.weights, "any", "any other")
        how = Arrangement(kind="routed", misses=self.misses)
        return cluster_guarantee(self.config, [self.limits] * self._most_workers, clients, how)

    @property
    def allowance(self) -> int:
        """How much the gap that is seen can differ from the true one, because reports are late."""
        lightest = min((*self.config.weights.values(), self.config.default_weight))
        return -(-_LATE_ENDS * self.unsettled // lightest)

    @property
    def bound(self) -> int | None:
        """What the seen gap stays below: the bound, and the allowance for staleness."""
        promised = self.guarantee()
        return promised.bound.value + self.allowance if promised else None

    def samples(self) -> Iterator[Sample]:
        """Yield the figures, for metrics."""
        yield Sample("fairprefix_fleet_workers", "Workers that report.", len(self._workers))
        yield Sample("fairprefix_fleet_failed_workers", "Workers whose policy has failed.", len(self.failed))
        yield Sample("fairprefix_missed_refills", "Refills missed by the client that missed most.", self.misses)
        yield Sample(
            "fairprefix_unsettled_tokens", "Most service of one client that was known late.", self.unsettled
        )
        yield Sample(
            "fairprefix_largest_gap_tokens",
            "Largest service gap of two clients that both waited.",
            self.largest_gap,
        )
        bound = self.bound
        if bound is not None:
            yield Sample("fairprefix_bound_tokens", "What that gap stays below, staleness included.", bound)
            ratio = self.largest_gap / bound
            yield Sample("fairprefix_bound_ratio", "Largest gap divided by its bound.", ratio, {"bound": "fleet"})

    def described(self) -> dict[str, object]:
        """Return the figures and the bound with its assumptions, as JSON-serialisable data."""
        promised = self.guarantee()
        return {
            "workers": len(self._workers),
            "failed": sorted(self.failed),
            "silent": self.silent,
            "missed_refills": self.misses,
            "unsettled": self.unsettled,
            "largest_gap": self.largest_gap,
            "bound": self.bound,
            "bound_without_staleness": promised.bound.value if promised else None,
            "formula": promised.bound.formula if promised else None,
            "assumptions": list(promised.bound.assumptions) if promised else [],
        }

    def said(self) -> str:
        """Return in one line what holds, for logs."""
        return (
            f"fairprefix: largest gap {self.largest_gap}, bound {self.bound} "
            f"(with {self.misses} missed refills; up to {self.unsettled} units known late)"
        )

    def service(self) -> dict[Client, int]:
        """Return the service units that each client has received at the present workers, as far as reported."""
        total: dict[Client, int] = {}
        for worker in self._workers.values():
            for one in worker.clients.values():
                total[one.client] = total.get(one.client, 0) + one.service
        return total
