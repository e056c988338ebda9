"""D2LPM's dispatcher and a few workers as a state that can be copied and compared, and the search over all states.

Whatever a host may do next is an action: a client sends a request of some kind, one that is out is done, with any
number of tokens, or has failed, and workers are suspended, resumed, lost and found. Every transition is checked
against the rule as it is written (`_Before.check_pick`), and every state against the counters' range.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

from attrs import Factory, define, frozen

from fairprefix.core.d2lpm import D2LPM
from fairprefix.core.request import Client, Request
from fairprefix.core.router_base import Dispatched
from fairprefix.core.router_config import RouterConfig
from fairprefix.core.run_index import ApproximateIndex

Action = tuple[str, str, int]
"""What happens, to whom, and a number where there is one."""


@frozen
class Kind:
    """A sort of request."""

    prompt: int = 1
    output: int = 1
    path: tuple[int, ...] = ()


@frozen(kw_only=True)
class Scope:
    """What is searched."""

    name: str
    config: RouterConfig
    kinds: Mapping[Client, tuple[Kind, ...]]
    workers: tuple[str, ...] = ("u", "v")
    blocks: int = 2
    """Blocks that a worker's cache holds."""
    live: int = 2
    """Requests of a client that may be out at the same time."""
    extras: frozenset[str] = frozenset()
    """Any of: refund, suspend, leave."""

    def dearest(self) -> int:
        """Return the most, in service units, that one request may be charged."""
        cost = self.config.cost
        return max(cost.service(kind.prompt, kind.output) for kinds in self.kinds.values() for kind in kinds)


@frozen
class Result:
    """What a search has found."""

    states: int
    transitions: int
    kinds_of_action: frozenset[str]
    lowest: int
    highest: int
    """Of all counters, less what a quantum of that client and worker is above that of weight 1."""


@define(eq=False)
class World:
    """One state."""

    scope: Scope
    router: D2LPM
    requests: dict[str, Request] = Factory(dict)
    """Those that are out."""

    def actions(self) -> Iterator[Action]:
        """Yield everything that may happen next."""
        scope, extras = self.scope, self.scope.extras
        for client, kinds in scope.kinds.items():
            if sum(request.client == client for request in self.requests.values()) < scope.live:
                for number in range(len(kinds)):
                    yield "pick", client, number
        for id, request in self.requests.items():
            for output in range(request.max_output + 1):
                yield "settle", id, output
            if "refund" in extras:
                yield "refund", id, 0
        for name in scope.workers:
            yield from self._about_worker(name)

    def _about_worker(self, name: str) -> Iterator[Action]:
        extras = self.scope.extras
        if name not in self.router.workers:
            yield "join", name, 0
        else:
            suspended = self.router.workers.named(name).suspended
            if "suspend" in extras:
                yield ("resume" if suspended else "suspend"), name, 0
            if "leave" in extras:
                yield "leave", name, 0

    def do(self, action: Action) -> None:
        """Carry an action out, and check what it did to the counters."""
        what, about, number = action
        before = _Before(self)
        if what == "pick":
            request = self._request(about, number)
            self.requests[request.id] = request
            choice = self.router.pick(request)
            before.check_pick(request, choice.worker if choice else None)
            if choice is None:
                del self.requests[request.id]
            else:
                canonical = self.router.canonical()
                again = self.router.pick(request)
                assert again is not None
                assert (again.worker, again.again) == (choice.worker, True)
                assert self.router.canonical() == canonical, "asking again has changed something"
        elif what in ("settle", "refund"):
            dispatched = self.router._dispatched[about]
            given = self.router._cost.service(dispatched.extend, dispatched.output)
            cost = 0 if what == "refund" else self.router._cost.service(dispatched.extend, number)
            del self.requests[about]
            if what == "settle":
                self.router.settle(about, output=number)
            else:
                self.router.refund(about)
            before.check_only(dispatched, given - cost)
        elif what == "join":
            self.router.worker_joined(about, blocks=self.scope.blocks)
        elif what == "leave":
            for id in self.router.worker_left(about):
                del self.requests[id]
        elif what == "suspend":
            self.router.worker_suspended(about)
        else:
            self.router.worker_resumed(about)

    def _request(self, client: Client, number: int) -> Request:
        kind = self.scope.kinds[client][number]
        slots = (f"{client}{number}.{slot}" for slot in range(self.scope.live))
        id = next(id for id in slots if id not in self.requests)
        return Request(id, client, kind.prompt, kind.output, kind.path)

    def copy(self) -> World:
        """Return a world in the same state, by snapshot and restore."""
        index = ApproximateIndex()
        index.load(self.router.index.dump())
        router = type(self.router).restore(self.router.snapshot(), index)
        assert isinstance(router, D2LPM)
        return World(self.scope, router, dict(self.requests))

    def counters(self) -> dict[tuple[Client, str], int]:
        """Return every counter."""
        return {
            (client, worker.name): self.router.deficit(client, worker.name)
            for client in self.scope.kinds
            for worker in self.router.workers
        }


