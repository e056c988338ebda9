"""The published algorithms, transcribed literally and slowly; nothing in here comes from fairprefix.

* FCFS;
* LPM (SGLang, arXiv 2312.07104): sort by matched prefix, stable by arrival;
* VTC: Algorithm 2 of arXiv 2401.00588;
* DLPM: Algorithm 1 of arXiv 2501.14312, with the credit gate and the overdraft that were added to it.

All matches are computed afresh from the set of cached blocks whenever a decision is made. Refills are carried out
one quantum and one round at a time. Where the library differs from Algorithm 1 on purpose, so does this:

* after every admission and after every refill the order is looked at afresh, from its beginning;
* the refills that an offer needs are tried out on a copy, and count once a request that needs them is admitted;
* a pass that admits nobody ends (the published inner loop would spin).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction


@dataclass(eq=False)
class Job:
    """A request, and all that has happened to it."""

    id: str
    client: str
    prompt: int
    max_output: int
    blocks: tuple[int, ...] = ()
    namespace: str = ""
    place: str = "waiting"
    """waiting, blocked, running or held (preempted, resumed by the engine itself)."""
    refused: bool = False
    """It did not fit in this pass."""
    output: int = 0
    """Tokens produced in all."""
    before: int = 0
    """Tokens produced before the present admission."""
    reserve: int = 0
    """Tokens that it may produce under the present admission."""
    extend: int = 0
    charged: int = 0
    """What the present admission was charged."""
    free: bool = False
    """The present admission computes again what an earlier one has paid for."""
    preempted: bool = False
    """It has been preempted before."""
    resumed: bool = False
    """The present admission is the resume of a held request."""

    def remaining(self) -> int:
        """Return the output tokens that may still be charged for."""
        return self.before + self.reserve - self.output if self.place in ("running", "held") else 0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The parameters, by their own names."""

    block_size: int = 1
    quantum: int = 10
    weights: dict[str, int] = field(default_factory=dict)
    w_e: int = 1
    w_q: int = 2
    bounded_wait: int | None = None
    slack: int | None = None
    """None: the published gate; otherwise the credit gate with this slack."""
    overdraft: int = 0
    recompute_is_charged: bool = False
    vtc_charges_extend: bool = False


