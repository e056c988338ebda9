"""Checks that a host keeps its side of the interface: wrap the policy in the tests of every host.

policy = HostContract(make_policy(config, cache.index))
...                     # run the host's tests
policy.close()          # everything that arrived was finished, and every token was charged
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from attrs import define

from fairprefix.core.cost import Receipt
from fairprefix.core.errors import HostError
from fairprefix.core.lane import WAITING, Stage
from fairprefix.core.policy import Policy, Refusal
from fairprefix.core.request import Client, Request

_REMEMBERED = 200
_TOLD = 10


@define(eq=False)
class _Seen:
    request: Request
    stage: Stage = Stage.QUEUED
    output: int = 0
    """Output tokens as last reported by `preempt`."""
    receipt: Receipt | None = None


@define(eq=False)
class _Tokens:
    """Output of one client, in tokens."""

    produced: int = 0
    settled: int = 0
    live: int = 0


class HostContract:
    """A policy that passes every call on to another one, after checking that the host may make it.

    Raises:
        HostError: the host broke the contract; the message tells what happened to that request before.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._seen: dict[str, _Seen] = {}
        self._tokens: dict[Client, _Tokens] = {}
        self._events: deque[tuple[str, str]] = deque(maxlen=_REMEMBERED)

    def close(self) -> None:
        """Check that nothing is left over."""
        for id in self._seen:
            self._breach(id, "was never finished")

    def arrive(self, request: Request) -> None:
        """A request arrives once."""
        if request.id in self._seen:
            self._breach(request.id, "arrived a second time")
        self._note(request.id, f"arrive, client {request.client!r}")
        self._seen[request.id] = _Seen(request)
        self._of(request.client).live += 1
        self._policy.arrive(request)

    def begin_pass(self) -> None:
        """Start a pass."""
        for seen in self._seen.values():
            if seen.stage is Stage.DEFERRED:
                seen.stage = Stage.QUEUED
        self._policy.begin_pass()

    def peek(self) -> Request | None:
        """Look."""
        return self._policy.peek()

    def plan(self, limit: int, *, budget: int | None = None) -> Sequence[Request]:
        """Look further."""
        return self._policy.plan(limit, budget=budget)

    def take(self, id: str, *, extend: int, reserve: int) -> Receipt:
        """Only what waits or is held is admitted, and only with sizes that its prompt and limit allow."""
        seen = self._in(id, (*WAITING, Stage.HELD), f"take, extend {extend}, reserve {reserve}")
        longest = seen.request.input_tokens + seen.output
        if not 1 <= extend <= longest:
            self._breach(id, f"was taken with extend={extend}: expected 1 to {longest}")
        left = seen.request.max_output - seen.output
        if not 0 <= reserve <= left:
            self._breach(id, f"was taken with reserve={reserve}: expected 0 to {left}")
        seen.stage = Stage.RUNNING
        seen.receipt = self._policy.take(id, extend=extend, reserve=reserve)
        return seen.receipt

    def amend(self, receipt: Receipt, *, extend: int | None = None, reserve: int | None = None) -> Receipt:
        """Only the latest receipt of an admitted request is amended."""
        seen = self._holder(receipt, "amend")
        seen.receipt = self._policy.amend(receipt, extend=extend, reserve=reserve)
        return seen.receipt

    def refund(self, receipt: Receipt) -> None:
        """Only the latest receipt of an admitted request is refunded."""
        seen = self._holder(receipt, "refund")
        seen.stage, seen.receipt = Stage.QUEUED, None
        self._policy.refund(receipt)

    def defer(self, id: str, why: Refusal) -> None:
        """Only what waits is deferred."""
        seen = self._in(id, WAITING, f"defer {why.value}")
        seen.stage = Stage.BLOCKED if why is Refusal.BLOCKED else Stage.DEFERRED
        self._policy.defer(id, why)

    def unblock(self, id: str) -> None:
        """Only what is blocked is unblocked."""
        self._in(id, (Stage.BLOCKED,), "unblock").stage = Stage.QUEUED
        self._policy.unblock(id)

    def produced(self, tokens: Mapping[Client, int]) -> None:
        """Only clients with unfinished requests produce."""
        for client, count in tokens.items():
            if client not in self._tokens:
                raise HostError(f"client {client!r} produced {count} tokens, but has no unfinished request")
            self._tokens[client].produced += count
        self._policy.produced(tokens)

    def preempt(self, id: str, *, output: int, keep_hold: bool) -> None:
        """Only what runs is preempted, and its output has been charged."""
        seen = self._in(id, (Stage.RUNNING,), f"preempt, output {output}")
        self._advance(seen, output)
        seen.stage = Stage.HELD if keep_hold else Stage.QUEUED
        seen.receipt = None
        self._policy.preempt(id, output=output, keep_hold=keep_hold)

    def finish(self, id: str, *, output: int) -> None:
        """A request is finished once, with an output that has been charged before."""
        seen = self._in(id, tuple(Stage), f"finish, output {output}")
        self._advance(seen, output)
        del self._seen[id]
        client = seen.request.client
        tokens = self._tokens[client]
        tokens.live -= 1
        if not tokens.live:
            if tokens.produced != tokens.settled:
                self._breach(
                    id,
                    f"was the last one of client {client!r}, which was charged {tokens.produced} output tokens "
                    f"while its requests finished with {tokens.settled}",
                )
            del self._tokens[client]
        self._policy.finish(id, output=output)

    def reweigh(self, client: Client, weight: int) -> None:
        """Change a weight."""
        self._policy.reweigh(client, weight)

    def snapshot(self) -> dict[str, Any]:
        """Return the policy's snapshot."""
        return self._policy.snapshot()

    def canonical(self) -> tuple[object, ...]:
        """Return the policy's canonical state."""
        return self._policy.canonical()

    def validate(self) -> None:
        """Validate the policy."""
        self._policy.validate()

    def _of(self, client: Client) -> _Tokens:
        return self._tokens.setdefault(client, _Tokens())

    def _in(self, id: str, stages: Sequence[Stage], call: str) -> _Seen:
        seen = self._seen.get(id)
        if seen is None:
            self._breach(id, f"is unknown at: {call}")
        if seen.stage not in stages:
            self._breach(id, f"is {seen.stage.value} at: {call}")
        self._note(id, call)
        return seen

    def _holder(self, receipt: Receipt, call: str) -> _Seen:
        seen = self._in(receipt.request, (Stage.RUNNING, Stage.HELD), call)
        if seen.receipt is not receipt:
            self._breach(receipt.request, f"has a later receipt than the one handed in at: {call}")
        return seen

    def _advance(self, seen: _Seen, output: int) -> None:
        """Check a reported output against what was reported and charged before."""
        id, client = seen.request.id, seen.request.client
        if not seen.output <= output <= seen.request.max_output:
            self._breach(
                id, f"has an output of {output}: expected {seen.output} to {seen.request.max_output} tokens"
            )
        tokens = self._tokens[client]
        tokens.settled += output - seen.output
        seen.output = output
        if tokens.settled > tokens.produced:
            self._breach(
                id,
                f"has an output of {output}, but client {client!r} was charged {tokens.produced} tokens "
                f"where its requests report {tokens.settled}",
            )

    def _note(self, id: str, event: str) -> None:
        self._events.append((id, event))

    def _breach(self, id: str, what: str) -> NoReturn:
        story = [event for of, event in self._events if of == id][-_TOLD:]
        raise HostError(f"request {id!r} {what}; before: {'; '.join(story) or 'nothing'}")
