"""The dispatches of all routers of a deployment, and what is known of each: settled exactly once.

A request may be heard of from three sides, in any order, more than once, or not at all: its router says where it
was sent and that it has ended; its replica says what it really cost; and either may die.

    sent -> reported by its replica            -> settled, with the true cost
         -> ended, and no report within `grace` -> settled as predicted if the replica had accepted it,
                                                   else refunded
         -> its replica died, or its router     -> refunded

Without I/O and without a clock: whoever calls says what time it is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from attrs import define, field

from fairprefix.adapters.ray.key import RouteKey
from fairprefix.core.request import Client
from fairprefix.core.router_base import BaseRouter
from fairprefix.core.router_catalog import make_router, restore_router
from fairprefix.core.router_config import RouterConfig
from fairprefix.core.routing import Choice, WorkerName
from fairprefix.hosting.fleet import FleetMonitor

_MOST_GONE = 4096

Finished = tuple[str, int, int]
"""What a replica reports of a request: its id, prompt tokens computed, output tokens."""


@define(eq=False)
class Sent:
    """A request that is out."""

    client: Client
    worker: WorkerName
    router: str
    predicted: int
    """Output tokens that it is settled with if nobody reports any."""
    ended_at: float | None = None
    accepted: bool = False


@define(eq=False)
class _Router:
    members: frozenset[WorkerName] = frozenset()
    heard_at: float = 0.0
    sent: set[str] = field(factory=set)


class DispatchBook:
    """One policy for many routers.

    Args:
        config: the policy, d2lpm by default.
        monitor: hears of requests and workers.
        grace_s: how long an ended request waits for its replica's report.
        silence_s: after which a router that says nothing is taken to be dead.
    """

    def __init__(
        self, config: RouterConfig, monitor: FleetMonitor, *, grace_s: float = 2.0, silence_s: float = 30.0
    ) -> None:
        self.policy: BaseRouter = make_router(config)
        self.picks: int = 0
        """Answers that were not repetitions."""
        self.refunded: int = 0
        """How they ended: given back."""
        self.settled: int = 0
        """How they ended: settled."""
        self.unreported: int = 0
        """Requests that were settled as predicted, since their replica said nothing."""
        self._config = config
        self._monitor = monitor
        self._grace_s, self._silence_s = grace_s, silence_s
        self._routers: dict[str, _Router] = {}
        self._sent: dict[str, Sent] = {}
        self._ending: OrderedDict[str, float] = OrderedDict()
        """Ended requests without a report, in the order of ending."""
        self._leaving: set[WorkerName] = set()
        """Workers that get nothing more, and are forgotten once nothing is left there."""
        self._usual: OrderedDict[Client, int] = OrderedDict()
        self._gone: OrderedDict[WorkerName, None] = OrderedDict()
        """Workers that were forgotten: a router that has not heard of it must not bring them back."""

    @property
    def out(self) -> int:
        """Requests that are not settled."""
        return len(self._sent)

    @property
    def routers(self) -> list[str]:
        """The routers that are heard of."""
        return list(self._routers)

    def workers(self) -> dict[WorkerName, int]:
        """Return how many requests each worker has, by this book."""
        return {worker.name: worker.load for worker in self.policy.workers}

    def sent_to(self) -> Sequence[tuple[str, WorkerName]]:
        """Return what is out, and where."""
        return [(id, sent.worker) for id, sent in self._sent.items()]

    # What routers say.

    def heard(self, router: str, now: float) -> None:
        """Note that a router is alive."""
        self._routers.setdefault(router, _Router()).heard_at = now

    def members(self, router: str, names: Iterable[WorkerName], now: float) -> None:
        """Take in the set of replicas that a router knows; what it knew before and does not now is leaving."""
        self.heard(router, now)
        told = self._routers[router]
        before, told.members = told.members, frozenset(names)
        for name in sorted(before - told.members):
            self._let_go(name)
        for name in sorted(told.members - before):
            if name not in self._gone and not self._known(name):
                self.policy.worker_joined(name)
                self._monitor.joined(name)

    def pick(
        self, router: str, id: str, key: RouteKey, avoid: Collection[WorkerName], now: float
    ) -> Choice | None:
        """Choose a worker for a request; asked again, the same one, unless it is to be avoided now."""
        self.heard(router, now)
        if id in self._ending:
            self._ending.pop(id)
        # A router can send only to replicas that it knows.
        unknown = {name for name in self.workers() if name not in self._routers[router].members}
        present = [name for name in avoid if self._known(name)]
        choice = self.policy.pick(key.request(id), now=int(now * 1e9), avoid={*present, *unknown})
        before = self._sent.get(id)
        if before is not None and (choice is None or not choice.again):
            self.refunded += 1
            self._drop(id, before)
        if choice is None:
            return None
        if not choice.again:
            self._note(router, id, key, choice.worker)
        elif before is not None:
            before.ended_at = None
        return choice

    def ended(self, router: str, id: str, worker: WorkerName, *, accepted: bool, now: float) -> None:
        """Note that a request is over for its router; what is not known (any more) is ignored."""
        self.heard(router, now)
        sent = self._sent.get(id)
        if sent is None or sent.worker != worker or sent.ended_at is not None:
            return
        sent.ended_at, sent.accepted = now, accepted
        self._ending[id] = now

    def died(self, worker: WorkerName) -> None:
        """Forget a worker at once, and refund what is there."""
        self._leaving.discard(worker)
        if not self._known(worker):
            return
        for id in self.policy.worker_left(worker):
            self.refunded += 1
            self._drop(id, self._sent.get(id))
        self._gone[worker] = None
        while len(self._gone) > _MOST_GONE:
            self._gone.popitem(last=False)
        self._monitor.left(worker)

    def forget(self, router: str, id: str) -> None:
        """Take back a request whose router does not want the answer any more, or never got it."""
        sent = self._sent.get(id)
        if sent is not None and sent.router == router and sent.ended_at is None:
            self._refund(id, sent)

    def adopt(self, router: str, sent: Iterable[tuple[str, RouteKey, WorkerName]], now: float) -> None:
        """Take in all that a router has out, which may differ from what is known here.

        Requests are charged where they are, not chosen anew; what is not out is taken back.
        """
        self.heard(router, now)
        told = {id: (key, worker) for id, key, worker in sent}
        for id in sorted(self._routers[router].sent - told.keys()):
            self.forget(router, id)
        for id, (key, worker) in told.items():
            before = self._sent.get(id)
            if self._known(worker) and (before is None or before.worker != worker):
                self._drop(id, before)
                others = [name for name in self.workers() if name != worker]
                if self.policy.pick(key.request(id), now=int(now * 1e9), avoid=others) is not None:
                    self._note(router, id, key, worker)

    # What replicas say.

    def reported(self, worker: WorkerName, finished: Iterable[Finished]) -> None:
        """Settle requests with what they really cost; what is not known (any more) is ignored."""
        for id, extend, output in finished:
            sent = self._sent.get(id)
            if sent is not None and sent.worker == worker:
                self._learn(sent.client, output)
                self._settle(id, sent, extend, output)

    # Time.

    def expire(self, now: float) -> None:
        """Settle what has waited long enough for a report, and forget routers that are silent."""
        while self._ending and next(iter(self._ending.values())) + self._grace_s <= now:
            id, _ = self._ending.popitem(last=False)
            sent = self._sent[id]
            if sent.accepted:
                self.unreported += 1
                self._settle(id, sent, None, sent.predicted)
            else:
                self._refund(id, sent)
        for name, router in list(self._routers.items()):
            if router.heard_at + self._silence_s <= now:
                for id in list(router.sent):
                    self._refund(id, self._sent[id])
                del self._routers[name]
        for worker in sorted(self._leaving):
            self._forget_if_empty(worker)

    # After a crash.

    def checkpoint(self) -> dict[str, Any]:
        """Return the policy's state as JSON-serialisable data."""
        return self.policy.snapshot()

    def restore(self, checkpoint: Mapping[str, Any]) -> bool:
        """Go on from an earlier book's checkpoint, if nothing has happened here yet; return whether it was used.

        What was out then counts as never sent: routers say what is out now (`adopt`).
        """
        if self.picks or self._sent:
            return False
        policy = restore_router(checkpoint)
        for saved in checkpoint["dispatched"]:
            policy.refund(saved["request"])
        # Whoever knows more of them than the routers heard of so far will name them.
        present = {name for router in self._routers.values() for name in router.members}
        held = {worker.name for worker in policy.workers}
        for name in sorted(held - present):
            policy.worker_left(name)
        for name in sorted(present - held):
            policy.worker_joined(name)
        for worker in policy.workers:
            if worker.suspended:
                self._leaving.add(worker.name)
        self.policy = policy
        return True

    # Inside.

    def _learn(self, client: Client, output: int) -> None:
        """Keep in mind how long a client's answers usually are."""
        before = self._usual.pop(client, output)
        self._usual[client] = (4 * before + output) // 5
        if len(self._usual) > self._config.max_clients:
            self._usual.popitem(last=False)

    def _note(self, router: str, id: str, key: RouteKey, worker: WorkerName) -> None:
        self.picks += 1
        predicted = min(self._usual.get(key.client, key.max_output), key.max_output)
        self._sent[id] = Sent(key.client, worker, router, predicted)
        self._routers[router].sent.add(id)
        self._monitor.dispatched(key.client)

    def _settle(self, id: str, sent: Sent, extend: int | None, output: int) -> None:
        self.settled += 1
        self.policy.settle(id, output=output, extend=extend)
        self._drop(id, sent)
        self._forget_if_empty(sent.worker)

    def _refund(self, id: str, sent: Sent) -> None:
        self.refunded += 1
        self.policy.refund(id)
        self._drop(id, sent)
        self._forget_if_empty(sent.worker)

    def _drop(self, id: str, sent: Sent | None) -> None:
        if sent is not None:
            del self._sent[id]
            self._ending.pop(id, None)
            if sent.router in self._routers:
                self._routers[sent.router].sent.discard(id)
            self._monitor.done(sent.client)

    def _known(self, worker: WorkerName) -> bool:
        return worker in self.policy.workers

    def _let_go(self, worker: WorkerName) -> None:
        if self._known(worker) and worker not in self._leaving:
            self._leaving.add(worker)
            self.policy.worker_suspended(worker)
            self._forget_if_empty(worker)

    def _forget_if_empty(self, worker: WorkerName) -> None:
        if worker in self._leaving and not self.policy.workers.named(worker).load:
            self.died(worker)
