"""What is promised over the gateway's queues: DLPM's bound, with all that a gateway adds to the theorem.

* Where a client is queued at one worker and has credit at another one it may miss refills there (docs/theory.md,
  theorem 16): those of the clients whose gaps are followed are counted.
* Requests are let in with estimates. What turns out to be more is charged late, when up to N - 1 others of the
  client are inside with as much of it (theorem 12); what turns out to be less is given back, for up to N of them.
* Output that was counted too high, and that no prompt's charge is large enough to make up for, stays charged.

All of it is counted with the largest errors seen so far, which is more than any history can have made of them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from fractions import Fraction
from math import ceil
from typing import Any

from attrs import frozen

from fairprefix.core.bounds import Engine, lightest_pair
from fairprefix.core.bounds_base import pair_gap
from fairprefix.core.config import PolicyConfig
from fairprefix.core.guarantee import Arrangement, cluster_guarantee
from fairprefix.core.refill_watch import RefillWatch
from fairprefix.core.request import Client
from fairprefix.gateway.queue import WorkerQueue
from fairprefix.hosting import HostedPolicy

_ANY = ("\0one", "\0another")
"""Names that nobody has: clients of no configured weight."""


@frozen
class Bound:
    """The most that two clients that both wait may be apart, in service units per unit of weight."""

    queues: Fraction
    """What DLPM promises for prompts and outputs as long as those seen so far, over all queues."""
    missed_refills: Fraction
    """More for refills that one of them missed."""
    estimates: Fraction
    """More for estimates that were wrong."""

    @property
    def total(self) -> int:
        """All of it, rounded up."""
        return ceil(self.queues + self.missed_refills + self.estimates)


class Promise:
    """Follows what the bound depends on, for the first clients that are heard of.

    Args:
        config: the policy of the queues.
        queues: by worker; None where a worker has no queue of ours, and nothing can be promised.
        followed: the clients whose gaps are followed: it may grow.

    Complexity: O(1) for a charge, O(queues) when the backlog of a followed client begins or ends.
    """

    def __init__(
        self, config: PolicyConfig, queues: Mapping[str, WorkerQueue] | None, followed: Collection[Client]
    ) -> None:
        self.longest_prompt: int = 0
        """Of all prompts let in, in tokens that had to be computed."""
        self.longest_output: int = 0
        """Of all outputs set aside or delivered, in tokens."""
        self.late: int = 0
        """The most that one request was charged beyond what was set aside for it, in service units."""
        self.given_back: int = 0
        """The most that one request was given back, in service units."""
        self._config = config
        self._queues = {} if queues is None or config.policy != "dlpm" else dict(queues)
        self._followed = followed
        self._kept: dict[Client, int] = {}
        """What each followed client was charged for nothing, in service units."""
        self._most_inside = dict.fromkeys(self._queues, 0)
        """Those of earlier runs, whose debts are still there."""
        quanta = {client: weight * config.quantum for client, weight in config.weights.items()}
        policies = [_Refills(queue.policy) for queue in self._queues.values()]
        self._watch = RefillWatch(policies, quanta, config.default_weight * config.quantum)
        self._begun: dict[Client, int] = {}
        """What those who wait had missed when their backlog began."""
        self._most_missed = 0
        for number, queue in enumerate(self._queues.values()):
            queue.watched_by(self, number)

    # Events.

    def sized(self, *, extend: int = 0, output: int = 0) -> None:
        """Note how long a prompt and an output are, or were taken to be, in tokens."""
        self.longest_prompt = max(self.longest_prompt, extend)
        self.longest_output = max(self.longest_output, output)

    def queued(self, client: Client, *, waiting: bool) -> None:
        """Note that a client has requests that wait from now on, or has none."""
        if client not in self._followed or not self._queues:
            return
        if waiting:
            self._begun[client] = self._watch.missed(client)  # before: then nothing has to be looked up
            self._watch.queued(client, +1)
        else:
            self._watch.queued(client, -1)
            self._most_missed = max(self._most_missed, self._watch.missed(client) - self._begun.pop(client))

    def exceeded(self, output: int, units: int) -> None:
        """Note an output that is longer than what was set aside for it, by so many service units."""
        self.longest_output = max(self.longest_output, output)
        self.late = max(self.late, units)

    def charged(self, queue: int, client: Client, units: int) -> None:
        """Note what a queue's policy was told to charge (negative: to give back)."""
        if client in self._followed:
            self._watch.charged(queue, client, units)

    def corrected(self, client: Client, *, late: int = 0, given_back: int = 0, kept: int = 0) -> None:
        """Note how wrong the estimates of a request were."""
        self.late = max(self.late, late)
        self.given_back = max(self.given_back, given_back)
        if kept and client in self._followed:
            self._kept[client] = self._kept.get(client, 0) + kept

    # Queries.

    @property
    def missed_refills(self) -> int:
        """The most refills that a client missed while it had requests waiting without a break."""
        now = (self._watch.missed(client) - begun for client, begun in self._begun.items())
        return max(self._most_missed, *now, 0)

    def bound(self) -> Bound | None:
        """Return what is promised for the history so far; None where no theorem applies.

        None, too, after a policy has failed, or has offered nobody: then arrival order decided.
        """
        queues = self._queues
        if not self.longest_prompt or not queues:
            return None
        if any(queue.policy.failed or queue.stalls for queue in queues.values()):
            return None
        weights = {**self._config.weights, **dict.fromkeys(_ANY, self._config.default_weight)}
        most = [max(queue.most_inside, self._most_inside[name], 1) for name, queue in queues.items()]
        found = cluster_guarantee(
            self._config, [self._engine(inside) for inside in most], weights, Arrangement(kind="routed")
        )
        assert found is not None
        pair = lightest_pair(weights)
        return Bound(
            found.bound.exact,
            Fraction(self.missed_refills * self._config.quantum),
            self._of_estimates(most, pair),
        )

    def _engine(self, inside: int) -> Engine:
        prompt, output = self.longest_prompt, max(self.longest_output, 1)
        return Engine(
            reservation="full",
            kv_tokens=(prompt + output) * inside,
            max_running=inside,
            longest_input=prompt,
            longest_output=output,
        )

    def _of_estimates(self, most: Sequence[int], pair: tuple[int, int]) -> Fraction:
        of_queues = sum(
            pair_gap(debt=(inside - 1) * self.late, excess=inside * self.given_back, quantum=0, weights=pair)
            for inside in most
        )
        kept = max(self._kept.values(), default=0)
        return of_queues + pair_gap(debt=kept, excess=0, quantum=0, weights=pair)

    # State.

    def dump(self) -> dict[str, Any]:
        """Return what debts that survive a restart may have come from, as plain data."""
        inside = {name: max(queue.most_inside, self._most_inside[name]) for name, queue in self._queues.items()}
        return {name: getattr(self, name) for name in _SAVED} | {"most_inside": inside}

    def load(self, data: Mapping[str, Any]) -> None:
        """Read back what `dump` returned."""
        for name in _SAVED:
            setattr(self, name, max(getattr(self, name), data.get(name, 0)))
        for name, inside in data.get("most_inside", {}).items():
            if name in self._most_inside:
                self._most_inside[name] = inside


_SAVED = ("longest_prompt", "longest_output", "late", "given_back")


class _Refills:
    """A hosted policy as it is watched: figures that it cannot give any more do not matter."""

    def __init__(self, policy: HostedPolicy) -> None:
        self._policy = policy

    @property
    def rounds(self) -> int:
        return self._policy.rounds or 0

    def deficit(self, client: Client) -> int:
        return self._policy.deficit(client) or 0
