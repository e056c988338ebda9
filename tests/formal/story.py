"""Histories that are written down: a shipping policy, the engine of the exhaustive search, and a ledger."""

from __future__ import annotations

from collections.abc import Mapping

from fairprefix.core.base import BasePolicy
from fairprefix.core.bounds import Engine
from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.cost import CostWeights
from fairprefix.core.dlpm import DLPM
from fairprefix.core.ledger import Ledger
from fairprefix.core.request import Client
from tests.formal.exhaustive.world import Action, Kind, Make, Scope, World, new_world

HOT = 7
"""A block that every prompt with `hot` begins with, cached from the start."""


def hot(extend: int, output: int) -> Kind:
    """Return a request of which one prompt token is cached: it is offered before those with nothing cached."""
    return Kind(extend + 1, output, (HOT,))


class Story:
    """What happens, event by event; service units are entered into the ledger as they are charged."""

    def __init__(
        self,
        config: PolicyConfig,
        engine: Engine,
        kinds: Mapping[Client, tuple[Kind, ...]],
        *,
        slots: int = 3,
        make: Make = make_policy,
    ) -> None:
        scope = Scope(name="story", config=config, engine=engine, kinds=kinds, live=slots)
        self.world: World = new_world(scope, make)
        self.ledger = Ledger(cost=CostWeights(1, 1), weights=config.weights)
        self._clock = 0
        if self.world.index:
            self.world.index.cached([HOT])
            self.world.cached = (HOT,)

    @property
    def policy(self) -> BasePolicy:
        """The policy that is driven."""
        return self.world.policy

    def deficit(self, client: Client) -> int:
        """Return a client's deficit counter."""
        assert isinstance(self.policy, DLPM)
        return self.policy.deficit(client)

    def arrive(self, name: str) -> str:
        """Let a request of a kind arrive, e.g. "f0"; return its id."""
        id = next(id for id in self.world.scope.requests if id.startswith(f"{name}.") and not self._knows(id))
        self._do(("arrive", id))
        return id

    def admit(self) -> str | None:
        """Admit one request if any fits; return its id."""
        before = set(self.world.runs)
        return next(iter(set(self.world.runs) - before)) if self._do(("admit", "")) else None

    def admit_all(self) -> int:
        """Admit until nothing fits; return how many were admitted."""
        count = 0
        while self.admit():
            count += 1
        return count

    def step(self, times: int = 1) -> None:
        """Let everything that runs produce a token; before that nothing that fits may be left waiting."""
        for _ in range(times):
            assert self.admit() is None, "the engine would not have left room unused"
            assert not self.crowded(), "the memory overflows"
            self._do(("step", ""))

    def crowded(self) -> bool:
        """Return whether the next step would need more memory than there is."""
        world = self.world
        return sum(run.tokens() + 1 for run in world.runs.values()) > world.scope.engine.kv_tokens

    def preempt(self, id: str) -> None:
        """Take a running request's memory away."""
        self._do(("preempt", id))

    def resume(self) -> bool:
        """Resume the first of the held requests that fits; return whether there was one."""
        resumable = [action for action in self.world.actions() if action[0] == "resume"]
        return bool(resumable) and self._do(resumable[0])

    def advance(self, id: str) -> None:
        """Let one request alone produce a token."""
        client = self.world.scope.requests[id].client
        self.world.runs[id].produced += 1
        self.policy.produced({client: 1})
        self._clock += 1
        self.ledger.produced(client, self._clock, self.world.scope.config.cost_output)

    def run(self, id: str) -> None:
        """Let a request run to its end."""
        while id in self.world.runs:
            self.step()

    def serve(self, name: str) -> None:
        """Let a request arrive, be the next to be admitted, and run to its end."""
        id = self.arrive(name)
        admitted = self.admit()
        assert admitted == id, f"{admitted} was admitted instead of {id}"
        self.run(id)

    def end(self, id: str) -> None:
        """Let a request end before it has produced all it might."""
        self._do(("end", id))

    def gap(self) -> int:
        """Return the largest gap over any interval in which both clients were backlogged."""
        return self.ledger.largest_gap().value

    def _knows(self, id: str) -> bool:
        return id in self.policy._entries

    def _do(self, action: Action) -> bool:
        done = self.world.do(action)
        self._clock += 1
        for client, units in self.world.served.items():
            self.ledger.produced(client, self._clock, units)
        for client in self.world.scope.kinds:
            report = self.ledger.backlogged if self.world.backlogged(client) else self.ledger.idle
            report(client, self._clock)
        return done
