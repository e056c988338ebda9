"""D2LPM against a transcription of Algorithm 2, and every router's life cycle, on random histories."""

from __future__ import annotations

from collections.abc import Collection
from typing import ClassVar

import hypothesis.strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fairprefix.core.d2lpm import D2LPM
from fairprefix.core.request import Request
from fairprefix.core.router_base import BaseRouter
from fairprefix.core.router_catalog import make_router, restore_router
from fairprefix.core.router_config import INDEX_KINDS, OUTPUT_CHARGES, PROMPT_CHARGES, ROUTERS, RouterConfig
from tests.property.d2lpm_oracle import D2LPMOracle
from tests.property.machine import machine_settings

CLIENTS = ("a", "b", "c")
NAMES = ("u", "v", "w", "x")
PATHS = tuple(tuple(family * 100 + place for place in range(length)) for family in range(3) for length in range(5))
"""Prompts of three families, each the beginning of the next longer one."""


class RouterMachine(RuleBasedStateMachine):
    """Workers join, leave, die, pause and come back; requests are picked, picked again, settled and refunded."""

    configs: ClassVar[st.SearchStrategy[RouterConfig]] = st.builds(
        RouterConfig,
        router=st.sampled_from(ROUTERS),
        index=st.sampled_from(INDEX_KINDS),
        quantum=st.integers(1, 30),
        block_size=st.just(1),
        window=st.integers(1, 40),
        prefill_ns=st.integers(0, 5),
        decode_ns=st.integers(0, 5),
        balance_abs=st.integers(0, 3),
        hash_blocks=st.integers(1, 3),
        max_clients=st.integers(1, 3),
    )

    def __init__(self) -> None:
        super().__init__()
        self.router: BaseRouter
        self.requests: dict[str, Request] = {}
        self.paused: set[str] = set()
        self.now = 0
        self.number = 0

    @initialize(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        """Draw a configuration and the first worker."""
        self.router = make_router(data.draw(self.configs))
        self.begun()
        self.join("u", 1, 6)

    def begun(self) -> None:
        """React to a new router."""

    @rule(name=st.sampled_from(NAMES), weight=st.integers(1, 3), blocks=st.integers(1, 9))
    def join(self, name: str, weight: int, blocks: int) -> None:
        """A worker joins, if it is not there."""
        if name not in self.router.workers:
            self.router.worker_joined(name, weight=weight, blocks=blocks)
            self.joined(name, weight, blocks)

    def joined(self, name: str, weight: int, blocks: int) -> None:
        """React to a worker that has joined."""

    @rule(name=st.sampled_from(NAMES))
    def leave(self, name: str) -> None:
        """A worker leaves, and all that was there with it."""
        if name in self.router.workers:
            there = {id for id in self.requests if self.router.worker_of(id) == name}
            gone = self.router.worker_left(name)
            assert set(gone) == there
            self.left(name, gone)
            self.paused.discard(name)

    def left(self, name: str, gone: Collection[str]) -> None:
        """React to a worker that has left."""

    @rule(name=st.sampled_from(NAMES))
    def pause_or_resume(self, name: str) -> None:
        """A worker is suspended, or is back."""
        if name not in self.router.workers:
            return
        if name in self.paused:
            self.router.worker_resumed(name)
            self.paused.remove(name)
        else:
            self.router.worker_suspended(name)
            self.paused.add(name)
        self.paused_changed(name)

    def paused_changed(self, name: str) -> None:
        """React to a worker that was suspended or resumed."""

    @rule(
        client=st.sampled_from(CLIENTS),
        path=st.sampled_from(PATHS),
        extra=st.integers(1, 9),
        output=st.integers(1, 9),
        avoid=st.sets(st.sampled_from(NAMES), max_size=2),
    )
    def pick(self, client: str, path: tuple[int, ...], extra: int, output: int, avoid: set[str]) -> None:
        """A new request."""
        self.number += 1
        self.ask(Request(f"{client}{self.number}", client, len(path) + extra, output, path), avoid)

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), avoid=st.sets(st.sampled_from(NAMES), max_size=2))
    def pick_again(self, data: st.DataObject, avoid: set[str]) -> None:
        """A request is asked for once more, out or not."""
        self.ask(self.requests[data.draw(st.sampled_from(sorted(self.requests)))], avoid)

    def ask(self, request: Request, avoid: set[str]) -> None:
        """Pick a worker, and check that it may be used."""
        self.now += 3
        before = self.router.worker_of(request.id)
        choice = self.router.pick(request, now=self.now, avoid=avoid)
        usable = {worker.name for worker in self.router.workers} - self.paused - avoid
        assert (choice is None) == (not usable)
        self.requests[request.id] = request
        if choice is not None:
            assert choice.worker in usable
            assert choice.again == (before == choice.worker)
            assert choice.again or before not in usable
            assert 0 <= choice.cached_tokens < request.input_tokens
            assert self.router.worker_of(request.id) == choice.worker
            twice = self.router.pick(request, now=self.now, avoid=avoid)
            assert twice is not None
            assert (twice.worker, twice.again) == (choice.worker, True)
            self.tell(choice.worker, request.blocks)
        self.asked(request, avoid, choice.worker if choice else None)

    def tell(self, worker: str, path: object) -> None:
        """Report what a worker has cached, where it has to be reported."""
        if self.router.config.index == "exact":
            assert isinstance(path, tuple)
            self.router.stored(worker, path)

    def asked(self, request: Request, avoid: set[str], worker: str | None) -> None:
        """React to a choice."""

    @precondition(lambda self: self.requests)
    @rule(data=st.data(), output=st.integers(0, 12), extend=st.none() | st.integers(0, 12))
    def settle(self, data: st.DataObject, output: int, extend: int | None) -> None:
        """A request is done."""
        id = data.draw(st.sampled_from(sorted(self.requests)))
        if self.router.worker_of(id):
            self.router.settle(id, output=output, extend=extend)
            self.settled(id, output, extend)
        del self.requests[id]

    def settled(self, id: str, output: int, extend: int | None) -> None:
        """React to a request that is done."""

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def refund(self, data: st.DataObject) -> None:
        """A dispatch has failed."""
        id = data.draw(st.sampled_from(sorted(self.requests)))
        if self.router.worker_of(id):
            self.router.refund(id)
            self.refunded(id)

    def refunded(self, id: str) -> None:
        """React to a refund."""

    @rule(client=st.sampled_from(CLIENTS), weight=st.integers(1, 4))
    def reweigh(self, client: str, weight: int) -> None:
        """A client's weight changes."""
        self.router.reweigh(client, weight)
        self.reweighed(client, weight)

    def reweighed(self, client: str, weight: int) -> None:
        """React to a change of weight."""

    @rule()
    def restart(self) -> None:
        """The router is written down and read back; nobody notices."""
        index = type(self.router.index)()
        index.load(self.router.index.dump())
        restored = restore_router(self.router.snapshot(), index)
        assert restored.canonical() == self.router.canonical()
        self.router = restored

    @invariant()
    def sound(self) -> None:
        """Every invariant of the router holds."""
        self.router.validate()


