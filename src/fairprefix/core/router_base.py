"""The life cycle of dispatched requests and of workers, shared by the routers of this package.

A router of your own need not build on this: `fairprefix.core.routing.Router` is all that a host asks for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from attrs import define, fields

from fairprefix.core.errors import HostError, SnapshotError, at_least
from fairprefix.core.request import BlockHash, Client, Request
from fairprefix.core.router_config import RouterConfig
from fairprefix.core.routing import Choice, WorkerName
from fairprefix.core.run_index import ApproximateIndex
from fairprefix.core.snapshot import SCHEMA
from fairprefix.core.worker_index import ExactIndex, WorkerIndex
from fairprefix.core.workers import Worker, Workers

_FORMAT = "fairprefix.router"
_INDEXES: Mapping[str, type[ApproximateIndex | ExactIndex]] = {
    index.kind: index for index in (ApproximateIndex, ExactIndex)
}


@define(eq=False)
class Dispatched:
    """A request that is at a worker."""

    request: str
    client: Client
    slot: int
    cached_tokens: int
    """How much of its prompt the worker was taken to have cached."""
    extend: int
    """Prompt tokens charged at dispatch (D2LPM)."""
    output: int = 0
    """Output tokens charged at dispatch (D2LPM)."""
    serial: int = 0
    """Number of its dispatch."""


class BaseRouter(ABC):
    """Keeps workers, dispatched requests and the index; whom to choose is up to the subclass.

    Args:
        config: the parameters.
        index: what is cached where; without one, an empty index of the configured kind.
    """

    workers: Workers

    name: ClassVar[str]

    def __init__(self, config: RouterConfig, index: WorkerIndex | None = None) -> None:
        self.config = config
        self.index: WorkerIndex = _INDEXES[config.index]() if index is None else index
        self.workers = Workers()
        self._dispatched: dict[str, Dispatched] = {}

    # What a subclass decides.

    @abstractmethod
    def _choose(self, request: Request, among: int, now: int) -> tuple[Worker, int | None]:
        """Return one of the workers `among`, of which there is at least one, and its match in blocks if known."""

    def _charge(self, dispatched: Dispatched, request: Request) -> None:  # noqa: B027 (not every router needs it)
        """React to a dispatch, before the index hears of it."""

    def _settle(self, dispatched: Dispatched, output: int, extend: int | None) -> None:  # noqa: B027 (not every router needs it)
        """React to a request that is done."""

    def _refund(self, dispatched: Dispatched) -> None:  # noqa: B027 (not every router needs it)
        """React to a dispatch that did not happen."""

    def _joined(self, worker: Worker) -> None:  # noqa: B027 (not every router needs it)
        """React to a new worker."""

    def _left(self, worker: Worker) -> None:  # noqa: B027 (not every router needs it)
        """React to a worker that is gone, and its requests with it."""

    def _state(self) -> dict[str, Any]:
        """Return the subclass's own state for a snapshot."""
        return {}

    def _load_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027 (not every router needs it)
        """Read back what `_state` returned."""

    def _canonical_state(self) -> tuple[object, ...]:
        """Return the subclass's own part of `canonical`."""
        return ()

    def unbalanced(self, more: int, less: int) -> bool:
        """Return whether two loads differ by more than `balance_abs` and by more than `balance_rel_percent`."""
        config = self.config
        return more - less > config.balance_abs and 100 * more > config.balance_rel_percent * less

    # Requests.

    def pick(self, request: Request, *, now: int = 0, avoid: Collection[WorkerName] = ()) -> Choice | None:
        """Choose a worker; see `fairprefix.core.routing.Router`. O(blocks of the prompt + workers)."""
        among = self.workers.without(avoid)
        known = self._dispatched.get(request.id)
        if known is not None:
            if among >> known.slot & 1:
                return Choice(request.id, self.workers[known.slot].name, known.cached_tokens, again=True)
            self.refund(request.id)
        if not among:
            return None
        worker, matched = self._choose(request, among, now)
        slot = worker.slot
        if matched is None:
            matched = self.index.matched_blocks(slot, request.blocks, request.namespace)
        # The last token of a prompt is always computed.
        cached = min(matched * self.config.block_size, request.input_tokens - 1)
        self.workers.dispatched(worker)
        dispatched = Dispatched(request.id, request.client, slot, cached, request.input_tokens)
        dispatched.serial = self.workers.turn
        self._dispatched[request.id] = dispatched
        self._charge(dispatched, request)
        self.index.sent(slot, request.blocks, request.namespace)
        return Choice(request.id, worker.name, cached, again=False)

    def settle(self, id: str, *, output: int, extend: int | None = None) -> None:
        """Settle a request that is done. O(1)."""
        dispatched = self._get(id)
        at_least("output", output, 0)
        if extend is not None:
            at_least("extend", extend, 0)
        self._settle(dispatched, output, extend)
        self._forget(dispatched)

    def refund(self, id: str) -> None:
        """Take back a dispatch. O(1)."""
        dispatched = self._get(id)
        self._refund(dispatched)
        self._forget(dispatched)

    def worker_of(self, id: str) -> WorkerName | None:
        """Return where a request was sent; None if it is not out."""
        dispatched = self._dispatched.get(id)
        return self.workers[dispatched.slot].name if dispatched else None

    def _get(self, id: str) -> Dispatched:
        dispatched = self._dispatched.get(id)
        if dispatched is None:
            raise HostError(f"request {id!r} is not out: never picked, settled already, or its worker has left")
        return dispatched

    def _forget(self, dispatched: Dispatched) -> None:
        del self._dispatched[dispatched.request]
        self.workers.done(self.workers[dispatched.slot])

    # Workers.

    def worker_joined(self, worker: WorkerName, *, weight: int = 1, blocks: int | None = None) -> None:
        """Take a worker into service. O(workers)."""
        joined = self.workers.join(worker, weight, self.config.worker_blocks if blocks is None else blocks)
        self.index.open(joined.slot, joined.blocks)
        self._joined(joined)

    def worker_left(self, worker: WorkerName) -> tuple[str, ...]:
        """Forget a worker. O(requests that are out + blocks that it had cached)."""
        left = self.workers.named(worker)
        there = [id for id, dispatched in self._dispatched.items() if dispatched.slot == left.slot]
        for id in there:
            self.refund(id)
        self._left(left)
        self.index.close(left.slot)
        self.workers.leave(left)
        return tuple(there)

    def worker_suspended(self, worker: WorkerName) -> None:
        """Send a worker nothing for now. O(1)."""
        self.workers.suspend(self.workers.named(worker))

    def worker_resumed(self, worker: WorkerName) -> None:
        """Use a suspended worker again. O(1)."""
        self.workers.resume(self.workers.named(worker))

    def reweigh(self, client: Client, weight: int) -> None:
        """Change a client's weight, which only some routers look at."""
        del client
        at_least("weight", weight, 1)

    # What workers report of their caches (exact index).

    def stored(self, worker: WorkerName, blocks: Sequence[BlockHash], namespace: str = "") -> None:
        """Note that a worker has cached blocks. O(blocks)."""
        self._exact().stored(self.workers.named(worker).slot, blocks, namespace)

    def removed(self, worker: WorkerName, blocks: Sequence[BlockHash], namespace: str = "") -> None:
        """Note that a worker has evicted blocks. O(blocks)."""
        self._exact().removed(self.workers.named(worker).slot, blocks, namespace)

    def cleared(self, worker: WorkerName) -> None:
        """Note that a worker's cache is empty, or that events of it were lost. O(its blocks)."""
        self.index.clear(self.workers.named(worker).slot)

    def _exact(self) -> ExactIndex:
        if not isinstance(self.index, ExactIndex):
            raise HostError("the index is approximate, it takes no events: set index = 'exact'")
        return self.index

    # State.

    def snapshot(self) -> dict[str, Any]:
        """Return the state as JSON-serialisable data. What is cached where is left out (`WorkerIndex.dump`)."""
        names = [attribute.name for attribute in fields(Dispatched)]
        return {
            "format": _FORMAT,
            "schema": SCHEMA,
            "router": self.name,
            "config": self.config.to_mapping(),
            "workers": self.workers.dump(),
            "turn": self.workers.turn,
            "dispatched": [{name: getattr(one, name) for name in names} for one in self._dispatched.values()],
            **self._state(),
        }

    @classmethod
    def restore(cls, snapshot: Mapping[str, Any], index: WorkerIndex | None = None) -> BaseRouter:
        """Return the router that a snapshot was taken of, in that state, with an empty index or the one given.

        Args:
            snapshot: what `snapshot` returned.
            index: what is cached where, by the slots of the snapshot's workers.

        Raises:
            SnapshotError: it is none, or of another schema version or router.
        """
        for key, expected in (("format", _FORMAT), ("schema", SCHEMA), ("router", cls.name)):
            found = snapshot.get(key)
            if found != expected:
                raise SnapshotError(f"snapshot: {key} = {found!r}, expected {expected!r}")
        router = cls(RouterConfig.from_mapping(snapshot["config"]), index)
        router.workers.load(snapshot["workers"], snapshot["turn"])
        if index is None:
            for worker in router.workers:
                router.index.open(worker.slot, worker.blocks)
        for saved in snapshot["dispatched"]:
            router._dispatched[saved["request"]] = Dispatched(**saved)
        router._load_state(snapshot)
        return router

    def canonical(self) -> tuple[object, ...]:
        """Return a hashable form of the state."""
        ids = sorted(self._dispatched)
        return (
            self.workers.canonical(),
            tuple(self._describe(self._dispatched[id]) for id in ids),
            self.index.canonical(),
            *self._canonical_state(),
        )

    def validate(self) -> None:
        """Check every invariant."""
        self.workers.validate()
        self.index.validate()
        loads: dict[int, int] = {}
        for dispatched in self._dispatched.values():
            loads[dispatched.slot] = loads.get(dispatched.slot, 0) + 1
        for worker in self.workers:
            assert worker.load == loads.get(worker.slot, 0), f"{worker.name!r}: load {worker.load}"

    @staticmethod
    def _describe(one: Dispatched) -> tuple[object, ...]:
        return (one.request, one.client, one.slot, one.cached_tokens, one.extend, one.output)
