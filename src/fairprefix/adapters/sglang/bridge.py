"""Between one SGLang scheduler and one policy: tells what happened there, and carries out what is decided here.

* A prompt is charged when it is first admitted: what its whole prompt has still to compute, also when it comes in
  chunks. If it is aborted before its last chunk, the charge is corrected.
* Output is charged by what a request has more than when it was last looked at, once per processed result: exact
  under the lag of overlap scheduling, in mixed batches, and with any number of tokens accepted at once.
* A request that comes back to the queue was retracted or preempted; what it computes again is charged as the
  configuration says (`recompute`), and reported apart.

Decisions depend on nothing but these events: no clock, no hash of a string, no address. So every tensor-parallel
rank, each with a policy of its own, decides alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from fairprefix.adapters.sglang.engine import SchedulerView
from fairprefix.adapters.sglang.matches import BLOCK, TreeMatches
from fairprefix.adapters.sglang.places import Places
from fairprefix.adapters.sglang.planner import Planner
from fairprefix.adapters.sglang.views import (
    Batch,
    Req,
    Tracked,
    cache_namespace,
    delivered,
    is_health_check,
    longest_output,
    prompt_blocks,
    prompt_length,
)
from fairprefix.core.prefixes import Prefixes
from fairprefix.core.request import Request
from fairprefix.hosting import HostedPolicy, Identity, clean_name

_LOOK_AHEAD = 4
"""Where SGLang may pass over candidates: how much further than the budget is planned."""


class Bridge:
    """Translates.

    Args:
        engine: the scheduler.
        host: makes the policy, from its view of the cache.
        identity: whose a request is that names nobody.
        log: gets every plan, for comparing what several ranks decided.
    """

    def __init__(
        self,
        engine: SchedulerView,
        host: Callable[[Prefixes], HostedPolicy],
        identity: Identity,
        log: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self._engine = engine
        self._log = log
        self._matches = TreeMatches(self._ask)
        self.policy: HostedPolicy = host(self._matches)
        self._identity = identity
        self._planner = Planner(self.policy, self._planned, engine.sharing)
        self._places = Places()
        self._known: dict[Req, Tracked] = {}
        """Requests that are not finished."""
        self._by_id: dict[str, Tracked] = {}
        self._requests: dict[str, Request] = {}
        self._waiting = 0
        """How many of them wait."""
        self._ours: dict[Req, None] = {}
        """SGLang's own requests that wait: health checks, which go first and are charged to nobody."""
        self._arrivals = 0
        self._hidden: list[Req] = []

    # Events.

    def queued(self, req: Req) -> None:
        """Note that SGLang has queued a request, new or retracted; or has refused to."""
        waiting, entry = self._engine.waiting, self._known.get(req)
        if not waiting or waiting[-1] is not req:
            if entry is not None:
                self._settle(entry)
        elif is_health_check(req):
            self._ours[req] = None
            self._places.skipped()
        elif entry is None:
            self._places.appended(self._arrive(req), waiting)
        else:
            self._retract(entry)
            self._places.appended(entry, waiting)

    def admitted(self, batch: Batch) -> None:
        """Charge the prompts of a batch that is about to run; who decodes in a mixed batch was admitted before."""
        for req, cached, tokens in zip(batch.reqs, batch.prefix_lens, batch.extend_lens, strict=False):
            entry = self._known.get(req)
            if entry is None:
                self._ours.pop(req, None)
                continue
            if entry.waiting:
                self._take(entry, cached)
            entry.computed += tokens

    def processed(self, batch: Batch) -> None:
        """Charge the output of a batch whose results are in, and settle what is finished."""
        produced: dict[str, int] = {}
        finished: list[Tracked] = []
        for req in batch.reqs:
            entry = self._known.get(req)
            if entry is None:
                continue
            fresh = delivered(req) - entry.delivered
            if fresh > 0:
                produced[entry.client] = produced.get(entry.client, 0) + fresh
                self._in_cache(entry)
                entry.delivered += fresh
            if req.finished():
                finished.append(entry)
        if produced:
            self.policy.produced(produced)
        for entry in finished:
            self._settle(entry)

    # Order.

    def order(self, waiting: list[Req], running: Any) -> None:
        """Move those to the head of the list whom the policy admits next. O(planned log waiting)."""
        if len(waiting) != self._waiting + len(self._ours):
            self._reconcile(waiting)
        self._matches.refresh()
        self.policy.begin_pass()
        room, budget = self._engine.room(running), self._engine.budget
        if self._engine.skips:
            room, budget = room * _LOOK_AHEAD, budget * _LOOK_AHEAD
        heads, complete = self._planner.plan(room, budget)
        if self._log:
            self._log({"event": "plan", "ids": [entry.id for entry in heads], "complete": complete})
        if not self._places.to_front(heads, waiting, self._known):
            self._reconcile(waiting)
            heads = [entry for entry in heads if entry.waiting and entry.req in self._known]
            self._places.to_front(heads, waiting, self._known)
        first = len(heads)
        if self._ours:
            first += self._own_to_front(waiting)
        admitted_before = len(self._known) > self._waiting
        if complete and first < len(waiting) and (first or admitted_before):
            # The policy admits nobody else now; SGLang must not either.
            self._hidden = waiting[first:]
            del waiting[first:]

    def restore(self) -> None:
        """Give SGLang back what was hidden from it for a pass."""
        if self._hidden:
            self._engine.waiting.extend(self._hidden)
            self._hidden = []

    def arrival_order(self, waiting: list[Req]) -> None:
        """Sort the list by arrival, for SGLang's own order to start from."""
        self.restore()
        last = self._arrivals
        waiting.sort(key=lambda req: self._known[req].seq if req in self._known else last)

    # Inside.

    def _arrive(self, req: Req) -> Tracked:
        client = clean_name(req.routing_key) or self._identity.default
        id = str(req.rid)
        if id in self._by_id:
            id = f"{id}#{self._arrivals}"
        entry = Tracked(req, id, client, self._arrivals)
        self._arrivals += 1
        self._known[req] = self._by_id[id] = entry
        self._waiting += 1
        request = self._requests[id] = Request(
            id,
            client,
            prompt_length(req),
            longest_output(req),
            prompt_blocks(req, BLOCK),
            cache_namespace(req),
        )
        self.policy.arrive(request)
        return entry

    def _retract(self, entry: Tracked) -> None:
        if entry.waiting:
            return
        entry.waiting, entry.receipt, entry.computed, entry.extend = True, None, 0, 0
        self._waiting += 1
        self.policy.preempt(entry.id, output=entry.delivered, keep_hold=False)

    def _take(self, entry: Tracked, cached: int) -> None:
        entry.extend = max(entry.tokens - cached, 1)
        left = longest_output(entry.req) - entry.delivered
        reserve = max(min(left, self._engine.output_estimate), 0)
        entry.receipt = self.policy.take(entry.id, extend=entry.extend, reserve=reserve)
        entry.waiting = False
        self._waiting -= 1

    def _in_cache(self, entry: Tracked) -> None:
        """Tell the view of the cache about a prompt that has just been computed."""
        if not entry.delivered:
            request = self._requests[entry.id]
            for id, tokens in self._matches.computed(request.blocks, request.namespace).items():
                grown = self._by_id.get(id)
                if grown is not None:  # a policy that has failed lets nobody go
                    grown.matched = tokens

    def _settle(self, entry: Tracked) -> None:
        late = delivered(entry.req) - entry.delivered
        if late > 0:
            self.policy.produced({entry.client: late})
            entry.delivered += late
        if entry.receipt and not entry.delivered and entry.computed < entry.extend:
            self.policy.amend(entry.receipt, extend=entry.computed)
        self._waiting -= entry.waiting
        del self._known[entry.req], self._by_id[entry.id], self._requests[entry.id]
        entry.waiting = False
        self.policy.finish(entry.id, output=entry.delivered)

    def _planned(self, requests: Sequence[Request]) -> list[Tracked]:
        by_id = self._by_id
        return [by_id[request.id] for request in requests]

    def _ask(self, id: str) -> int:
        entry = self._by_id[id]
        entry.matched = self._engine.matched(entry.req)
        return entry.matched

    def _reconcile(self, waiting: list[Req]) -> None:
        """Find out who has left the queue, or come to it, without a word. O(waiting + running)."""
        present = set(waiting)
        self._ours = {req: None for req in self._ours if req in present}
        for entry in list(self._known.values()):
            if (entry.waiting and entry.req not in present) or entry.req.finished():
                self._settle(entry)
        for req in waiting:
            known = self._known.get(req)
            if known is not None:
                self._retract(known)
            elif is_health_check(req):
                self._ours[req] = None
            else:
                self._arrive(req)
        self._places.rebuild(waiting, self._known)

    def _own_to_front(self, waiting: list[Req]) -> int:
        """Move health checks to the head; they come when nothing else does, so that the list is short."""
        own: Iterable[Req] = self._ours
        rest = [req for req in waiting if req not in self._ours]
        waiting[:] = [*own, *rest]
        self._places.rebuild(waiting, self._known)
        return len(self._ours)