class D2LPMMachine(RouterMachine):
    """D2LPM and its oracle."""

    configs: ClassVar[st.SearchStrategy[RouterConfig]] = st.builds(
        RouterConfig,
        quantum=st.integers(1, 30),
        block_size=st.just(1),
        cost_extend=st.integers(0, 2),
        cost_output=st.integers(1, 3),
        prompt_charge=st.sampled_from(PROMPT_CHARGES),
        output_charge=st.sampled_from(OUTPUT_CHARGES),
    )

    def begun(self) -> None:
        """Make the oracle."""
        config = self.router.config
        self.oracle = D2LPMOracle(
            config.quantum,
            config.cost_extend,
            config.cost_output,
            config.prompt_charge == "extend",
            config.output_charge,
        )

    def joined(self, name: str, weight: int, blocks: int) -> None:
        """Tell the oracle."""
        self.oracle.join(name, weight, blocks)

    def left(self, name: str, gone: Collection[str]) -> None:
        """Compare what was lost."""
        assert list(gone) == self.oracle.leave(name)

    def paused_changed(self, name: str) -> None:
        """Tell the oracle."""
        self.oracle.workers[name].suspended = name in self.paused

    def asked(self, request: Request, avoid: set[str], worker: str | None) -> None:
        """Compare the choice."""
        sizes = (request.input_tokens, request.max_output)
        path = [int(block) for block in request.blocks]
        assert self.oracle.pick(request.id, request.client, path, sizes, avoid) == worker

    def settled(self, id: str, output: int, extend: int | None) -> None:
        """Tell the oracle."""
        self.oracle.settle(id, output, extend)

    def refunded(self, id: str) -> None:
        """Tell the oracle."""
        self.oracle.refund(id)

    def reweighed(self, client: str, weight: int) -> None:
        """Tell the oracle."""
        self.oracle.weights[client] = weight

    @invariant()
    def agrees(self) -> None:
        """Every counter, load and cache is the oracle's."""
        assert isinstance(self.router, D2LPM)
        for worker in self.router.workers:
            oracle = self.oracle.workers[worker.name]
            assert worker.load == oracle.s
            assert self.router.index.blocks_of(worker.slot) == len(oracle.cached)
            for client in CLIENTS:
                expected = self.oracle.q.get(client, {}).get(worker.name, 0)
                assert self.router.deficit(client, worker.name) == expected, (client, worker.name)


def test_d2lpm_does_what_algorithm_2_does() -> None:
    """Choices, counters, loads and caches are those of loops over full tables, whatever comes or goes."""
    run_state_machine_as_test(D2LPMMachine, settings=machine_settings(60))


def test_every_router_keeps_its_life_cycle() -> None:
    """Usable workers only, idempotent picks, what is lost with a worker returned, restarts unnoticed."""
    run_state_machine_as_test(RouterMachine, settings=machine_settings(60))
