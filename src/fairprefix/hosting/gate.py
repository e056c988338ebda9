"""A policy in front of an engine whose own scheduler cannot be replaced: so many requests in flight, others wait.

    gate = Gate(config, window=16)
    async with gate.admitted(request) as ticket:      # waits for its turn
        ticket.found(extend)                          # what the engine really had to compute, if it says so
        async for tokens in engine.generate(...):
            ticket.produced(len(tokens))

The window is about as many requests as the engine runs at once: then nothing waits inside the engine, where
arrival order rules, and the engine has work all the same. One event loop only.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from attrs import define, field

from fairprefix.core.bounds import Engine
from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.cost import Receipt
from fairprefix.core.dlpm import DLPM
from fairprefix.core.errors import FairprefixError, at_least
from fairprefix.core.policy import Policy
from fairprefix.core.prefixes import AskedPrefixes, Prefixes
from fairprefix.core.request import Client, Request
from fairprefix.core.run_index import ApproximateIndex
from fairprefix.hosting.figures import OTHER
from fairprefix.hosting.fleet import ClientReport, WorkerReport
from fairprefix.hosting.hosted import HostedPolicy

Ask = Callable[[Request], int]
"""Returns how many tokens of a request's prompt the engine has cached."""


def log_failure(log: logging.Logger) -> Callable[[Exception], None]:
    """Return what tells a log that a policy has failed, for `Gate(on_error=...)`."""

    def tell(problem: Exception) -> None:
        log.error(
            "fairprefix: the policy failed, requests are served in the order of arrival now", exc_info=problem
        )

    return tell


class WorkerLostError(FairprefixError):
    """The engine behind a gate is not there any more: the request may be sent elsewhere."""

    def __init__(self, worker: str) -> None:
        super().__init__(f"worker {worker} is lost")


class RecentPrompts:
    """What an engine that says nothing is taken to have cached: the prompts that it got last.

    Args:
        blocks: how many blocks its cache holds.
        block_size: tokens per block.
    """

    def __init__(self, blocks: int, block_size: int) -> None:
        self._index = ApproximateIndex()
        self._index.open(0, at_least("blocks", blocks, 1))
        self._block_size = at_least("block_size", block_size, 1)

    def __call__(self, request: Request) -> int:
        """Return how many tokens of a prompt are taken to be cached. O(blocks)."""
        matched = self._index.matched_blocks(0, request.blocks, request.namespace)
        return min(matched * self._block_size, request.input_tokens - 1)

    def sent(self, request: Request) -> None:
        """Note that the engine gets a prompt."""
        self._index.sent(0, request.blocks, request.namespace)


@define(eq=False)
class Ticket:
    """A request that is in flight."""

    request: Request
    output: int = 0
    """Output tokens so far."""
    _gate: Gate = field(kw_only=True)
    _receipt: Receipt = field(kw_only=True)
    _over: bool = field(default=False, init=False)

    @property
    def extend(self) -> int:
        """Prompt tokens that were computed for it, as far as that is known."""
        return self._receipt.extend

    def found(self, extend: int) -> None:
        """Note how many prompt tokens the engine really computes."""
        if extend != self._receipt.extend and not self._over:
            self._receipt = self._gate.amended(self._receipt, extend)

    def produced(self, tokens: int) -> None:
        """Charge output tokens."""
        if tokens and not self._over:
            self.output += tokens
            self._gate.produced(self, tokens)

    def nearly_over(self) -> None:
        """Note that only a step is left: the next one is sent now, or its place would be empty until it arrives.

        At most as many as fit into the window are in flight beyond it for that reason.
        """
        if not self._over:
            self._gate.make_room(self.request)

    def over(self) -> None:
        """Note that the engine is done with it, before its block ends: its place is given to the next one."""
        self._over = True
        self._gate.leave(self.request)

    def take_back(self) -> None:
        """Note that the engine never got it: its place is free, and nothing is charged."""
        if not self._over:
            self._over = True
            self._gate.taken_back(self, self._receipt)


@define
class _Standing:
    """What a client got here, for reports."""

    service: int = 0
    """Service units charged since the beginning."""
    waiting: int = 0
    least_waiting: int = 0
    """The least that waited since the last report."""


