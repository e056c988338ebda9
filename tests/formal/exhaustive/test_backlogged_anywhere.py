"""D2LPM (arXiv 2501.14312, Theorem 5.1): a client that is backlogged somewhere is not backlogged everywhere.

Two workers that each run DLPM, and the dispatcher. Client f has eight requests out at any time, all of one prefix;
g has forty, and no prefix to share. Each always has a request queued at some worker, which is what the paper calls
backlogged; its proof takes that to mean "at every worker". It does not follow: g's lead grows without end.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from attrs import frozen

from fairprefix.core.bounds import Engine, central_pool, d2lpm_both_backlogged
from fairprefix.core.central_pool import CentralPool
from fairprefix.core.cost import CostWeights
from fairprefix.core.ledger import Ledger, View
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.core.refill_watch import RefillWatch
from fairprefix.core.request import Request
from fairprefix.core.router_catalog import make_router
from fairprefix.core.router_config import RouterConfig
from fairprefix.core.routing import Choice
from tests.formal.published import PAGE
from tests.support import Running, TinyEngine, dlpm

COST = CostWeights(1, 1)
QUANTUM = 50
ENGINE = Engine(reservation="full", kv_tokens=60, max_running=4, longest_input=12, longest_output=6)
ENGINES = (ENGINE, ENGINE)
OUT = {"f": 8, "g": 40}
"""Requests that each client keeps out."""


@frozen
class Outcome:
    """What was seen."""

    lead: int
    """g's service less f's, from the beginning."""
    missed: int
    """Refills that f missed."""
    waited: bool
    """Whether both clients had a request queued somewhere, at every step."""
    everywhere: bool
    """Whether f had one queued at every worker, at every step."""


class Engine2(TinyEngine):
    """A tiny engine that tells of each admission at once."""

    on_admission: Callable[[str], None] = staticmethod(lambda _id: None)

    def _run(self, job: Running) -> None:
        super()._run(job)
        self.on_admission(job.request.id)


class Clients:
    """Two workers, and clients that send a new request whenever one is done."""

    def __init__(self) -> None:
        indexes = [PrefixIndex(1) for _ in ENGINES]
        self.policies = [dlpm(index, quantum=QUANTUM, cost_output=1) for index in indexes]
        self.engines = {
            f"w{place}": Engine2(policy, index, Ledger(COST), memory=60, max_running=4, cache_blocks=24)
            for place, (policy, index) in enumerate(zip(self.policies, indexes, strict=True))
        }
        self._watch = RefillWatch(self.policies, None, QUANTUM)
        self._number = 0
        self._out: dict[str, Request] = {}

    def send(self, client: str) -> None:
        """Let a client send its next request: 12 tokens, of which f shares 10 with all its others."""
        self._number += 1
        own = tuple(1000 * self._number + place for place in range(12))
        path = (*range(10), *own[:2]) if client == "f" else own
        request = Request(f"{client}{self._number}", client, 12, 6, path)
        self._out[request.id] = request
        self.dispatch(request)

    def hand(self, choice: Choice) -> None:
        """Put a request into a worker's queue."""
        self.engines[choice.worker].arrive(self._out[choice.request], 6)

    def dispatch(self, request: Request) -> None:
        """Send a request to a worker, or keep it back."""
        raise NotImplementedError

    def ended(self, id: str) -> None:
        """React to a request that is done."""
        raise NotImplementedError

    def central(self) -> set[str]:
        """Return the requests that are at no worker."""
        return set()

    def run(self, steps: int) -> Outcome:
        """Let time pass."""
        for client, count in OUT.items():
            # Backlogged from now on; what it was charged is told in the end.
            self._watch.queued(client, +1)
            for _ in range(count):
                self.send(client)
        waited = everywhere = True
        for _ in range(steps):
            for engine in self.engines.values():
                engine.step()
            known = {id for policy in self.policies for id in policy._entries} | self.central()
            for id in [id for id in self._out if id not in known]:
                self.ended(id)
                del self._out[id]
                self.send(id[0])
            queued = [{job.request.client for job in e.waiting.values()} for e in self.engines.values()]
            waited = waited and all(any(client in each for each in queued) for client in OUT)
            everywhere = everywhere and all("f" in each for each in queued)
        return Outcome(self._service("g") - self._service("f"), self._missed("f"), waited, everywhere)

    def _service(self, client: str) -> int:
        ledgers = (engine.ledger for engine in self.engines.values())
        return sum(ledger.service(client).units(View.ACTUAL, COST) for ledger in ledgers)

    def _missed(self, client: str) -> int:
        for place, engine in enumerate(self.engines.values()):
            self._watch.charged(place, client, engine.ledger.service(client).units(View.CHARGED, COST))
        return self._watch.missed(client)


