"""A shipping policy and the smallest engine that can host it, as a state that can be copied and compared.

The engine takes no decision of its own: whatever a real one might do next is an action, and the search tries all
of them. Time passes in steps in which every running request produces one token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy

from attrs import Factory, define, field, frozen

from fairprefix.core.base import BasePolicy
from fairprefix.core.bounds import Engine
from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.cost import Receipt
from fairprefix.core.dlpm import DLPM
from fairprefix.core.lane import WAITING, Entry, Stage
from fairprefix.core.policy import Refusal
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.core.request import Client, Request
from fairprefix.core.vtc import VTC

Key = tuple[object, ...]
Make = Callable[[PolicyConfig, PrefixIndex | None], BasePolicy]
"""Makes the policy under test."""
Action = tuple[str, str]
"""What happens, and to which request (or block, or nothing)."""


@frozen
class Kind:
    """A sort of request."""

    prompt: int = 1
    output: int = 1
    blocks: tuple[int, ...] = ()


@frozen(kw_only=True)
class Scope:
    """What is searched: a policy, an engine, clients and their requests, and what may happen besides."""

    name: str
    config: PolicyConfig
    engine: Engine
    kinds: Mapping[Client, tuple[Kind, ...]]
    waiting: int = 1
    """Requests of a client that may wait at the same time."""
    live: int = 3
    """Requests of a client that may exist at the same time."""
    extras: frozenset[str] = frozenset()
    """Any of: end, abort, block, evict, refund. (Preemption follows from the engine.)"""
    requests: Mapping[str, Request] = field(init=False)
    """Every request that can exist; an id is used again when its request is gone."""

    blocks: tuple[int, ...] = field(init=False)
    """Every block that can be cached."""

    @blocks.default
    def _all_blocks(self) -> tuple[int, ...]:
        return tuple(sorted({block for kinds in self.kinds.values() for kind in kinds for block in kind.blocks}))

    @requests.default
    def _all_requests(self) -> Mapping[str, Request]:
        slots = range(self.live)
        return {
            f"{client}{number}.{slot}": Request(
                f"{client}{number}.{slot}", client, kind.prompt, kind.output, kind.blocks
            )
            for client, kinds in self.kinds.items()
            for number, kind in enumerate(kinds)
            for slot in slots
        }


@define
class Run:
    """A request that the engine knows of: running, or held until there is room again."""

    extend: int
    produced: int
    """Output tokens since it arrived."""

    def tokens(self) -> int:
        """Return the KV memory that it occupies."""
        return self.extend + self.produced


@define(eq=False)
class World:
    """One state."""

    scope: Scope
    make: Make
    policy: BasePolicy
    index: PrefixIndex | None
    """None where no request has a prefix to share."""
    cached: tuple[int, ...] = ()
    """Blocks of which the index was told."""
    runs: dict[str, Run] = Factory(dict)
    held: dict[str, Run] = Factory(dict)
    served: dict[Client, int] = Factory(dict)
    """Service of the last action, in service units."""

    # Actions.

    def actions(self) -> Iterator[Action]:
        """Yield everything that may happen next."""
        scope, entries = self.scope, self.policy._entries
        extras = scope.extras
        yield from self._arrivals()
        for id, entry in entries.items():
            if entry.stage in WAITING:
                if "abort" in extras:
                    yield "abort", id
                if "block" in extras:
                    yield "block", id
            elif entry.stage is Stage.BLOCKED:
                yield "unblock", id
        engine = self.scope.engine
        has_room = len(self.runs) + len(self.held) < engine.max_running and self._occupied() < engine.kv_tokens
        if has_room and any(entry.stage in WAITING for entry in entries.values()):
            yield "admit", ""
        yield from self._engine_actions(extras)

    def _engine_actions(self, extras: frozenset[str]) -> Iterator[Action]:
        crowded = self._occupied() + len(self.runs) > self.scope.engine.kv_tokens
        if self.runs and not (crowded and self.scope.engine.reservation == "none"):
            yield "step", ""
        for id, run in self.runs.items():
            if "end" in extras:
                yield "end", id
            if crowded and self.scope.engine.reservation == "none":
                yield "preempt", id
            if "refund" in extras and not run.produced:
                yield "refund", id
        for id, run in self.held.items():
            if len(self.runs) < self.scope.engine.max_running and self._fits(run.tokens(), 0):
                yield "resume", id
        if "evict" in extras:
            for block in self.cached:
                yield "evict", str(block)

    def _arrivals(self) -> Iterator[Action]:
        entries = self.policy._entries
        for client, kinds in self.scope.kinds.items():
            own = [entry.stage for entry in entries.values() if entry.request.client == client]
            waiting = sum(stage not in (Stage.RUNNING, Stage.HELD) for stage in own)
            if waiting < self.scope.waiting and len(own) < self.scope.live:
                for number in range(len(kinds)):
                    slots = (f"{client}{number}.{slot}" for slot in range(self.scope.live))
                    yield "arrive", next(id for id in slots if id not in entries)

    def do(self, action: Action) -> bool:
        """Carry an action out; return whether anything came of it."""
        what, about = action
        self.served = {}
        if what == "admit":
            return self._admit()
        if what == "arrive":
            self.policy.arrive(self.scope.requests[about])
        elif what == "block":
            self.policy.defer(about, Refusal.BLOCKED)
        else:
            {
                "step": self._step,
                "abort": self._end,
                "end": self._end,
                "unblock": self.policy.unblock,
                "preempt": self._preempt,
                "resume": self._resume,
                "refund": self._refund,
                "evict": self._evict,
            }[what](about)
        return True

    def _admit(self) -> bool:
        """Admit what the policy offers first among what fits."""
        self.policy.begin_pass()
        admitted = False
        while not admitted and (request := self.policy.peek()):
            entry = self.policy._entries[request.id]
            extend = request.input_tokens - entry.match
            room = len(self.runs) + len(self.held) < self.scope.engine.max_running
            if room and self._fits(extend + entry.done, request.max_output - entry.done):
                self._take(entry, Run(extend, entry.done))
                self._cache(request)
                admitted = True
            else:
                self.policy.defer(request.id, Refusal.NO_ROOM)
        self.policy.begin_pass()
        return admitted

    def _take(self, entry: Entry, run: Run) -> None:
        request = entry.request
        computed = run.extend + run.produced
        self.policy.take(request.id, extend=computed, reserve=request.max_output - run.produced)
        self.runs[request.id] = run
        whole_prompt = isinstance(self.policy, VTC) and self.scope.config.vtc_charge == "input"
        if not entry.paid:
            self._serve(request.client, extend=request.input_tokens if whole_prompt else run.extend)
        elif self.scope.config.recompute == "charged":
            self._serve(request.client, extend=computed)

    def _resume(self, id: str) -> None:
        self._take(self.policy._entries[id], self.held.pop(id))

    def _evict(self, block: str) -> None:
        if self.index:
            self.index.evicted([int(block)])
            self.cached = tuple(other for other in self.cached if other != int(block))

    def _step(self, about: str) -> None:
        del about
        tokens: dict[Client, int] = {}
        for id, run in self.runs.items():
            run.produced += 1
            client = self.scope.requests[id].client
            tokens[client] = tokens.get(client, 0) + 1
        self.policy.produced(tokens)
        for client, count in tokens.items():
            self._serve(client, output=count)
        for id in [id for id, run in self.runs.items() if run.produced == self.scope.requests[id].max_output]:
            self._end(id)

    def _end(self, id: str) -> None:
        run = self.runs.pop(id, None)
        self.policy.finish(id, output=run.produced if run else self.policy._entries[id].done)

    def _preempt(self, id: str) -> None:
        run = self.runs.pop(id)
        held = self.scope.engine.resume == "held"
        self.policy.preempt(id, output=run.produced, keep_hold=held)
        if held:
            self.held[id] = run

    def _refund(self, id: str) -> None:
        entry = self.policy._entries[id]
        receipt = Receipt(id, entry.request.client, entry.serial, entry.extend, entry.reserve, entry.charged)
        self._serve(entry.request.client, extend=-self.runs.pop(id).extend)
        self.policy.refund(receipt)

    def _serve(self, client: Client, *, extend: int = 0, output: int = 0) -> None:
        units = self.scope.config.cost.service(extend, output)
        self.served[client] = self.served.get(client, 0) + units

    # Memory.

    def _occupied(self) -> int:
        return sum(run.tokens() for run in self.runs.values())

    def _fits(self, present: int, to_come: int) -> bool:
        if self.scope.engine.reservation == "none":
            return self._occupied() + present <= self.scope.engine.kv_tokens
        reserved = sum(run.extend + self.scope.requests[id].max_output for id, run in self.runs.items())
        return reserved + present + to_come <= self.scope.engine.kv_tokens

    def _cache(self, request: Request) -> None:
        if self.index:
            self.index.cached(request.blocks)
            self.cached = tuple(sorted({*self.cached, *(int(block) for block in request.blocks)}))

    # State.

    def backlogged(self, client: Client) -> bool:
        """Return whether a request of the client is queued."""
        return any(
            entry.stage in WAITING and entry.request.client == client for entry in self.policy._entries.values()
        )

    def copy(self) -> World:
        """Return a world in the same state: snapshot and restore, without the detour over JSON."""
        index = self.own_index()
        old, new = self.policy, self.make(self.scope.config, index)
        new._next_seq, new._next_serial = old._next_seq, old._next_serial
        new._load_state(old._state())
        for id, known in old._entries.items():
            new._entries[id] = entry = copy(known)
            if entry.stage in WAITING:
                entry.match = new._prefixes.watch(entry.request)
                new._lane(entry).enter(entry)
        for entry in {entry.owner: entry for entry in new._entries.values()}.values():
            new._moved(entry)
        runs, held = (
            {id: Run(run.extend, run.produced) for id, run in known.items()} for known in (self.runs, self.held)
        )
        return World(self.scope, self.make, new, index, self.cached, runs, held)

    def returned_in_debt(self, id: str) -> bool:
        """Return whether a request that has just arrived is the only one of a client with a negative counter."""
        client = self.scope.requests[id].client
        in_debt = isinstance(self.policy, DLPM) and self.policy.deficit(client) < 0
        return in_debt and sum(e.request.client == client for e in self.policy._entries.values()) == 1

    def own_index(self) -> PrefixIndex | None:
        """Return a new index of what is cached."""
        return _index(self.scope, self.cached)

    def key(self) -> Key:
        """Return a form of the state in which states that behave alike are equal, whatever their requests' ids."""
        _, entries, _ = self.policy.canonical()
        assert isinstance(entries, tuple)
        described = [self._describe(*entry) for entry in entries]
        if self.scope.engine.reservation == "full" and "refund" not in self.scope.extras:
            # What runs never comes back: its age does not matter.
            described.sort(key=lambda entry: (entry[0], repr(entry) if entry[0] else ""))
        return (*described, self.cached, *_accounts(self.policy))

    def _describe(self, id: str, *entry: object) -> tuple[object, ...]:
        run = self.runs.get(id) or self.held.get(id)
        size = (run.extend, run.produced) if run else ()
        return (id in self.runs, id.partition(".")[0], *entry, *size)

    def discard(self) -> None:
        """Cut the cycles between the policy's parts: millions of worlds are no work for the garbage collector."""
        if isinstance(self.policy, DLPM):
            for standing in self.policy._table:
                standing.offered = standing.bucket = None
        elif isinstance(self.policy, VTC):
            for counter in self.policy._table:
                counter.offer = None
        vars(self.policy).clear()

    def rounds(self) -> int:
        """Return the number of refills so far; a policy without refills has none."""
        return self.policy.rounds if isinstance(self.policy, DLPM) else 0


