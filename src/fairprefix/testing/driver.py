"""A tiny engine that executes a history against a policy, literally and in integers.

One step is one scheduling pass (admit what is offered and fits, refuse what does not), then the prompts of what
was admitted are computed, everything that runs produces, and what is done finishes. The same history gives the
same trace. The policy is wrapped in `HostContract`, which checks the driver; what the policy gets wrong ends the
execution and is noted in the trace (`trace.broken`), so that each check can judge what it is about.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from fairprefix.core.contract import HostContract
from fairprefix.core.cost import Receipt
from fairprefix.core.errors import HostError
from fairprefix.core.policy import Policy, Refusal
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.core.request import Client, Request
from fairprefix.testing import events as ev
from fairprefix.testing import trace as tr
from fairprefix.testing.parts import (
    BLOCKED,
    HELD,
    RUNNING,
    WAITING,
    Cache,
    Job,
    PolicyRaisedError,
    Slot,
    changed_request,
    most_steps,
    same_request,
)

_EMPTY_PASSES_AT_MOST = 20
"""Passes over an empty engine that admit nobody, after which a policy is taken to have stalled."""


class StoppedError(Exception):
    """The execution cannot go on; `kind` as in `fairprefix.testing.trace.Broken`."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


Hook = Callable[["Driver"], None]