class Gate:
    """Lets requests of many clients into an engine, so many at once, in the order of a policy.

    Args:
        config: the policy's parameters.
        window: the most requests in flight.
        cached: how much of a prompt the engine has cached; without it, nothing is known.
        sent: told of every request that goes to the engine.
        limits: of the engine, so that a bound is known in advance.
        on_error: told when the policy fails and arrival order takes over, once.
    """

    def __init__(
        self,
        config: PolicyConfig,
        window: int,
        *,
        cached: Ask = lambda _request: 0,
        sent: Callable[[Request], None] = lambda _request: None,
        limits: Engine | None = None,
        on_error: Callable[[Exception], None] = lambda _problem: None,
    ) -> None:
        self.config = config
        self.window: int = at_least("window", window, 1)
        self._standings: dict[Client, _Standing] = {}
        self._reported: dict[Client, ClientReport] = {}
        self._has_reported = False
        self._cached = cached
        self._sent = sent
        self._prefixes = AskedPrefixes(cached)
        self._inner: Policy | None = None
        self.policy: HostedPolicy = HostedPolicy(
            config, self._prefixes, limits=limits, on_error=on_error, make=self._make
        )
        self._closed: Exception | None = None
        self._turns: dict[str, asyncio.Future[Ticket]] = {}
        self._flying: dict[str, Ticket] = {}
        self._ending: set[str] = set()
        """Of those in flight, who needs its place no longer."""

    def _make(self, config: PolicyConfig, prefixes: Prefixes | None) -> Policy:
        self._inner = make_policy(config, prefixes)
        return self._inner

    @property
    def waiting(self) -> int:
        """Requests that wait for their turn."""
        return len(self._turns)

    @property
    def flying(self) -> int:
        """Requests in flight."""
        return len(self._flying)

    @asynccontextmanager
    async def admitted(self, request: Request) -> AsyncIterator[Ticket]:
        """Wait for the request's turn; it is in flight until the block ends, however it ends."""
        if self._closed is not None:
            raise self._closed
        turn: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()
        self.policy.arrive(request)
        self._turns[request.id] = turn
        self._waits(request.client, +1)
        self._admit()
        try:
            yield await turn
        finally:
            self.leave(request)

    def evict(self, problem: Exception) -> None:
        """Send away all who wait: their blocks end with `problem`. Those in flight go on."""
        for turn in self._turns.values():
            if not turn.done():
                turn.set_exception(problem)

    def close(self, problem: Exception) -> None:
        """Let nobody in any more, and send away all who wait."""
        self._closed = problem
        self.evict(problem)

    def leave(self, request: Request) -> None:
        """Forget a request, wherever it stands; again is no change."""
        self._ending.discard(request.id)
        ticket = self._flying.pop(request.id, None)
        if ticket is not None:
            self.policy.finish(request.id, output=ticket.output)
        elif self._turns.pop(request.id, None) is not None:
            self._never_admitted(request)
        else:
            return
        self._admit()

    def _never_admitted(self, request: Request) -> None:
        self._waits(request.client, -1)
        self.policy.finish(request.id, output=0)

    def _admit(self) -> None:
        self._prefixes.refresh()
        self.policy.begin_pass()
        while len(self._flying) - len(self._ending) < self.window and (offered := self.policy.peek()) is not None:
            turn = self._turns.pop(offered.id)
            if turn.done():  # cancelled, or sent away, and about to leave: nothing is charged
                self._never_admitted(offered)
                continue
            extend = offered.input_tokens - self._cached(offered)
            receipt = self.policy.take(offered.id, extend=extend, reserve=offered.max_output)
            self._spent(offered.client, receipt.charged)
            self._waits(offered.client, -1)
            self._sent(offered)
            ticket = self._flying[offered.id] = Ticket(offered, gate=self, receipt=receipt)
            turn.set_result(ticket)

    # What tickets call.

    def amended(self, receipt: Receipt, extend: int) -> Receipt:
        """Correct an admission."""
        amended = self.policy.amend(receipt, extend=extend)
        self._spent(receipt.client, amended.charged - receipt.charged)
        return amended

    def make_room(self, request: Request) -> None:
        """Count a request in flight no longer; again is no change."""
        if request.id not in self._ending and len(self._ending) < self.window:
            self._ending.add(request.id)
            self._admit()

    def taken_back(self, ticket: Ticket, receipt: Receipt) -> None:
        """Undo an admission, and forget the request."""
        del self._flying[receipt.request]
        self._ending.discard(receipt.request)
        self.policy.refund(receipt)
        self._spent(receipt.client, -receipt.charged)
        self.policy.finish(receipt.request, output=ticket.output)
        self._admit()

    def produced(self, ticket: Ticket, tokens: int) -> None:
        """Charge output."""
        self.policy.produced({ticket.request.client: tokens})
        self._spent(ticket.request.client, self.config.cost.service(0, tokens))

    # What is reported.

    def report(self, *, everything: bool = False) -> WorkerReport:
        """Return what has changed since the last report, or everything, and begin a new period. O(clients)."""
        dlpm = self._dlpm()
        if everything:
            self._reported.clear()
        changed = []
        for client, standing in self._standings.items():
            found = ClientReport(
                client, self._received(dlpm, client), standing.service, waited=standing.least_waiting > 0
            )
            standing.least_waiting = standing.waiting
            if found != self._reported.get(client):
                self._reported[client] = found
                changed.append(found)
        continued, self._has_reported = self._has_reported, True
        return WorkerReport(
            dlpm.rounds if dlpm else 0, tuple(changed), holds=dlpm is not None, continued=continued
        )

    def _dlpm(self) -> DLPM | None:
        """Return the policy with its counters; None if it has none, or has failed."""
        return self._inner if isinstance(self._inner, DLPM) and not self.policy.failed else None

    def _received(self, dlpm: DLPM | None, client: Client) -> int:
        """Return how many refills a client got: its counter is what it got less what it was charged."""
        if dlpm is None:
            return 0
        if client == OTHER:
            return dlpm.rounds
        quantum = self.config.weight(client) * self.config.quantum
        return (dlpm.deficit(client) + self._standings[client].service) // quantum

    def _standing(self, client: Client) -> _Standing:
        found = self._standings.get(client)
        if found is None:
            name = client if len(self._standings) < self.config.max_clients else OTHER
            found = self._standings.setdefault(name, _Standing())
        return found

    def _spent(self, client: Client, units: int) -> None:
        self._standing(client).service += units

    def _waits(self, client: Client, change: int) -> None:
        standing = self._standing(client)
        standing.waiting += change
        standing.least_waiting = min(standing.least_waiting, standing.waiting)
