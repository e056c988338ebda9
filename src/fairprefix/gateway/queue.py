"""The queue in front of one worker: a policy decides who is let in next, a window how many are inside at once.

Whoever enters leaves exactly once: `settle` for one that was inside and has produced something, `withdraw` for
everything else. The policy learns of output in batches, and of true sizes at the end.

A request for several answers takes as many places. It is let in as soon as one is free, so that a window may be
exceeded by one request's further answers: to wait until all of it fits would leave places empty.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns
from typing import Protocol

from fairprefix.core.cost import Receipt
from fairprefix.core.prefixes import AskedPrefixes
from fairprefix.core.request import Client, Request
from fairprefix.gateway.turn import Place, Turn
from fairprefix.hosting import HostedPolicy

_OUTPUT_BATCH = 256
"""Output tokens that the policy may not have heard of."""


class Watcher(Protocol):
    """Who follows what the policies of queues charge, each of which has a number."""

    def charged(self, queue: int, client: Client, units: int) -> None:
        """Note a charge (negative: something given back) of which the policy has just been told."""
        ...

    def exceeded(self, output: int, units: int) -> None:
        """Note that a request has produced `output` tokens, by `units` service units more than was set aside."""
        ...

    def corrected(self, client: Client, *, late: int = 0, given_back: int = 0, kept: int = 0) -> None:
        """Note how wrong the estimates were with which a request was let in, in service units.

        Args:
            client: whose it is.
            late: charged beyond what was charged and set aside at first.
            given_back: charged at first, and given back in the end.
            kept: charged for output that there was not, and not given back.
        """
        ...


class WorkerQueue:
    """See above.

    Args:
        policy: orders the queue.
        window: places inside; None: as many as come (the worker has a fair queue itself).
        cached: how many tokens of a prompt the worker is taken to have cached.
        let_in: told of each request that gets inside.
        prefixes: the policy's view of the cache, to be told when it may have changed.
        clock_ns: for waiting times.
    """

    def __init__(
        self,
        policy: HostedPolicy,
        window: int | None,
        cached: Callable[[Request], int],
        let_in: Callable[[Turn], None],
        *,
        prefixes: AskedPrefixes | None = None,
        clock_ns: Callable[[], int] = monotonic_ns,
    ) -> None:
        self.policy = policy
        self.window = window
        self.open = True
        """Whether anybody is let in."""
        self.inside: dict[str, Turn] = {}
        self.waiting: dict[str, Turn] = {}
        """By request, in the order of arrival."""
        self.stalls: int = 0
        """How often the policy offered nobody although nothing was inside."""
        self.taken: int = 0
        """Places of those inside."""
        self.most_inside: int = 0
        """The most requests that were inside at once."""
        self._watcher: Watcher | None = None
        self._number = 0
        self._cached = cached
        self._let_in = let_in
        self._prefixes = prefixes
        self._clock_ns = clock_ns
        self._produced: dict[Client, int] = {}
        self._unreported = 0

    def watched_by(self, watcher: Watcher, number: int) -> None:
        """Tell somebody of all charges from now on, under a number."""
        self._watcher, self._number = watcher, number

    def enter(self, turn: Turn) -> None:
        """Queue a request; it may be inside when this returns."""
        turn.place = Place.WAITING
        self.waiting[turn.request.id] = turn
        self.policy.arrive(turn.request)
        self.pump()

    def pump(self) -> None:
        """Let in whom the policy offers, while the window has room."""
        if not self.waiting or not self._room():
            return
        self._report()
        if self._prefixes is not None and len(self.waiting) > 1:
            self._prefixes.refresh()
        self.policy.begin_pass()
        while self.waiting and self._room():
            turn = self._next()
            if turn is None:
                return
            self._admit(turn)

    def produced(self, turn: Turn, tokens: int) -> None:
        """Charge output tokens of a request that is inside."""
        assert turn.receipt is not None
        client = turn.request.client
        turn.charged_output += tokens
        beyond = turn.charged_output - turn.receipt.reserve
        if beyond > 0 and self._watcher is not None:
            self._watcher.exceeded(turn.charged_output, self.policy.config.cost.service(0, beyond))
        self._produced[client] = self._produced.get(client, 0) + tokens
        self._unreported += tokens
        if self._unreported >= _OUTPUT_BATCH:
            self._report()

    def settle(self, turn: Turn, *, extend: int, output: int) -> None:
        """Let a request out that has been served, and charge what it really took.

        Args:
            turn: a request that is inside.
            extend: prompt tokens that were computed.
            output: output tokens that were produced.
        """
        assert turn.receipt is not None
        assert turn.place is Place.INSIDE
        late, kept = output - turn.charged_output, 0
        if late > 0:
            self.produced(turn, late)
        elif late < 0:
            true, extend = extend, max(extend - self._worth(-late), 0)
            kept = abs(self.policy.config.cost.service(extend - true, -late))
        self._report()
        self._amend(turn, turn.receipt, extend, kept)
        self._leave(turn, turn.charged_output)

    def withdraw(self, turn: Turn) -> None:
        """Take a request out as if it had never come: what it was charged is given back."""
        if turn.place is Place.INSIDE:
            assert turn.receipt is not None
            if turn.charged_output:
                self.settle(turn, extend=0, output=0)
                return
            self._refund(turn.receipt)
        self._leave(turn, 0)

    def rewindow(self, window: int | None) -> None:
        """Change the window; whoever is inside stays."""
        self.window = window
        self.pump()

    # Inside.

    def _room(self) -> bool:
        return self.open and (self.window is None or self.taken < self.window)

    def _next(self) -> Turn | None:
        request = self.policy.peek()
        if request is not None:
            return self.waiting[request.id]
        if self.inside or self.policy.holds_back:
            return None
        # Nothing will change by itself: a policy that offers nobody must not stop the worker.
        self.stalls += 1
        return next(iter(self.waiting.values()))

    def _admit(self, turn: Turn) -> None:
        request = turn.request
        turn.cached_tokens = self._cached(request)
        turn.receipt = self.policy.take(
            request.id, extend=request.input_tokens - turn.cached_tokens, reserve=turn.reserve
        )
        if self._watcher is not None:
            self._watcher.charged(self._number, request.client, turn.receipt.charged)
        turn.charged_output = 0
        turn.place = Place.INSIDE
        turn.admitted_ns = self._clock_ns()
        del self.waiting[request.id]
        self.inside[request.id] = turn
        self.taken += turn.places
        self.most_inside = max(self.most_inside, len(self.inside))
        self._let_in(turn)
        turn.wake()

    def _amend(self, turn: Turn, before: Receipt, extend: int, kept: int) -> None:
        """Charge the true prompt, and tell how wrong the estimates were."""
        output = turn.charged_output
        after = self.policy.amend(before, extend=extend, reserve=max(before.reserve, output))
        if self._watcher is not None:
            more = after.charged - before.charged
            late = max(more, 0) + self.policy.config.cost.service(0, max(output - before.reserve, 0))
            if more:
                self._watcher.charged(self._number, before.client, more)
            if more or late or kept:
                self._watcher.corrected(before.client, late=late, given_back=max(-more, 0), kept=kept)

    def _refund(self, receipt: Receipt) -> None:
        self.policy.refund(receipt)
        if self._watcher is not None:
            self._watcher.charged(self._number, receipt.client, -receipt.charged)
            self._watcher.corrected(receipt.client, given_back=receipt.charged)

    def _leave(self, turn: Turn, output: int) -> None:
        id = turn.request.id
        self.policy.finish(id, output=output)
        turn.place = Place.NOWHERE
        turn.receipt = None
        turn.charged_output = 0
        self.waiting.pop(id, None)
        if self.inside.pop(id, None) is not None:
            self.taken -= turn.places
        self.pump()

    def _worth(self, output: int) -> int:
        """Return the extend tokens that cost what so much output does, at least.

        A policy takes output back from nobody. What an answer's pieces were too many for is given back with its
        prompt instead.
        """
        cost = self.policy.config.cost
        return -(-cost.output * output // cost.extend) if cost.extend else 0

    def _report(self) -> None:
        if self._produced:
            produced, self._produced, self._unreported = self._produced, {}, 0
            self.policy.produced(produced)
            if self._watcher is not None:
                cost = self.policy.config.cost
                for client, tokens in produced.items():
                    self._watcher.charged(self._number, client, cost.service(0, tokens))