class Driver:
    """Executes one history.

    Args:
        history: what happens.
        policy: who decides.
        index: the prefix index that the policy looks at.
        hook: called before every question to the policy, and may exchange `slot.policy`.
        amends: admit with sizes that are too small, and amend them at once.
        client_name, request_name: what clients and requests are called towards the policy.
    """

    def __init__(
        self,
        history: ev.History,
        policy: Policy,
        index: PrefixIndex,
        *,
        hook: Hook | None = None,
        amends: bool = False,
        client_name: Callable[[str], str] = str,
        request_name: Callable[[str], str] = str,
    ) -> None:
        self.history = history
        self.limits: ev.EngineLimits = history.limits
        self.trace: tr.Trace = tr.Trace()
        self.slot: Slot = Slot(policy)
        self._contract = HostContract(cast("Policy", self.slot))
        self.policy: Policy = self._contract
        self.jobs: dict[str, Job] = {}
        """Everything that has arrived and is not finished, in order of arrival."""
        self.at: int = 0
        self.cache: Cache = Cache(self.limits.cache_blocks, index)
        self._hook, self._amends = hook, amends
        self._client_name, self._request_name = client_name, request_name
        self._by_name: dict[str, Job] = {}
        self._pending: list[tuple[int, ev.Arrive]] = []
        self._numbers: dict[Client, int] = {}
        self._queued: dict[Client, int] = {}
        self._refunds = self._empty_passes = 0
        self._steps_at_most = 100
        self._handlers: dict[type[ev.HostEvent], Callable[[Any], None]] = {
            ev.Arrive: self._announce,
            ev.Step: self._run_steps,
            ev.Abort: lambda event: self._pick(event.which, list(self.jobs.values()), self._finish),
            ev.Leave: self._leave,
            ev.Block: lambda event: self._pick(event.which, self.of_stage(WAITING), self._block),
            ev.Unblock: lambda event: self._pick(event.which, self.of_stage(BLOCKED), self._unblock),
            ev.Preempt: self._preempt_one,
            ev.Refund: self._fail_next,
            ev.Evict: self._evict,
            ev.Reweigh: self._reweigh,
        }

    def run(self) -> tr.Trace:
        """Execute the history, then run until nothing is left to do."""
        try:
            for event in self.history.events:
                self.apply(event)
            self.drain()
        except StoppedError as stop:
            self.trace.broken = tr.Broken(stop.kind, str(stop))
        except PolicyRaisedError as raised:
            self.trace.broken = tr.Broken("raised", str(raised), raised.__cause__)
        except HostError:
            if not changed_request(self._by_name.values()):  # of which the contract would rightly complain
                raise
        if changed := changed_request(self._by_name.values()):
            self.trace.broken = tr.Broken("input", changed)
        self.trace.end = self.at
        return self.trace

    def of_stage(self, *stages: str) -> list[Job]:
        """Return the requests in these stages, in order of arrival."""
        return [job for job in self.jobs.values() if job.stage in stages]

    def extend(self, job: Job) -> int:
        """Return the tokens that have to be computed to run a request now."""
        return job.prompt + job.produced - self._matched(job)

    # Events.

    def apply(self, event: ev.HostEvent) -> None:
        """Let one event happen.

        Raises:
            StoppedError: the policy got something wrong that cannot be gone on from.
            PolicyRaisedError: the policy raised.
        """
        self._steps_at_most += most_steps(event, self.limits.block)
        self._handlers[type(event)](event)

    def drain(self) -> None:
        """Run until nothing is left to do; raises like `apply`."""
        while self.jobs or self._pending:
            blocked = self.of_stage(BLOCKED)
            if len(blocked) == len(self.jobs) and not self._pending:
                self._unblock(blocked[0])
            self._step()
        self._contract.close()

    def _run_steps(self, event: ev.Step) -> None:
        for _ in range(event.steps):
            self._step()

    def _leave(self, event: ev.Leave) -> None:
        for job in [job for job in self.jobs.values() if job.spec.client == event.client]:
            self._finish(job)

    def _preempt_one(self, event: ev.Preempt) -> None:
        self._pick(event.which, self.of_stage(RUNNING), lambda job: self._preempt(job, hold=event.hold))

    def _fail_next(self, _event: ev.Refund) -> None:
        self._refunds += 1

    def _evict(self, event: ev.Evict) -> None:
        self._note_evicted(self.cache.evict(event.prefix, event.start))

    def _reweigh(self, event: ev.Reweigh) -> None:
        self.policy.reweigh(self._client_name(event.client), event.weight)
        self._note(tr.Reweighed(self.at, event.client, event.weight))

    def _announce(self, arrival: ev.Arrive) -> None:
        for number in range(arrival.count):
            self._pending.append((self.at + number * arrival.every, arrival))
        self._pending.sort(key=lambda item: item[0])
        self._deliver()

    def _deliver(self) -> None:
        while self._pending and self._pending[0][0] <= self.at:
            self._arrive(self._pending.pop(0)[1])

    def _arrive(self, spec: ev.Arrive) -> None:
        number = self._numbers[spec.client] = self._numbers.get(spec.client, 0) + 1
        id = f"{spec.client}{number}"
        request = Request(
            self._request_name(id),
            self._client_name(spec.client),
            spec.tokens(self.limits.block),
            spec.longest(),
            spec.prefix,
        )
        job = self.jobs[id] = self._by_name[request.id] = Job(id, spec, request)
        self.trace.clients[id] = spec.client
        self.policy.arrive(request)
        self._note(tr.Arrived(self.at, id, spec.client, job.prompt, spec.longest(), spec.prefix))
        self._queue(job, +1)

    def _finish(self, job: Job) -> None:
        self.policy.finish(job.request.id, output=job.produced)
        self._note(tr.Finished(self.at, job.id, job.produced, job.produced == job.spec.output))
        del self.jobs[job.id]
        if job.stage == WAITING:
            self._queue(job, -1)

    def _block(self, job: Job) -> None:
        self.policy.defer(job.request.id, Refusal.BLOCKED)
        job.stage, job.refused = BLOCKED, False
        self._note(tr.Blocked(self.at, job.id))
        self._queue(job, -1)

    def _unblock(self, job: Job) -> None:
        self.policy.unblock(job.request.id)
        job.stage = WAITING
        self._note(tr.Unblocked(self.at, job.id))
        self._queue(job, +1)

    def _preempt(self, job: Job, *, hold: bool) -> None:
        self.policy.preempt(job.request.id, output=job.produced, keep_hold=hold)
        job.stage, job.refused, job.held_at = (HELD if hold else WAITING), False, self.at
        self._note(tr.Preempted(self.at, job.id, job.produced, hold))
        if not hold:
            self._queue(job, +1)

    # A step.

    def _step(self) -> None:
        if self.at > self._steps_at_most:
            raise StoppedError("steps", f"still not done after {self.at} steps")
        self._deliver()
        self._make_pass()
        if self.limits.reservation == "none":
            self._make_room()
        self._produce(self._prefilled())
        self.at += 1
        self._deliver()

    def _make_pass(self) -> None:
        self.policy.begin_pass()
        self._note(tr.Passed(self.at))
        for job in self.jobs.values():
            job.refused = False
        refunds = self._refunds
        self._resume_held()
        self._admit_offered()
        self._note_if_empty(excused=refunds != self._refunds)

    def _resume_held(self) -> None:
        for job in self.of_stage(HELD):
            if job.held_at < self.at and self._fits(job):
                self._take(job)

    def _admit_offered(self) -> None:
        refused = 0
        while refused < self.limits.lookahead and len(self.of_stage(RUNNING, HELD)) < self.limits.max_running:
            job = self._ask()
            if job is None:
                return
            if not self._fits(job):
                self._refuse(job)
                refused += 1
            elif self._refunds:
                self._take_in_vain(job)
                refused += 1
            else:
                self._take(job)
                self._queue(job, -1)

    def _ask(self) -> Job | None:
        if self._hook:
            self._hook(self)
        offered = self.policy.peek()
        if offered is None:
            self._note(tr.Offered(self.at, None))
            return None
        job = self._by_name.get(getattr(offered, "id", ""))
        self._note(tr.Offered(self.at, job.id if job else str(offered)))
        if job is None or not same_request(job.request, offered):
            raise StoppedError("offer", f"{offered!r} was offered, which is no request that ever arrived")
        stage = "finished" if job.id not in self.jobs else job.stage
        if stage != WAITING:
            raise StoppedError("offer", f"{job.id} was offered, which is {stage}")
        if job.refused:
            raise StoppedError("offer", f"{job.id} was offered again in the pass that has refused it")
        return job

    def _refuse(self, job: Job) -> None:
        self.policy.defer(job.request.id, Refusal.NO_ROOM)
        job.refused = True
        self._note(tr.Deferred(self.at, job.id))

    def _take(self, job: Job) -> None:
        extend, matched, held = self.extend(job), self._matched(job), job.stage == HELD
        job.receipt = self._admitted(job.request.id, extend, job.left)
        job.stage, job.to_prefill = RUNNING, extend
        job.admissions += 1
        first, charged = job.admissions == 1, job.receipt.charged
        client = job.spec.client
        self._note(tr.Taken(self.at, job.id, client, job.prompt, extend, job.left, charged, matched, first, held))

    def _admitted(self, id: str, extend: int, reserve: int) -> Receipt:
        if not self._amends:
            return self.policy.take(id, extend=extend, reserve=reserve)
        estimate = self.policy.take(id, extend=max(1, extend - 1), reserve=reserve - 1)
        return self.policy.amend(estimate, extend=extend, reserve=reserve)

    def _take_in_vain(self, job: Job) -> None:
        """Admit a request, find that it does not work, and take it back before anything else happens."""
        self._take(job)
        assert job.receipt is not None, "it was taken just now"
        self._refunds -= 1
        self.policy.refund(job.receipt)
        job.admissions -= 1
        job.stage = WAITING
        self._note(tr.Refunded(self.at, job.id))
        self._refuse(job)

    def _note_if_empty(self, *, excused: bool) -> None:
        waiting = self.of_stage(WAITING)
        if self.of_stage(RUNNING, HELD) or not waiting or excused:
            self._empty_passes = 0
            return
        self._empty_passes += 1
        names = tuple(job.id for job in waiting)
        blocked = tuple(job.id for job in self.of_stage(BLOCKED))
        self._note(tr.Idled(self.at, names, blocked))
        if self._empty_passes > _EMPTY_PASSES_AT_MOST:
            text = f"nothing runs and everything fits, but nobody is offered of {', '.join(names)}"
            raise StoppedError("stall", text)

    def _make_room(self) -> None:
        running = self.of_stage(RUNNING)
        while sum(job.prompt + job.produced + self._next_tokens(job) for job in running) > self.limits.kv_tokens:
            self._preempt(running.pop(), hold=False)

    def _prefilled(self) -> list[Job]:
        budget = self.limits.chunk or sum(job.to_prefill for job in self.jobs.values())
        for job in self.of_stage(RUNNING):
            computed = min(job.to_prefill, budget)
            budget -= computed
            job.to_prefill -= computed
            if computed and not job.to_prefill:
                self._share(job)
        return [job for job in self.of_stage(RUNNING) if not job.to_prefill]

    def _share(self, job: Job) -> None:
        prefix = job.spec.prefix
        if prefix:
            evicted = self.cache.insert(prefix)
            self._note(tr.Cached(self.at, prefix))
            self._note_evicted(evicted)

    def _produce(self, jobs: list[Job]) -> None:
        amounts = [(job, self._next_tokens(job)) for job in jobs]
        tokens: dict[Client, int] = {}
        for job, amount in amounts:
            job.produced += amount
            tokens[job.request.client] = tokens.get(job.request.client, 0) + amount
        if tokens:
            self.policy.produced(tokens)
            self._note(tr.Produced(self.at, tuple((job.id, amount) for job, amount in amounts)))
        for job in jobs:
            if job.produced == job.spec.output:
                self._finish(job)

    # Small things.

    def _next_tokens(self, job: Job) -> int:
        return min(self.limits.decode, job.spec.output - job.produced)

    def _matched(self, job: Job) -> int:
        return min(self.cache.matched(job.spec.prefix) * self.limits.block, job.prompt - 1)

    def _fits(self, job: Job) -> bool:
        running = self.of_stage(RUNNING)
        if self.limits.reservation == "full":
            used = sum(other.prompt + other.spec.longest() for other in running)
            return used + job.prompt + job.spec.longest() <= self.limits.kv_tokens
        used = sum(other.prompt + other.produced for other in running)
        return used + job.prompt + job.produced + self._next_tokens(job) <= self.limits.kv_tokens

    def _queue(self, job: Job, change: int) -> None:
        client = job.spec.client
        before = self._queued.get(client, 0)
        after = self._queued[client] = before + change
        if bool(before) != bool(after):
            self._note(tr.Backlogged(self.at, client) if after else tr.Idle(self.at, client))

    @staticmethod
    def _pick(which: int, jobs: list[Job], act: Callable[[Job], None]) -> None:
        if jobs:
            act(jobs[which % len(jobs)])

    def _note(self, fact: tr.Fact) -> None:
        self.trace.facts.append(fact)

    def _note_evicted(self, chains: list[tuple[int, ...]]) -> None:
        for chain in chains:
            self._note(tr.Evicted(self.at, chain))
