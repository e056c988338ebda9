"""The central pool and the shared ledger on random histories."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fairprefix.core.central_pool import CentralPool
from fairprefix.core.config import PolicyConfig
from fairprefix.core.contract import HostContract
from fairprefix.core.cost import Receipt
from fairprefix.core.ledger_view import LedgerView
from fairprefix.core.policy import Refusal
from fairprefix.core.request import Request
from fairprefix.core.routing import Choice
from fairprefix.core.shared_ledger import SharedLedger
from tests.property.machine import machine_settings

CLIENTS = ("a", "b", "c")
NAMES = ("u", "v", "w")
PATHS = tuple(tuple(family * 100 + place for place in range(length)) for family in range(2) for length in range(4))


class PoolMachine(RuleBasedStateMachine):
    """Requests arrive, are admitted, preempted and ended; workers come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.pooled: dict[str, str] = {}
        self.queued: dict[str, str] = {}
        self.running: dict[str, str] = {}
        """By request: the worker, or the client of what is in the pool."""
        self.usable: set[str] = set()

    @initialize(depth=st.integers(1, 2), look=st.integers(1, 3))
    def begin(self, depth: int, look: int) -> None:
        """Make a pool."""
        self.pool = CentralPool(block_size=1, depth=depth, look=look, worker_blocks=6)

    def hand(self, choices: list[Choice]) -> None:
        """Queue what is handed over."""
        for choice in choices:
            del self.pooled[choice.request]
            assert choice.worker in self.usable
            self.queued[choice.request] = choice.worker

    @rule(client=st.sampled_from(CLIENTS), path=st.sampled_from(PATHS))
    def arrive(self, client: str, path: tuple[int, ...]) -> None:
        """A new request."""
        self.number += 1
        id = f"{client}{self.number}"
        self.pooled[id] = client
        self.hand(self.pool.arrive(Request(id, client, len(path) + 1, 1, path)))

    @precondition(lambda self: self.queued)
    @rule(data=st.data())
    def admit(self, data: st.DataObject) -> None:
        """A worker takes a request into its batch."""
        id = data.draw(st.sampled_from(sorted(self.queued)))
        self.running[id] = self.queued.pop(id)
        self.hand(self.pool.admitted(id))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def preempt(self, data: st.DataObject) -> None:
        """A worker puts one back."""
        id = data.draw(st.sampled_from(sorted(self.running)))
        self.queued[id] = self.running.pop(id)
        self.pool.preempted(id)

    @precondition(lambda self: self.pooled or self.queued or self.running)
    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        """A request ends, wherever it is."""
        id = data.draw(st.sampled_from(sorted({*self.pooled, *self.queued, *self.running})))
        for place in (self.pooled, self.queued, self.running):
            place.pop(id, None)
        self.hand(self.pool.finish(id))

    @rule(name=st.sampled_from(NAMES), what=st.sampled_from(["leave", "suspend"]))
    def come_or_go(self, name: str, what: str) -> None:
        """A worker joins or is resumed, and otherwise leaves or is suspended."""
        if name not in self.pool.workers:
            self.usable.add(name)
            self.hand(self.pool.worker_joined(name))
        elif name not in self.usable:
            self.usable.add(name)
            self.hand(self.pool.worker_resumed(name))
        else:
            self.usable.remove(name)
            if what == "suspend":
                self.pool.worker_suspended(name)
                return
            gone = self.pool.worker_left(name)
            there = {id for place in (self.queued, self.running) for id, worker in place.items() if worker == name}
            assert set(gone) == there
            for id in gone:
                self.queued.pop(id, None)
                self.running.pop(id, None)

    @invariant()
    def nobody_lacks_what_the_pool_has(self) -> None:
        """While a client's pool is not empty, every usable worker has `depth` of its requests queued."""
        self.pool.validate()
        for client in set(self.pooled.values()):
            for name in self.usable:
                have = sum(id.startswith(client) and worker == name for id, worker in self.queued.items())
                assert have >= self.pool.depth, (client, name)


