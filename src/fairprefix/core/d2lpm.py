"""D2LPM: the dispatcher of distributed DLPM (arXiv 2501.14312, Algorithm 2).

For each client there is a deficit counter per worker. A request goes to a worker where the client has credit: to
one that holds the longest match of its prompt if any of those has, else to any; the least loaded one in both
cases. When a client has credit nowhere all its counters get a quantum, as often as it takes. So a client stays
where its prefix is cached until it has used up a quantum there, and its work is spread in the long run.

Every worker runs a policy of its own (DLPM, in the paper); what can be promised for both together, and what can
not, stands in docs/theory.md. The quantum of the dispatcher is in no bound: it trades locality for balance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from attrs import define, field

from fairprefix.core.deficit import rounds_until_above
from fairprefix.core.errors import at_least
from fairprefix.core.request import Client, Request
from fairprefix.core.router_base import BaseRouter, Dispatched
from fairprefix.core.router_config import RouterConfig
from fairprefix.core.routing import WorkerName
from fairprefix.core.worker_index import WorkerIndex
from fairprefix.core.workers import Worker, slots_of

_JOINS_KEPT = 1024


@define(eq=False)
class DispatchAccount:
    """A client's counters, sparse: q of worker w is refilled_weight * quantum * (weight of w) - spent[w]."""

    weight: int
    refilled_weight: int
    """The client's weight at its last refill; its first request brings the first one."""
    spent: dict[int, int] = field(factory=dict)
    """By slot, where it is not 0."""
    dry: int = 0
    """The set of workers at which there is no credit."""
    joins_seen: int = 0
    """Up to which joining worker the account is up to date."""
    live: int = 0
    """Its requests that are out."""
    average: int | None = None
    """Moving average of its requests' output; None before the first one is done."""