class BoundOnArrival(Clients):
    """As in Algorithm 2."""

    def __init__(self, quantum: int) -> None:
        super().__init__()
        config = RouterConfig(quantum=quantum, cost_output=1, block_size=1, worker_blocks=24)
        self._router = make_router(config)
        for name in self.engines:
            self._router.worker_joined(name)

    def dispatch(self, request: Request) -> None:
        """Ask D2LPM."""
        choice = self._router.pick(request)
        assert choice is not None
        self.hand(choice)

    def ended(self, id: str) -> None:
        """Settle."""
        self._router.settle(id, output=6)


class FromPool(Clients):
    """The same with a central pool."""

    def __init__(self) -> None:
        super().__init__()
        self._pool = CentralPool(block_size=1, worker_blocks=24)
        for name, engine in self.engines.items():
            self._pool.worker_joined(name)
            engine.on_admission = self._admitted

    def dispatch(self, request: Request) -> None:
        """Put the request into the pool."""
        for choice in self._pool.arrive(request):
            self.hand(choice)

    def ended(self, id: str) -> None:
        """Forget the request."""
        for choice in self._pool.finish(id):
            self.hand(choice)

    def central(self) -> set[str]:
        """Return what is in the pool."""
        return set(self._pool._pooled)

    def _admitted(self, id: str) -> None:
        for choice in self._pool.admitted(id):
            self.hand(choice)


@cache
def bound_on_arrival(steps: int) -> Outcome:
    """Run D2LPM for a while."""
    return BoundOnArrival(500).run(steps)


PUBLISHED = d2lpm_both_backlogged(ENGINES, COST, QUANTUM)


def test_a_client_that_is_backlogged_somewhere_loses_without_end() -> None:
    """Both always have a request queued somewhere; still g's lead doubles when the time does, past any bound."""
    quarter, half, whole = (bound_on_arrival(steps) for steps in (1000, 2000, 4000))
    assert all(outcome.waited for outcome in (quarter, half, whole))
    assert not whole.everywhere
    assert half.lead > 1.8 * quarter.lead
    assert whole.lead > 1.8 * half.lead > PUBLISHED.value


def test_the_missed_refills_tell_how_much() -> None:
    """With a quantum for each refill that f missed the bound holds again, at any time."""
    for steps in (1000, 2000, 4000):
        outcome = bound_on_arrival(steps)
        assert outcome.missed > 0
        assert d2lpm_both_backlogged(ENGINES, COST, QUANTUM, misses=outcome.missed).admits(outcome.lead)


@pytest.mark.parametrize("steps", [1000, 2000, 4000])
def test_the_published_table_says_what_was_found(steps: int) -> None:
    """Section 6 of docs/theory.md: lead, missed refills, and the bound without and with them."""
    outcome = bound_on_arrival(steps)
    counted = d2lpm_both_backlogged(ENGINES, COST, QUANTUM, misses=outcome.missed)
    found = (steps, outcome.lead, outcome.missed, f"< {PUBLISHED.value:,}", f"< {counted.value:,}")
    row = " | ".join(cell if isinstance(cell, str) else f"{cell:,}" for cell in found)
    assert f"\n| {row} |\n" in PAGE.read_text(encoding="utf-8")


def test_a_central_pool_has_no_such_hole() -> None:
    """The same clients, with requests that wait centrally: f is queued at every worker, and nobody gains."""
    outcome = FromPool().run(4000)
    assert outcome.everywhere
    assert outcome.missed == 0
    assert central_pool(ENGINES, COST, QUANTUM).admits(abs(outcome.lead))
    assert abs(outcome.lead) < bound_on_arrival(4000).lead / 50
    assert f"f's gap is {abs(outcome.lead)} after 4,000 steps" in PAGE.read_text(encoding="utf-8")
