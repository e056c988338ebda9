"""What the tests of the policy core share: short ways to make requests and policies, and a tiny engine."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from attrs import define

from fairprefix.core.base import BasePolicy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.cost import Receipt
from fairprefix.core.dlpm import DLPM
from fairprefix.core.fcfs import FCFS
from fairprefix.core.ledger import Ledger
from fairprefix.core.lpm import LPM
from fairprefix.core.policy import Refusal
from fairprefix.core.prefixes import Prefixes, PrefixIndex
from fairprefix.core.request import Client, Request
from fairprefix.core.vtc import VTC

MakeDLPM = Callable[..., DLPM]
"""(prefixes, **settings) -> policy."""
MakeVTC = Callable[..., VTC]
MakeLPM = Callable[..., LPM]

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")


def sized(normal: int, *, nightly: int | None = None, mutation: int) -> int:
    """Return how large a test of scale is under the profile: each mutant runs it again, so small there."""
    return {"nightly": nightly or normal, "mutation": mutation}.get(PROFILE, normal)


def fcfs(prefixes: Prefixes | None = None, **settings: Any) -> FCFS:  # noqa: ANN401 (any field of the config)
    """Return a FCFS policy."""
    return FCFS(PolicyConfig(policy="fcfs", **settings), prefixes)


def lpm(prefixes: Prefixes | None = None, **settings: Any) -> LPM:  # noqa: ANN401
    """Return an LPM policy."""
    return LPM(PolicyConfig(policy="lpm", **settings), prefixes)


def vtc(prefixes: Prefixes | None = None, **settings: Any) -> VTC:  # noqa: ANN401
    """Return a VTC policy."""
    return VTC(PolicyConfig(policy="vtc", **settings), prefixes)


def dlpm(prefixes: Prefixes | None = None, **settings: Any) -> DLPM:  # noqa: ANN401
    """Return a DLPM policy."""
    return DLPM(PolicyConfig(policy="dlpm", **settings), prefixes)


def request(
    id: str, *, prompt: int = 1, output: int = 1, path: tuple[int, ...] = (), client: Client | None = None
) -> Request:
    """Return a request; unless told, its client is the letter that its id begins with."""
    return Request(id, client or id[0], prompt, output, path)


def arrive(policy: BasePolicy, *ids: str, prompt: int = 1, output: int = 1, path: tuple[int, ...] = ()) -> None:
    """Let requests of one kind arrive."""
    for id in ids:
        policy.arrive(request(id, prompt=prompt, output=output, path=path))


def run(policy: BasePolicy, id: str, *, extend: int = 1, reserve: int = 1) -> Receipt:
    """Let a request arrive and admit it at once, offered or not."""
    arrive(policy, id, prompt=max(extend, 1), output=max(reserve, 1))
    return policy.take(id, extend=extend, reserve=reserve)


def offered(policy: BasePolicy) -> str | None:
    """Return the id of the request that is offered."""
    found = policy.peek()
    return found.id if found else None


def admit(policy: BasePolicy, *, extend: int = 1, reserve: int = 0) -> str:
    """Admit the request that is offered, and return its id."""
    id = offered(policy)
    assert id is not None, "nobody is offered"
    policy.take(id, extend=extend, reserve=reserve)
    return id


def planned(policy: BasePolicy, limit: int) -> list[str]:
    """Return the ids of a plan."""
    return [found.id for found in policy.plan(limit)]


def hot(*path: int) -> PrefixIndex:
    """Return an index, of blocks of one token, in which a chain is cached."""
    index = PrefixIndex(1)
    index.cached(path)
    return index


@define(eq=False)
class Running:
    """A request in the tiny engine."""

    request: Request
    length: int
    """Output tokens that it will produce, at most the request's `max_output`."""
    output: int = 0
    """Output tokens produced so far."""
    admitted_before: bool = False

    def occupied(self) -> int:
        """Return the memory that it takes while it runs."""
        return self.request.input_tokens + self.output

    def reserved(self) -> int:
        """Return the memory that it may come to take."""
        return self.request.input_tokens + self.request.max_output