class _Before:
    """A state before something happens, and what may have changed afterwards."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._counters = world.counters()
        router = world.router
        self._usable = {worker.name: worker.load for worker in router.workers if not worker.suspended}
        self._turns = {worker.name: worker.turn for worker in router.workers}
        self._cached = {worker.name: set(router.index.next_evicted(worker.slot)) for worker in router.workers}

    def check_only(self, dispatched: Dispatched, given_back: int) -> None:
        """Nothing moves but the one counter."""
        worker = self._world.router.workers[dispatched.slot].name
        self._counters[dispatched.client, worker] += given_back
        assert self._world.counters() == self._counters, "the counters are not the rule's"

    def check_pick(self, request: Request, chosen: str | None) -> None:
        """The client's workers are refilled together if no usable one has credit; the right one is chosen."""
        if chosen is None:
            assert not self._usable
            assert self._world.counters() == self._counters, "the counters are not the rule's"
            return
        client, router = request.client, self._world.router
        q = {name: self._counters[client, name] for name in self._turns}
        gains = {w.name: router.config.quantum * router.config.weight(client) * w.weight for w in router.workers}
        while all(q[name] <= 0 for name in self._usable):
            q = {name: value + gains[name] * (value <= 0) for name, value in q.items()}
        longest = max(self._match(name, request) for name in self._usable)
        holders = [name for name in self._usable if self._match(name, request) == longest]
        credit = [name for name in self._usable if q[name] > 0]
        allowed = [name for name in holders if name in credit] or credit
        best = min(allowed, key=lambda name: (self._usable[name], self._turns[name]))
        assert chosen == best, f"{chosen} was chosen, and not {best}"
        dispatched = router._dispatched[request.id]
        q[chosen] -= router._cost.service(dispatched.extend, dispatched.output)
        for name, value in q.items():
            self._counters[client, name] = value
        assert self._world.counters() == self._counters, "the counters are not the rule's"

    def _match(self, name: str, request: Request) -> int:
        path = request.blocks
        return next((depth for depth, block in enumerate(path) if block not in self._cached[name]), len(path))


def explore(scope: Scope, *, make: type[D2LPM] = D2LPM, most: int = 60_000) -> Result:
    """Visit every state that can be reached.

    Raises:
        AssertionError: a transition breaks the rule, a counter leaves its range, `validate` fails, or there are
            more than `most` states.
    """
    first = World(scope, make(scope.config))
    for name in scope.workers:
        first.router.worker_joined(name, blocks=scope.blocks)
    found = {first.router.canonical()}
    frontier = deque([first])
    transitions, lowest, highest = 0, 0, 0
    happened: set[str] = set()
    while frontier:
        world = frontier.popleft()
        actions = list(world.actions())
        for action in actions:
            after = world if action is actions[-1] else world.copy()
            after.do(action)
            transitions += 1
            happened.add(action[0])
            key = after.router.canonical()
            if key not in found:
                found.add(key)
                assert len(found) <= most, f"{scope.name}: more than {most} states"
                after.router.validate()
                for (client, name), q in after.counters().items():
                    weight = scope.config.weight(client) * after.router.workers.named(name).weight
                    lowest = min(lowest, q)
                    highest = max(highest, q - (weight - 1) * scope.config.quantum)
                frontier.append(after)
    return Result(len(found), transitions, frozenset(happened), lowest, highest)
