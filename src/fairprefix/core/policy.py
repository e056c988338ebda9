"""The small interface between a worker policy and the engine that hosts it.

A policy decides which waiting request is admitted next. It is synchronous, single-threaded and deterministic,
and it never calls back into its host. The host reports what happens; a request goes through this life cycle:

    arrive -> QUEUED -> take -> RUNNING -> finish -> (forgotten)
                |  ^              |
      defer(BLOCKED) unblock    preempt(keep_hold=False) -> QUEUED    (offered again: its resume is gated)
                v  |            preempt(keep_hold=True)  -> HELD      (the host resumes it by itself: take)
              BLOCKED           refund                   -> QUEUED    (the admission did not happen)

`finish` may come at any moment, from any state, for a request that is done, aborted or failed; exactly once.

How the different hosts use it:

* an engine that peeks and pops: `begin_pass`, then `peek`, then `take` or `defer`, until `peek` returns None;
* an engine that sorts a list and tells afterwards what it took: `plan(limit)`, then `take` for each of those;
* a gateway that learns the true size at the end: `take` with an estimate, `amend` with the truth, `finish`.

Looking commits nothing: after `peek` or `plan` the policy is in the state that it was in before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

from fairprefix.core.cost import Receipt
from fairprefix.core.request import Client, Request


class Refusal(Enum):
    """Why a host could not admit a request that the policy had offered."""

    NO_ROOM = "no_room"
    """Not in this pass: it keeps its place, and is offered again after the next `begin_pass`."""
    BLOCKED = "blocked"
    """Not until `unblock` (grammar not ready, LoRA limit, remote KV...): it leaves the queue, and with it the
    count of who is backlogged; otherwise it would hold everybody else back."""


class Policy(Protocol):
    """A scheduling policy for one worker.

    Every method raises `HostError` for a request that is unknown or in the wrong state; nothing changes then.
    """

    def arrive(self, request: Request) -> None:
        """Queue a new request."""
        ...

    def begin_pass(self) -> None:
        """Start a scheduling pass: whatever was deferred for lack of room is offered again."""
        ...

    def peek(self) -> Request | None:
        """Return the request to admit next, or None when the policy offers nobody in this pass."""
        ...

    def plan(self, limit: int, *, budget: int | None = None) -> Sequence[Request]:
        """Return the next `limit` requests in order, as if each were taken when its turn came.

        Args:
            limit: the most requests.
            budget: extend tokens; the request that uses them up is the last one. None: no such limit.
        """
        ...

    def take(self, id: str, *, extend: int, reserve: int) -> Receipt:
        """Admit a request, whether or not it was offered, and charge its client.

        Args:
            id: a QUEUED or HELD request.
            extend: tokens that have to be computed for it now: prompt minus cached prefix (for a resumed
                request also the output that is computed again).
            reserve: output tokens that it may still produce, or a prediction of them.
        """
        ...

    def amend(self, receipt: Receipt, *, extend: int | None = None, reserve: int | None = None) -> Receipt:
        """Correct an admission whose true size became known later; None leaves a figure as it is."""
        ...

    def refund(self, receipt: Receipt) -> None:
        """Undo an admission that did not happen after all: the request is QUEUED again, in its old place."""
        ...

    def defer(self, id: str, why: Refusal) -> None:
        """Report that a QUEUED request could not be admitted."""
        ...

    def unblock(self, id: str) -> None:
        """Queue a BLOCKED request again; this counts as an arrival of its client."""
        ...

    def produced(self, tokens: Mapping[Client, int]) -> None:
        """Charge output tokens: one call a step, summed per client over its running requests."""
        ...

    def preempt(self, id: str, *, output: int, keep_hold: bool) -> None:
        """Report that a RUNNING request lost its memory and will be computed again.

        Args:
            id: the request.
            output: tokens that it has produced since it arrived.
            keep_hold: True when the host resumes it by itself, without asking: its outstanding output stays
                counted. False puts it back in the queue.
        """
        ...

    def finish(self, id: str, *, output: int) -> None:
        """Settle a request for good: it is done, aborted or failed after `output` tokens in all."""
        ...

    def reweigh(self, client: Client, weight: int) -> None:
        """Change a client's weight; it applies from the next refill, debts stay as they are."""
        ...

    def snapshot(self) -> dict[str, Any]:
        """Return the whole state as JSON-serialisable data that carries a schema version."""
        ...

    def canonical(self) -> tuple[object, ...]:
        """Return a hashable form of the state, equal for states that behave alike from here on."""
        ...

    def validate(self) -> None:
        """Check every invariant of the state; raises AssertionError with the reason."""
        ...
