"""Preble's global scheduler, E2: exploit what is cached, or explore (arXiv 2407.00023, section 3.2).

A request whose prompt is cached for the larger part goes to one of the workers that hold its longest match, the
one with the least load. Any other goes where the total cost is least:

    L + M + P = load in the window + cost of what would be evicted + time to compute what is not cached there

all in nanoseconds of that worker's time. The load sums prefill and decode time of what was sent there within the
window H. An evicted block costs its prefill time times the share of the worker's requests that used it within H.
If the load of the worker to exploit exceeds `balance_rel_percent` of the smallest one, the request goes there.

Left out: the second form of rebalancing, which copies a subtree to a further GPU once its queueing time doubled (a
router is told of no queueing times), and the local scheduler's priority groups (any policy may run there).
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, ClassVar

from attrs import define, field

from fairprefix.core.errors import at_least
from fairprefix.core.request import BlockHash, Request
from fairprefix.core.router_base import BaseRouter, Dispatched
from fairprefix.core.router_config import RouterConfig
from fairprefix.core.snapshot import dump_blocks, load_blocks
from fairprefix.core.worker_index import Key, WorkerIndex, keys_of
from fairprefix.core.workers import Worker, slots_of


@define(eq=False)
class Sent:
    """A dispatch within the window."""

    at: int
    slot: int
    request: str
    cost: int
    """Nanoseconds of the worker's time."""
    blocks: Sequence[BlockHash]
    namespace: str
    counts: bool = True
    """False once it was refunded, or its worker has left."""


@define(eq=False)
class History:
    """What was sent to one worker within the window."""

    load: int = 0
    requests: int = 0
    users: dict[Key, int] = field(factory=dict)
    """How many of the requests used a block."""