class LedgerMachine(RuleBasedStateMachine):
    """Two workers and a ledger, beside a table of what is true."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 0
        self.running: dict[str, tuple[str, Receipt, int]] = {}
        self.blocked: set[str] = set()
        self.requests: dict[str, Request] = {}
        self.charged: dict[str, int] = {}
        self.given_back = 0

    @initialize(quantum=st.integers(1, 20), recompute=st.sampled_from(["free", "charged"]))
    def begin(self, quantum: int, recompute: str) -> None:
        """Make a ledger and its views."""
        self.ledger = SharedLedger(PolicyConfig(quantum=quantum, recompute=recompute, weights={"a": 2}), look=2)
        self.views = {name: LedgerView(self.ledger, name, lambda r: len(r.blocks) // 2) for name in ("u", "v")}

    @rule(client=st.sampled_from(CLIENTS), path=st.sampled_from(PATHS), name=st.sampled_from(["u", "v"]))
    def arrive(self, client: str, path: tuple[int, ...], name: str) -> None:
        """A new request, through either worker."""
        self.number += 1
        request = Request(f"{client}{self.number}", client, len(path) + 3, 4, path)
        self.requests[request.id] = request
        self.views[name].arrive(request)

    @rule(name=st.sampled_from(["u", "v"]), how=st.sampled_from(["take", "take", "take", "no room", "blocked"]))
    def offer(self, name: str, how: str) -> None:
        """A worker looks, and takes what it is offered, or cannot."""
        view = self.views[name]
        before = view.canonical()
        found = view.peek()
        assert view.canonical() == before, "looking has changed something"
        if found is None:
            return
        plan = view.plan(3)
        assert plan[0] is found
        assert view.canonical() == before, "planning has changed something"
        if how == "take":
            known = self.ledger.deficit(found.client) - self.ledger.unreported(found.client)
            receipt = view.take(found.id, extend=found.input_tokens, reserve=4)
            quantum = self.ledger.config.quantum * self.ledger.config.weight(found.client)
            truth = self.ledger.deficit(found.client) - self.ledger.unreported(found.client) + receipt.charged
            assert truth >= known
            # What the worker did not know of is at most what others had not reported.
            assert truth > -self.ledger.unsettled
            assert self.ledger.deficit(found.client) <= quantum + self.given_back
            self.running[found.id] = (name, receipt, 0)
            self.charged[found.client] = self.charged.get(found.client, 0) + receipt.charged
        elif how == "no room":
            view.defer(found.id, Refusal.NO_ROOM)
        else:
            view.defer(found.id, Refusal.BLOCKED)
            self.blocked.add(found.id)

    @rule(name=st.sampled_from(["u", "v"]))
    def step(self, name: str) -> None:
        """A worker's requests produce a token each; those with four are done."""
        mine = [id for id, (worker, _, _) in self.running.items() if worker == name]
        tokens: dict[str, int] = {}
        for id in mine:
            tokens[id[0]] = tokens.get(id[0], 0) + 1
        self.views[name].produced(tokens)
        for client, count in tokens.items():
            self.charged[client] += 2 * count
        for id in mine:
            worker, receipt, done = self.running[id]
            self.running[id] = (worker, receipt, done + 1)
            if done + 1 >= 4:
                self.views[name].finish(id, output=done + 1)
                del self.running[id], self.requests[id]

    @precondition(lambda self: any(done == 0 for _, _, done in self.running.values()))
    @rule(data=st.data())
    def refund(self, data: st.DataObject) -> None:
        """An admission did not happen."""
        fresh = sorted(id for id, (_, _, done) in self.running.items() if not done)
        id = data.draw(st.sampled_from(fresh))
        name, receipt, _ = self.running.pop(id)
        self.views[name].refund(receipt)
        self.charged[id[0]] -= receipt.charged
        self.given_back += receipt.charged

    @rule(name=st.sampled_from(["u", "v"]))
    def report(self, name: str) -> None:
        """A worker settles, and begins a new pass."""
        self.ledger.report(name)
        self.views[name].begin_pass()

    @precondition(lambda self: self.blocked)
    @rule(data=st.data(), name=st.sampled_from(["u", "v"]))
    def unblock(self, data: st.DataObject, name: str) -> None:
        """A request is ready."""
        id = data.draw(st.sampled_from(sorted(self.blocked)))
        self.blocked.remove(id)
        self.views[name].unblock(id)

    @invariant()
    def sound(self) -> None:
        """Whatever was charged has been taken from what refills brought, no more and no less."""
        for view in getattr(self, "views", {}).values():
            view.validate()
        for client, charged in self.charged.items():
            truth = self.ledger.deficit(client) - self.ledger.unreported(client)
            quantum = self.ledger.config.quantum * self.ledger.config.weight(client)
            assert (truth + charged) % quantum == 0, client
            assert 0 <= (truth + charged) // quantum <= self.ledger.rounds, client


def test_a_pool_keeps_every_worker_supplied() -> None:
    """At any moment, whatever arrives, ends, comes and goes."""
    run_state_machine_as_test(PoolMachine, settings=machine_settings(40))


def test_a_ledger_charges_everything_once_and_refills_on_what_is_settled() -> None:
    """Counters are refills less charges, looking is free, and what workers do not know of is bounded by delta."""
    run_state_machine_as_test(LedgerMachine, settings=machine_settings(40))


def test_a_ledgers_view_is_a_policy_like_any_other() -> None:
    """A host that keeps the contract can run it without knowing."""
    ledger = SharedLedger(PolicyConfig(quantum=5))
    policy = HostContract(LedgerView(ledger, "u"))
    for number in range(6):
        policy.arrive(Request(f"{'ab'[number % 2]}{number}", "ab"[number % 2], 4, 2))
    policy.begin_pass()
    while found := policy.peek():
        policy.take(found.id, extend=4, reserve=2)
        policy.produced({found.client: 2})
        policy.finish(found.id, output=2)
    policy.validate()
    policy.close()