class D2LPM(BaseRouter):
    """Algorithm 2, with prediction of output, weights, and workers that come and go.

    * Refills are in closed form (`rounds_until_above`) and reach every worker that is due; one that is suspended,
      or to be avoided, does not take part in the decision to refill.
    * A worker that joins later is entered as after a refill: with one quantum.
    * A client without requests may be forgotten beyond `max_clients`, since no bound depends on these counters.

    Complexity: O(blocks of the prompt + workers) for a pick, O(1) for anything else about a request. Memory is
    proportional to the (client, worker) pairs with a dispatch.
    """

    rounds: int

    name: ClassVar[str] = "d2lpm"

    def __init__(self, config: RouterConfig, index: WorkerIndex | None = None) -> None:
        super().__init__(config, index)
        self.rounds = 0
        """Refill rounds over all clients."""
        self._cost = config.cost
        self._weights = dict(config.weights)
        self._accounts: dict[Client, DispatchAccount] = {}
        self._idle: dict[Client, None] = {}
        self._joins: list[int] = []
        """Slots of workers in the order of joining: what accounts catch up with."""

    def deficit(self, client: Client, worker: WorkerName) -> int:
        """Return the counter q of a client at a worker in service units; 0 for an unknown client."""
        found = self.workers.named(worker)
        account = self._accounts.get(client)
        if account is None:
            return 0
        self._catch_up(account)
        return self._counter(account, found)

    def reweigh(self, client: Client, weight: int) -> None:
        """Change a client's weight from the next refill on. O(1)."""
        self._weights[client] = at_least("weight", weight, 1)
        account = self._accounts.get(client)
        if account is not None:
            account.weight = weight

    # Choosing.

    def _choose(self, request: Request, among: int, now: int) -> tuple[Worker, int | None]:  # noqa: ARG002
        account = self._account(request.client)
        credit = among & ~account.dry
        if not credit:
            self._refill(account, among)
            credit = among & ~account.dry
        depth, holders = self.index.match(request.blocks, request.namespace, among)
        both = holders & credit
        if both:
            return self.workers.least_loaded(both), depth
        return self.workers.least_loaded(credit), None

    def _refill(self, account: DispatchAccount, among: int) -> None:
        """Give every worker quanta until one of those `among`, none of which has credit, has some."""
        due = {worker.slot: self._rounds_due(account, worker) for worker in self.workers}
        rounds = min(due[slot] for slot in slots_of(among))
        self.rounds += rounds
        before = {worker.slot: self._counter(account, worker) for worker in self.workers}
        account.refilled_weight = account.weight
        for worker in self.workers:
            # Credit is not topped up: only a worker that took no part in the decision can have any.
            gained = min(rounds, due[worker.slot]) * self._quantum(account, worker)
            self._set_counter(account, worker, before[worker.slot] + gained)

    def _rounds_due(self, account: DispatchAccount, worker: Worker) -> int:
        return rounds_until_above(self._counter(account, worker), 0, self._quantum(account, worker))

    # Charging.

    def _charge(self, dispatched: Dispatched, request: Request) -> None:
        account = self._accounts[request.client]
        account.live += 1
        self._idle.pop(request.client, None)
        if self.config.prompt_charge == "extend":
            dispatched.extend = request.input_tokens - dispatched.cached_tokens
        dispatched.output = self._predicted(account, request)
        self._spend(account, dispatched, self._cost.service(dispatched.extend, dispatched.output))

    def _predicted(self, account: DispatchAccount, request: Request) -> int:
        if self.config.output_charge == "finish":
            return 0
        if self.config.output_charge == "max" or account.average is None:
            return request.max_output
        return min(account.average, request.max_output)

    def _settle(self, dispatched: Dispatched, output: int, extend: int | None) -> None:
        account = self._catch_up(self._accounts[dispatched.client])
        late = 0
        if extend is not None and self.config.prompt_charge == "extend":
            late = extend - dispatched.extend
        self._spend(account, dispatched, self._cost.service(late, output - dispatched.output))
        account.average = output if account.average is None else (4 * account.average + output) // 5
        self._release(account, dispatched.client)

    def _refund(self, dispatched: Dispatched) -> None:
        account = self._catch_up(self._accounts[dispatched.client])
        self._spend(account, dispatched, -self._cost.service(dispatched.extend, dispatched.output))
        self._release(account, dispatched.client)

    def _spend(self, account: DispatchAccount, dispatched: Dispatched, units: int) -> None:
        worker = self.workers[dispatched.slot]
        self._set_counter(account, worker, self._counter(account, worker) - units)

    # Accounts.

    def _account(self, client: Client) -> DispatchAccount:
        account = self._accounts.get(client)
        if account is not None:
            return self._catch_up(account)
        if len(self._accounts) >= self.config.max_clients and self._idle:
            oldest = next(iter(self._idle))
            del self._idle[oldest], self._accounts[oldest]
        weight = self._weights.get(client, self.config.default_weight)
        # All counters are 0: the first refill is due, and there is nothing to store about any of them.
        self.rounds += 1
        account = DispatchAccount(weight, weight, joins_seen=len(self._joins))
        self._accounts[client] = account
        self._idle[client] = None
        return account

    def _release(self, account: DispatchAccount, client: Client) -> None:
        account.live -= 1
        if not account.live:
            self._idle[client] = None

    def _quantum(self, account: DispatchAccount, worker: Worker) -> int:
        return self.config.quantum * account.weight * worker.weight

    def _counter(self, account: DispatchAccount, worker: Worker) -> int:
        full = account.refilled_weight * self.config.quantum * worker.weight
        return full - account.spent.get(worker.slot, 0)

    def _set_counter(self, account: DispatchAccount, worker: Worker, counter: int) -> None:
        spent = account.refilled_weight * self.config.quantum * worker.weight - counter
        if spent:
            account.spent[worker.slot] = spent
        else:
            account.spent.pop(worker.slot, None)
        bit = 1 << worker.slot
        account.dry = account.dry & ~bit if counter > 0 else account.dry | bit

    # Workers that come and go.

    def _joined(self, worker: Worker) -> None:
        self._joins.append(worker.slot)
        if len(self._joins) > _JOINS_KEPT:
            for account in self._accounts.values():
                self._catch_up(account)
                account.joins_seen = 0
            self._joins.clear()

    def _catch_up(self, account: DispatchAccount) -> DispatchAccount:
        """Give an account its counters of the workers that have joined since it was last touched."""
        if account.joins_seen < len(self._joins):
            for slot in dict.fromkeys(self._joins[account.joins_seen :]):
                if self.workers.occupied(slot):
                    worker = self.workers[slot]
                    self._set_counter(account, worker, self._quantum(account, worker))
            account.joins_seen = len(self._joins)
        return account

    # State.

    def validate(self) -> None:
        """Check the counters' book-keeping; see `BaseRouter.validate` for the rest."""
        super().validate()
        live: dict[Client, int] = {}
        for dispatched in self._dispatched.values():
            live[dispatched.client] = live.get(dispatched.client, 0) + 1
        for client, account in self._accounts.items():
            self._catch_up(account)
            assert account.live == live.get(client, 0), f"{client!r}: {account.live} requests out"
            assert (client in self._idle) == (not account.live), client
            for worker in self.workers:
                dry = bool(account.dry >> worker.slot & 1)
                assert dry == (self._counter(account, worker) <= 0), (client, worker.name)

    def _state(self) -> dict[str, Any]:
        accounts = [
            {
                "client": client,
                "weight": account.weight,
                "average": account.average,
                "counters": self._unusual_counters(self._catch_up(account)),
            }
            for client, account in self._accounts.items()
        ]
        return {
            "weights": dict(self._weights),
            "rounds": self.rounds,
            "accounts": accounts,
            "idle": list(self._idle),
        }

    def _unusual_counters(self, account: DispatchAccount) -> dict[WorkerName, int]:
        """Return the counters of a client by worker, but for those that stand at a full quantum."""
        counters = {worker.name: self._counter(account, worker) for worker in self.workers}
        return {
            name: counter
            for name, counter in counters.items()
            if counter != self._quantum(account, self.workers.named(name))
        }

    def _load_state(self, state: Mapping[str, Any]) -> None:
        self._weights = dict(state["weights"])
        self.rounds = state["rounds"]
        for saved in state["accounts"]:
            # Whether the counters began with one refill or with a hundred makes no difference from here on.
            account = DispatchAccount(saved["weight"], saved["weight"])
            account.average = saved["average"]
            for name, counter in saved["counters"].items():
                self._set_counter(account, self.workers.named(name), counter)
            self._accounts[saved["client"]] = account
        for dispatched in self._dispatched.values():
            self._accounts[dispatched.client].live += 1
        self._idle = dict.fromkeys(state["idle"])

    def _canonical_state(self) -> tuple[object, ...]:
        accounts = tuple(
            (
                client,
                account.weight,
                account.average,
                tuple(sorted((w.name, self._counter(self._catch_up(account), w)) for w in self.workers)),
            )
            for client, account in sorted(self._accounts.items())
        )
        return (tuple(sorted(self._weights.items())), accounts, tuple(self._idle))