def new_world(scope: Scope, make: Callable[[PolicyConfig, PrefixIndex | None], BasePolicy] = make_policy) -> World:
    """Return the world before anything has happened."""
    index = _index(scope, ())
    return World(scope, make, make(scope.config, index), index)


def _index(scope: Scope, cached: Iterable[int]) -> PrefixIndex | None:
    if not scope.blocks:
        return None
    index = PrefixIndex(1)
    for block in cached:
        index.cached([block])
    return index


def _accounts(policy: BasePolicy) -> Iterator[object]:
    if isinstance(policy, VTC):
        yield from _counters(policy)
    elif isinstance(policy, DLPM):
        for account in sorted(policy._table, key=lambda account: account.key):
            yield account.key, policy._settled_account(account).balance, account.outstanding, account.lane.turn


def _counters(policy: VTC) -> Iterator[object]:
    """Yield the counters relative to what a returning client is lifted to.

    Counters grow for ever. A client that is not queued will be lifted to the floor, which never falls: how far
    below the floor it stays, whatever it may still produce, makes no difference.
    """
    floor = policy._floor()
    output = policy._cost.output * policy._scale
    queued = False
    for account in sorted(policy._table, key=lambda account: account.key):
        counter = account.balance - floor
        queued = queued or account.lane.waiting > 0
        if not account.lane.waiting:
            counter = max(counter, -(output // account.weight) * max(account.outstanding, 0))
        yield account.key, counter, account.outstanding
    yield None if queued else policy._last_left