class Oracle:
    """The queue, the cache and the life cycle; the algorithms follow as subclasses."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.jobs: dict[str, Job] = {}
        self.cache: set[tuple[str, int]] = set()
        self.weights: dict[str, int] = dict(settings.weights)

    # What the algorithms read.

    def queue(self) -> list[Job]:
        """Return who waits, in the order of arrival."""
        return [r for r in self.jobs.values() if r.place == "waiting"]

    def queued_clients(self) -> set[str]:
        """Return the clients with a request in the queue."""
        return {r.client for r in self.queue()}

    def match(self, r: Job) -> int:
        """Return the cached tokens of a prompt; at least one token is always left to compute."""
        matched = 0
        for block in r.blocks:
            if (r.namespace, block) not in self.cache:
                break
            matched += self.settings.block_size
        return min(matched, r.prompt - 1)

    def sort_by_prefix(self, queue: Sequence[Job]) -> list[Job]:
        """Return the queue in LPM order."""
        return sorted(queue, key=lambda r: -self.match(r))

    def weight(self, client: str) -> int:
        """Return a client's weight."""
        return self.weights.get(client, 1)

    def outstanding(self, client: str) -> int:
        """Return the output tokens that a client's admitted requests may still produce."""
        return sum(r.remaining() for r in self.jobs.values() if r.client == client)

    # What an algorithm says.

    def next(self) -> Job | None:
        """Return the request to admit now."""
        raise NotImplementedError

    def price(self, r: Job, extend: int) -> int:  # noqa: ARG002 (VTC wants it)
        """Return what an admission costs."""
        return self.settings.w_e * extend

    def arrived(self, r: Job) -> None:
        """React to a request that is about to enter the queue."""

    def left(self, r: Job) -> None:
        """React to a request that has just left the queue."""

    def admitting(self, r: Job) -> None:
        """React to an admission from the queue, before it happens."""

    def not_admitted(self, r: Job) -> None:
        """React to an admission from the queue that turned out not to have happened."""

    def charge(self, client: str, units: int) -> None:
        """Charge a client."""

    # What happens.

    def arrive(self, r: Job) -> None:
        """Queue a new request."""
        self.arrived(r)
        self.jobs[r.id] = r

    def begin_pass(self) -> None:
        """Forget what did not fit."""
        for r in self.jobs.values():
            r.refused = False

    def admit(self, r: Job, extend: int, reserve: int) -> None:
        """Admit a request, or resume a held one."""
        r.resumed = r.place == "held"
        if not r.resumed:
            self.admitting(r)
        r.place, r.refused = "running", False
        if not r.resumed:
            self.left(r)
        r.before, r.reserve, r.extend = r.output, reserve, extend
        r.free = r.preempted and not self.settings.recompute_is_charged
        r.charged = 0 if r.free else self.price(r, extend)
        self.charge(r.client, r.charged)

    def amend(self, r: Job, extend: int, reserve: int) -> None:
        """Correct an admission."""
        r.extend, r.reserve = extend, reserve
        self.charge(r.client, -r.charged)
        r.charged = 0 if r.free else self.price(r, extend)
        self.charge(r.client, r.charged)

    def refund(self, r: Job) -> None:
        """Take an admission back."""
        self.charge(r.client, -r.charged)
        r.charged = r.reserve = r.extend = 0
        r.place = "waiting"
        self.not_admitted(r)

    def refuse(self, r: Job) -> None:
        """Pass over a request that does not fit."""
        r.refused = True

    def block(self, r: Job) -> None:
        """Take a request out of the queue until it is unblocked."""
        r.place, r.refused = "blocked", False
        self.left(r)

    def unblock(self, r: Job) -> None:
        """Queue it again."""
        self.arrived(r)
        r.place = "waiting"

    def produce(self, r: Job, tokens: int) -> None:
        """Charge output tokens."""
        r.output += tokens
        self.charge(r.client, self.settings.w_q * tokens)

    def preempt(self, r: Job, *, held: bool) -> None:
        """Take a running request's memory away."""
        r.preempted = True
        if held:
            r.place = "held"
        else:
            self.arrived(r)
            r.place = "waiting"

    def finish(self, r: Job) -> None:
        """Forget a request."""
        waiting = r.place == "waiting"
        del self.jobs[r.id]
        if waiting:
            self.left(r)

    def reweigh(self, client: str, weight: int) -> None:
        """Change a weight for the time to come."""
        self.weights[client] = weight


class FCFSOracle(Oracle):
    """First come, first served, head of line."""

    def next(self) -> Job | None:
        """Return the oldest request if it fits."""
        for r in self.queue():
            return None if r.refused else r
        return None


class OldestInTurn(Oracle):
    """Every k-th admission of a queue takes its oldest request, and waits for it when it does not fit."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.admissions: dict[str, int] = {}
        self.counted: set[str] = set()

    def line(self, r: Job) -> str:
        """Return which queue a request stands in."""
        raise NotImplementedError

    def may_be_next(self, r: Job) -> bool:
        """Return whether it fits, and its queue is not waiting to admit another."""
        return not r.refused and (r is self.oldest(r) or not self.oldest_is_due(r))

    def oldest(self, r: Job) -> Job:
        """Return the oldest request of the queue that a request stands in."""
        return next(other for other in self.queue() if self.line(other) == self.line(r))

    def oldest_is_due(self, r: Job) -> bool:
        """Return whether the next admission from that queue is its oldest request's."""
        k = self.settings.bounded_wait
        return k is not None and (self.admissions.get(self.line(r), 0) + 1) % k == 0

    def admitting(self, r: Job) -> None:
        """Count, unless the host has passed over the oldest although it was due: it stays due."""
        if r is self.oldest(r) or not self.oldest_is_due(r):
            self.admissions[self.line(r)] = self.admissions.get(self.line(r), 0) + 1
            self.counted.add(r.id)
        else:
            self.counted.discard(r.id)

    def not_admitted(self, r: Job) -> None:
        """Count back."""
        if r.id in self.counted:
            self.admissions[self.line(r)] -= 1


class LPMOracle(OldestInTurn):
    """Longest prefix match: what does not fit is passed over."""

    def line(self, r: Job) -> str:  # noqa: ARG002 (one for all)
        """Return the only queue."""
        return "everybody"

    def next(self) -> Job | None:
        """Return the first request in LPM order that fits."""
        for r in self.sort_by_prefix(self.queue()):
            if self.may_be_next(r):
                return r
        return None