class TinyEngine:
    """An engine in whole tokens and unit steps, that reports to a ledger what each client receives.

    A step is a scheduling pass, in which every offered request is admitted if it has room, and then one output
    token for each running request. Cached prompts save computation, not memory.

    Args:
        policy: decides who is next.
        index: the policy's view of the cache.
        ledger: what to report to.
        memory: M, tokens.
        max_running: N.
        full: reserve prompt and longest output at admission; otherwise admit on present occupancy, and preempt the
            request admitted last when memory runs out.
        held: resume preempted requests without asking the policy.
        cache_blocks: how many blocks stay cached; the least recently used go first.
    """

    def __init__(
        self,
        policy: BasePolicy,
        index: PrefixIndex,
        ledger: Ledger,
        *,
        memory: int,
        max_running: int,
        full: bool = True,
        held: bool = False,
        cache_blocks: int = 0,
    ) -> None:
        self.policy = policy
        self.index = index
        self.ledger = ledger
        self.memory = memory
        self.max_running = max_running
        self.full = full
        self.held_mode = held
        self.cache_blocks = cache_blocks
        self.now = 0
        self.waiting: dict[str, Running] = {}
        self.running: dict[str, Running] = {}
        self.held: dict[str, Running] = {}
        self.recent: dict[tuple[int, ...], None] = {}
        """Cached chains, each standing for its last block, the least recently used first."""
        self.preemptions = 0

    def arrive(self, request: Request, length: int) -> None:
        """Queue a request that will produce `length` tokens."""
        self.policy.arrive(request)
        self._wait(Running(request, length))

    def step(self) -> None:
        """Admit what is offered and has room, then produce."""
        self.now += 1
        for id, job in list(self.held.items()):
            if not self._fits(job):
                break
            del self.held[id]
            self._run(job)
        if not self.held:
            self._pass()
        while not self.full and sum(job.occupied() + 1 for job in self.running.values()) > self.memory:
            self._preempt()
        self._produce()

    def _pass(self) -> None:
        self.policy.begin_pass()
        while found := self.policy.peek():
            job = self.waiting[found.id]
            if self._fits(job):
                del self.waiting[found.id]
                self._run(job)
                self._note_queue(job.request.client)
            else:
                self.policy.defer(found.id, Refusal.NO_ROOM)

    def _fits(self, job: Running) -> bool:
        if len(self.running) >= self.max_running:
            return False
        if self.full:
            return job.reserved() + sum(other.reserved() for other in self.running.values()) <= self.memory
        return job.occupied() + 1 + sum(other.occupied() + 1 for other in self.running.values()) <= self.memory

    def _run(self, job: Running) -> None:
        request = job.request
        extend = request.input_tokens + job.output - self._cached(request)
        receipt = self.policy.take(request.id, extend=extend, reserve=request.max_output - job.output)
        if job.admitted_before:
            self.ledger.recomputed(request.client, self.now, extend)
        else:
            self.ledger.admitted(
                request.client,
                self.now,
                input_tokens=request.input_tokens,
                extend=extend,
                charged=receipt.charged,
            )
        job.admitted_before = True
        self.running[request.id] = job
        self._cache(tuple(int(block) for block in request.blocks))

    def _preempt(self) -> None:
        id, job = self.running.popitem()
        self.preemptions += 1
        self.policy.preempt(id, output=job.output, keep_hold=self.held_mode)
        if self.held_mode:
            self.held[id] = job
        else:
            self._wait(job)

    def _produce(self) -> None:
        tokens: dict[Client, int] = {}
        for job in self.running.values():
            job.output += 1
            tokens[job.request.client] = tokens.get(job.request.client, 0) + 1
        self.policy.produced(tokens)
        for client, count in tokens.items():
            self.ledger.produced(client, self.now, count)
        for id, job in list(self.running.items()):
            if job.output == job.length:
                del self.running[id]
                self.policy.finish(id, output=job.output)

    def _wait(self, job: Running) -> None:
        self.waiting[job.request.id] = job
        self._note_queue(job.request.client)

    def _note_queue(self, client: Client) -> None:
        if any(job.request.client == client for job in self.waiting.values()):
            self.ledger.backlogged(client, self.now)
        else:
            self.ledger.idle(client, self.now)

    def _cached(self, request: Request) -> int:
        blocks = self.index.matched_blocks(request.blocks)
        return min(blocks * self.index.block_size, request.input_tokens - 1)

    def _cache(self, chain: tuple[int, ...]) -> None:
        if not self.cache_blocks:
            return
        self.index.cached(chain)
        for depth in range(len(chain), 0, -1):
            self.recent.pop(chain[:depth], None)
            self.recent[chain[:depth]] = None
        while len(self.recent) > self.cache_blocks:
            oldest = next(iter(self.recent))
            del self.recent[oldest]
            self.index.evicted(oldest, start=len(oldest) - 1)