class Preble(BaseRouter):
    """E2. O(blocks of the prompt + workers), and O(blocks to evict) for each worker that would have to."""

    name: ClassVar[str] = "preble"

    def __init__(self, config: RouterConfig, index: WorkerIndex | None = None) -> None:
        super().__init__(config, index)
        self._window: deque[Sent] = deque()
        self._out: dict[str, Sent] = {}
        """The latest dispatch of each request that is out."""
        self._history: dict[int, History] = {}
        self._now = 0
        self._outputs = 0
        self._done = 0
        """Requests that are done, and output tokens of all of them together."""

    # Choosing.

    def _choose(self, request: Request, among: int, now: int) -> tuple[Worker, int | None]:
        self._expire(now)
        depth, holders = self.index.match(request.blocks, request.namespace, among)
        cached = min(depth * self.config.block_size, request.input_tokens - 1)
        if cached > request.input_tokens - cached:
            chosen = min(slots_of(holders), key=self._load)
            lightest = min(slots_of(among), key=self._load)
            if 100 * self._load(chosen) <= self.config.balance_rel_percent * self._load(lightest):
                return self.workers[chosen], depth
            return self.workers[lightest], None
        return self._explore(request, among), None

    def _explore(self, request: Request, among: int) -> Worker:
        """Return the worker with the least L + M + P, in the order of L, as far as L leaves a chance."""
        first, *others = sorted(slots_of(among), key=self._load)
        best, least = first, self._cost_at(first, request)
        for slot in others:
            if self._load(slot) >= least:
                break
            cost = self._cost_at(slot, request)
            if cost < least:
                best, least = slot, cost
        return self.workers[best]

    def _cost_at(self, slot: int, request: Request) -> int:
        """Return L + M + P of a worker."""
        matched = self.index.matched_blocks(slot, request.blocks, request.namespace)
        missed = request.input_tokens - min(matched * self.config.block_size, request.input_tokens - 1)
        return self._load(slot) + missed * self.config.prefill_ns + self._eviction_cost(slot, request, matched)

    def _load(self, slot: int) -> int:
        return self._history[slot].load

    def _eviction_cost(self, slot: int, request: Request, matched: int) -> int:
        """Return the time to compute again what has to make room, times the share of requests that use it."""
        room = self.index.capacity_of(slot) - self.index.blocks_of(slot)
        needed = len(request.blocks) - matched - room
        history = self._history[slot]
        if needed <= 0 or not history.requests:
            return 0
        users = sum(history.users.get(key, 0) for key in islice(self.index.next_evicted(slot), needed))
        return users * self.config.block_size * self.config.prefill_ns // history.requests

    # The window.

    def _charge(self, dispatched: Dispatched, request: Request) -> None:
        config = self.config
        average = self._outputs // self._done if self._done else request.max_output
        missed = request.input_tokens - dispatched.cached_tokens
        cost = missed * config.prefill_ns + average * config.decode_ns
        sent = Sent(self._now, dispatched.slot, request.id, cost, request.blocks, request.namespace)
        self._window.append(sent)
        self._out[request.id] = sent
        self._count(sent, +1)

    def _settle(self, dispatched: Dispatched, output: int, extend: int | None) -> None:  # noqa: ARG002
        del self._out[dispatched.request]
        self._outputs += output
        self._done += 1

    def _refund(self, dispatched: Dispatched) -> None:
        sent = self._out.pop(dispatched.request)
        if sent.counts:
            self._count(sent, -1)
            sent.counts = False

    def _expire(self, now: int) -> None:
        """Let what is older than the window drop out."""
        self._now = at_least("now", now, self._now)
        oldest = now - self.config.window
        while self._window and self._window[0].at < oldest:
            sent = self._window.popleft()
            if sent.counts:
                self._count(sent, -1)
                sent.counts = False

    def _count(self, sent: Sent, sign: int) -> None:
        history = self._history[sent.slot]
        history.load += sign * sent.cost
        history.requests += sign
        users = history.users
        for key in keys_of(sent.blocks, sent.namespace):
            count = users.get(key, 0) + sign
            if count:
                users[key] = count
            else:
                del users[key]

    # Workers and state.

    def _joined(self, worker: Worker) -> None:
        self._history[worker.slot] = History()

    def _left(self, worker: Worker) -> None:
        del self._history[worker.slot]
        for sent in self._window:
            sent.counts = sent.counts and sent.slot != worker.slot

    def validate(self) -> None:
        """Check the loads against the window; see `BaseRouter.validate` for the rest."""
        super().validate()
        for slot, history in self._history.items():
            counted = [sent for sent in self._window if sent.counts and sent.slot == slot]
            assert history.load == sum(sent.cost for sent in counted), slot
            assert history.requests == len(counted), slot
            users = Counter(key for sent in counted for key in keys_of(sent.blocks, sent.namespace))
            assert history.users == users, slot

    def _state(self) -> dict[str, Any]:
        window = [
            {
                "at": sent.at,
                "slot": sent.slot,
                "request": sent.request,
                "cost": sent.cost,
                "blocks": dump_blocks(sent.blocks),
                "namespace": sent.namespace,
                "counts": sent.counts,
                "out": self._out.get(sent.request) is sent,
            }
            for sent in self._entries()
        ]
        return {"window": window, "now": self._now, "outputs": self._outputs, "done": self._done}

    def _entries(self) -> list[Sent]:
        """Return the window, after what is out of it but may still be refunded."""
        inside = set(map(id, self._window))
        return [*(sent for sent in self._out.values() if id(sent) not in inside), *self._window]

    def _load_state(self, state: Mapping[str, Any]) -> None:
        self._now, self._outputs, self._done = state["now"], state["outputs"], state["done"]
        self._history = {worker.slot: History() for worker in self.workers}
        for saved in state["window"]:
            plain = {name: saved[name] for name in ("at", "slot", "request", "cost", "namespace", "counts")}
            sent = Sent(blocks=load_blocks(saved["blocks"]), **plain)
            if saved["out"]:
                self._out[sent.request] = sent
            if sent.counts:
                self._count(sent, +1)
            if sent.at >= self._now - self.config.window:
                self._window.append(sent)

    def _canonical_state(self) -> tuple[object, ...]:
        window = tuple(
            (self._now - sent.at, sent.slot, sent.request, sent.cost, sent.namespace, *sent.blocks)
            for sent in self._window
            if sent.counts
        )
        return (window, self._outputs, self._done)