class VTCOracle(Oracle):
    """Algorithm 2 of the VTC paper."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.c: dict[str, Fraction] = {}
        self.left_last: str | None = None

    def arrived(self, r: Job) -> None:
        """Lift the counter of a client that had no request in the queue."""
        u = r.client
        self.c.setdefault(u, Fraction(0))
        if u not in self.queued_clients():
            if not self.queue():
                if self.left_last is not None:
                    self.c[u] = max(self.c[u], self.c[self.left_last])
            else:
                self.c[u] = max(self.c[u], min(self.c[i] for i in self.queued_clients()))

    def left(self, r: Job) -> None:
        """Remember the client that left the queue last."""
        if r.client not in self.queued_clients():
            self.left_last = r.client

    def next(self) -> Job | None:
        """Return the oldest request of the client with the smallest counter, unless this pass is over."""
        queue = self.queue()
        if not queue or any(r.refused for r in queue):
            return None
        oldest = {i: next(r for r in queue if r.client == i) for i in self.queued_clients()}
        k = min(oldest, key=lambda i: (self.c[i], queue.index(oldest[i])))
        return oldest[k]

    def price(self, r: Job, extend: int) -> int:
        """Return the price of the whole prompt (as published), or of what is computed."""
        return self.settings.w_e * (extend if self.settings.vtc_charges_extend else r.prompt)

    def charge(self, client: str, units: int) -> None:
        """Advance a counter, the slower the larger the weight."""
        self.c[client] += Fraction(units, self.weight(client))


class DLPMOracle(OldestInTurn):
    """Algorithm 1 of the DLPM paper, with the credit gate and the overdraft of docs/theory.md."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.q: dict[str, int] = {}
        self.rounds: int = 0

    def line(self, r: Job) -> str:
        """Return the queue of the request's client."""
        return r.client

    def arrived(self, r: Job) -> None:
        """Note a new client."""
        if r.client not in self.q:
            self.q[r.client] = 0

    def h(self, i: str) -> int:
        """Return the output that a client's admitted requests may still be charged."""
        return self.settings.w_q * max(0, self.outstanding(i))

    def has_credit(self, i: str, q: dict[str, int]) -> bool:
        """Return whether the gate is open."""
        if self.settings.slack is None:
            return q[i] > 0
        return q[i] - self.h(i) > 0

    def is_due(self, i: str, q: dict[str, int]) -> bool:
        """Return whether a client takes part in the next refill."""
        if self.settings.slack is None:
            return q[i] <= 0
        return q[i] <= 0 or (q[i] - self.h(i) <= 0 and q[i] <= self.settings.slack)

    def check_refill(self, q: dict[str, int]) -> bool:
        """CHECK_REFILL: one quantum for every known client that is due, if all queued clients are."""
        for i in self.queued_clients():
            if not self.is_due(i, q):
                return False
        for i in self.q:
            if self.is_due(i, q):
                q[i] += self.weight(i) * self.settings.quantum
        return True

    def look(self) -> tuple[Job | None, dict[str, int], int]:
        """Return whom one pass would admit first, the counters that it would see, and its refills."""
        q, rounds = dict(self.q), 0
        refilled = True
        while refilled:
            refilled = False
            for r in self.sort_by_prefix(self.queue()):
                i = r.client
                if not self.has_credit(i, q) and self.check_refill(q):
                    rounds += 1
                    refilled = True
                    break
                if self.has_credit(i, q) and self.may_be_next(r):
                    return r, q, rounds
        for r in self.sort_by_prefix(self.queue()):
            if self.settings.overdraft and q[r.client] > -self.settings.overdraft and self.may_be_next(r):
                return r, q, rounds
        return None, q, rounds

    def next(self) -> Job | None:
        """Return whom one pass would admit first."""
        return self.look()[0]

    def admitting(self, r: Job) -> None:
        """Commit the refills if the request needs them, and count."""
        _, q, rounds = self.look()
        limit = -self.settings.overdraft
        on_overdraft = self.settings.overdraft and self.q[r.client] <= limit < q[r.client]
        if not self.is_due(r.client, q) or on_overdraft:
            self.q, self.rounds = q, self.rounds + rounds
        super().admitting(r)

    def charge(self, client: str, units: int) -> None:
        """Lower a deficit counter."""
        self.q[client] -= units
