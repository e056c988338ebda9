"""The policy as a host uses it: guarded, so that it can never harm the host, and watched.

A policy may be anybody's. Should it raise, arrival order takes over at once: no request is lost, the host goes on,
`errors` counts and `on_error` is told once. From then on the policy is not asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import monotonic_ns
from typing import Any

from fairprefix.core.bounds import Engine
from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.cost import Receipt
from fairprefix.core.dlpm import DLPM
from fairprefix.core.lane import Stage
from fairprefix.core.policy import Policy, Refusal
from fairprefix.core.prefixes import Prefixes
from fairprefix.core.request import Client, Request
from fairprefix.hosting.arrival_order import ArrivalOrder, Live
from fairprefix.hosting.figures import Figures, Sample

_WAITING = (Stage.QUEUED, Stage.DEFERRED)
_RUNNING = Stage.RUNNING


class HostedPolicy:
    """A `Policy` that passes every call on to another one, and survives it.

    Args:
        config: the policy's parameters.
        prefixes: the view of the cache.
        limits: the engine's limits; with them the bound is known in advance.
        on_error: told when the policy fails, once.
        make: makes the policy; by default the one that is configured.
        figures: counts what happens; for a host that counts elsewhere.
        clock_ns: for waiting times and the time of decisions; never for decisions.
    """

    def __init__(
        self,
        config: PolicyConfig,
        prefixes: Prefixes | None = None,
        *,
        limits: Engine | None = None,
        on_error: Callable[[Exception], None] = lambda _problem: None,
        make: Callable[[PolicyConfig, Prefixes | None], Policy] = make_policy,
        figures: Figures | None = None,
        clock_ns: Callable[[], int] = monotonic_ns,
    ) -> None:
        self.config = config
        self.figures: Figures = figures or Figures(config, limits)
        self.errors: int = 0
        """How often the policy failed: 0 or 1."""
        self._cost_output = config.cost_output
        self._policy = make(config, prefixes)
        self._order: ArrivalOrder | None = None
        self._on_error = on_error
        self._clock_ns = clock_ns
        self._live: dict[str, Live] = {}
        self._hold: dict[Client, int] = {}
        """Per client: output tokens that its admitted requests may still produce."""
        self._seq = 0

    @property
    def failed(self) -> bool:
        """Whether arrival order has taken over."""
        return self._order is not None

    @property
    def live(self) -> int:
        """Requests that are not finished."""
        return len(self._live)

    def deficit(self, client: Client) -> int | None:
        """Return a client's deficit counter; None where the policy keeps none."""
        keeps = getattr(self._policy, "deficit", None)
        return None if keeps is None or self.failed else int(keeps(client))

    @property
    def holds_back(self) -> bool:
        """Whether the policy offers nobody on purpose: others that this host does not see go first."""
        return not self.failed and bool(getattr(self._policy, "holds_back", False))

    @property
    def rounds(self) -> int | None:
        """Refill rounds so far; None where the policy has none."""
        return self._policy.rounds if isinstance(self._policy, DLPM) and not self.failed else None

    def samples(self) -> list[Sample]:
        """Return every figure, for metrics."""
        samples = list(self.figures.samples())
        help = "Failures of the policy; arrival order took over."
        samples.append(Sample("fairprefix_policy_errors_total", help, self.errors, {}, "counter"))
        if isinstance(self._policy, DLPM) and not self.failed:
            samples += _deficits(self._policy, self.figures.names)
        return samples

    # The policy's interface.

    def arrive(self, request: Request) -> None:
        """Queue a new request."""
        entry = Live(request, self._seq, self._clock_ns())
        self._seq += 1
        self._live[request.id] = entry
        self.figures.arrived(request.client)
        self._tell("arrive", request)
        self._queued(entry)

    def begin_pass(self) -> None:
        """Start a scheduling pass."""
        self._tell("begin_pass")
        if self._order:
            self._order.begin_pass()

    def peek(self) -> Request | None:
        """Return the request to admit next."""
        clock_ns = self._clock_ns
        began = clock_ns()
        found = None
        if self._order is None:
            try:
                found = self._policy.peek()
            except Exception as problem:  # noqa: BLE001 (whatever it is, the host must go on)
                self._give_up(problem)
        if self._order is not None:
            first = self._order.first()
            found = first.request if first else None
        self.figures.picked(clock_ns() - began)
        return found

    def plan(self, limit: int, *, budget: int | None = None) -> Sequence[Request]:
        """Return the next `limit` requests in order."""
        began = self._clock_ns()
        found: Sequence[Request] = ()
        if self._order is None:
            try:
                found = self._policy.plan(limit, budget=budget)
            except Exception as problem:  # noqa: BLE001 (whatever it is, the host must go on)
                self._give_up(problem)
        if self._order is not None:
            found = self._order.first_few(limit)
        self.figures.picked(self._clock_ns() - began)
        return found

    def take(self, id: str, *, extend: int, reserve: int) -> Receipt:
        """Admit a request and charge its client."""
        entry = self._live[id]  # a KeyError is the host's own mistake
        waited = entry.stage in _WAITING
        entry.stage = _RUNNING
        receipt = None
        if self._order is None:
            try:
                receipt = self._policy.take(id, extend=extend, reserve=reserve)
            except Exception as problem:  # noqa: BLE001 (whatever it is, the host must go on)
                self._give_up(problem)
        if receipt is None:
            receipt = self._own_receipt(entry, extend, reserve)
        client = entry.request.client
        held = self._hold_more(entry, receipt.reserve - entry.reserve)
        entry.admissions += 1
        if entry.admissions == 1:
            self.figures.admitted(
                client,
                input_tokens=entry.request.input_tokens,
                extend=receipt.extend,
                charged=receipt.charged,
                hold=self._cost_output * held if held > 0 else 0,
                waited_ns=self._clock_ns() - entry.arrived_ns,
            )
        else:
            self.figures.recomputed(client, receipt.extend)
            if waited:
                self.figures.queued(client, -1)
        return receipt

    def amend(self, receipt: Receipt, *, extend: int | None = None, reserve: int | None = None) -> Receipt:
        """Correct an admission."""
        entry = self._known(receipt.request)
        amended = None
        if self._order is None:
            try:
                amended = self._policy.amend(receipt, extend=extend, reserve=reserve)
            except Exception as problem:  # noqa: BLE001 (whatever it is, the host must go on)
                self._give_up(problem)
        if amended is None:
            amended = self._own_receipt(
                entry,
                receipt.extend if extend is None else extend,
                receipt.reserve if reserve is None else reserve,
            )
        self._hold_more(entry, amended.reserve - receipt.reserve)
        return amended

    def refund(self, receipt: Receipt) -> None:
        """Undo an admission that did not happen."""
        entry = self._known(receipt.request)
        self._hold_more(entry, -entry.reserve)
        entry.stage = Stage.QUEUED
        entry.admissions -= 1
        self._tell("refund", receipt)
        self._queued(entry)

    def defer(self, id: str, why: Refusal) -> None:
        """Set a queued request aside."""
        entry = self._known(id)
        waited = entry.stage in _WAITING
        entry.stage = Stage.BLOCKED if why is Refusal.BLOCKED else Stage.DEFERRED
        self._tell("defer", id, why)
        if self._order and entry.stage is Stage.DEFERRED:
            self._order.deferred(entry)
        if waited and entry.stage is Stage.BLOCKED:
            self.figures.queued(entry.request.client, -1)

    def unblock(self, id: str) -> None:
        """Queue a blocked request again."""
        entry = self._known(id)
        entry.stage = Stage.QUEUED
        self._tell("unblock", id)
        self._queued(entry)

    def produced(self, tokens: Mapping[Client, int]) -> None:
        """Charge output tokens."""
        self._tell("produced", tokens)
        self.figures.produced(tokens)
        for client, count in tokens.items():
            self._hold[client] = self._hold.get(client, 0) - count

    def preempt(self, id: str, *, output: int, keep_hold: bool) -> None:
        """Note that a running request lost its memory."""
        entry = self._known(id)
        self._advance(entry, output)
        entry.stage = Stage.HELD if keep_hold else Stage.QUEUED
        if not keep_hold:
            self._hold_more(entry, -entry.reserve)
        self._tell("preempt", id, output=output, keep_hold=keep_hold)
        if not keep_hold:
            self._queued(entry)

    def finish(self, id: str, *, output: int) -> None:
        """Settle a request for good."""
        entry = self._known(id)
        if entry.stage in _WAITING:
            self.figures.queued(entry.request.client, -1)
        self._advance(entry, output)
        self._hold_more(entry, -entry.reserve)
        entry.stage = Stage.RUNNING
        del self._live[id]
        self._tell("finish", id, output=output)

    def reweigh(self, client: Client, weight: int) -> None:
        """Change a client's weight."""
        self._tell("reweigh", client, weight)

    def snapshot(self) -> dict[str, Any]:
        """Return the policy's snapshot."""
        return self._policy.snapshot()

    def canonical(self) -> tuple[object, ...]:
        """Return the policy's canonical state."""
        return self._policy.canonical()

    def validate(self) -> None:
        """Validate the policy."""
        self._policy.validate()

    # Inside.

    def _tell(self, call: str, *args: object, **named: object) -> None:
        if self._order is None:
            try:
                getattr(self._policy, call)(*args, **named)
            except Exception as problem:  # noqa: BLE001 (whatever it is, the host must go on)
                self._give_up(problem)

    def _give_up(self, problem: Exception) -> None:
        self._order = ArrivalOrder(self._live.values())
        self.errors += 1
        self._on_error(problem)

    def _known(self, id: str) -> Live:
        """Return a request's entry; the host's own mistakes are its own to hear of.

        Raises:
            KeyError: the host never reported it, or has finished it.
        """
        return self._live[id]

    def _queued(self, entry: Live) -> None:
        self.figures.queued(entry.request.client, +1)
        if self._order:
            self._order.queued(entry)

    def _own_receipt(self, entry: Live, extend: int, reserve: int) -> Receipt:
        return Receipt(entry.request.id, entry.request.client, -1, extend, reserve, 0)

    def _advance(self, entry: Live, output: int) -> None:
        """Count output that `produced` has taken off its client's hold already."""
        entry.reserve += entry.output - output
        entry.output = output

    def _hold_more(self, entry: Live, tokens: int) -> int:
        """Count output that a request may still produce; return that of its client."""
        entry.reserve += tokens
        client, hold = entry.request.client, self._hold
        held = hold.get(client, 0) + tokens
        if held:
            hold[client] = held
        else:
            hold.pop(client, None)
        return held


def _deficits(policy: DLPM, names: Iterable[Client]) -> Iterator[Sample]:
    yield Sample("fairprefix_quantum_refills_total", "Refill rounds.", policy.rounds, {}, "counter")
    help = "Deficit counter, in service units."
    for name in names:
        yield Sample("fairprefix_deficit_tokens", help, policy.deficit(name), {"fairness_id": name})
