"""The queue in front of one worker: a policy decides who is let in next, a window how many are inside at once.

Whoever enters leaves exactly once: `settle` for one that was inside and has produced something, `withdraw` for
everything else. The policy learns of output in batches, and of true sizes at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns

from fairprefix.core.prefixes import AskedPrefixes
from fairprefix.core.request import Client, Request
from fairprefix.gateway.turn import Place, Turn
from fairprefix.hosting import HostedPolicy

_OUTPUT_BATCH = 256
"""Output tokens that the policy may not have heard of."""


class WorkerQueue:
    """See above.

    Args:
        policy: orders the queue.
        window: the most requests inside; None: as many as come (the worker has a fair queue itself).
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
        self._cached = cached
        self._let_in = let_in
        self._prefixes = prefixes
        self._clock_ns = clock_ns
        self._produced: dict[Client, int] = {}
        self._unreported = 0

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
        client = turn.request.client
        turn.charged_output += tokens
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
        late = output - turn.charged_output
        if late > 0:
            self.produced(turn, late)
        elif late < 0:
            extend = max(extend - self._worth(-late), 0)
        self._report()
        self.policy.amend(turn.receipt, extend=extend, reserve=max(turn.receipt.reserve, turn.charged_output))
        self._leave(turn, turn.charged_output)

    def withdraw(self, turn: Turn) -> None:
        """Take a request out as if it had never come: what it was charged is given back."""
        if turn.place is Place.INSIDE:
            assert turn.receipt is not None
            if turn.charged_output:
                self.settle(turn, extend=0, output=0)
                return
            self.policy.refund(turn.receipt)
        self._leave(turn, 0)

    def rewindow(self, window: int | None) -> None:
        """Change the window; whoever is inside stays."""
        self.window = window
        self.pump()

    # Inside.

    def _room(self) -> bool:
        return self.open and (self.window is None or len(self.inside) < self.window)

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
        turn.charged_output = 0
        turn.place = Place.INSIDE
        turn.admitted_ns = self._clock_ns()
        del self.waiting[request.id]
        self.inside[request.id] = turn
        self._let_in(turn)
        turn.wake()

    def _leave(self, turn: Turn, output: int) -> None:
        id = turn.request.id
        self.policy.finish(id, output=output)
        turn.place = Place.NOWHERE
        turn.receipt = None
        turn.charged_output = 0
        self.waiting.pop(id, None)
        self.inside.pop(id, None)
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
