"""The deficit account of one client: pure arithmetic, no queue and no order.

q is the deficit counter, h the outstanding output in service units, Q the client's quantum. A refill round gives
Q to every client that is *due*. Rounds are counted, not carried out: each account remembers the round up to which
its counter is settled, and catches up in closed form when it is touched, so that 10 000 idle clients cost nothing.
"""

from __future__ import annotations

from fairprefix.core.accounts import Account
from fairprefix.core.lane import Lane


def rounds_until_above(value: int, threshold: int, quantum: int) -> int:
    """Return how many quanta bring `value` above `threshold`: the least n >= 0 with value + n*Q > threshold."""
    return max(0, (threshold - value) // quantum + 1)


class DeficitAccount(Account):
    """`balance` is the deficit counter q as of round `settled_at`."""

    __slots__ = ("quantum", "settled_at")

    balance: int
    quantum: int
    settled_at: int

    def __init__(self, key: str, weight: int, lane: Lane, balance: int, *, quantum: int, settled_at: int) -> None:
        super().__init__(key, weight, lane, balance)
        self.quantum = quantum
        """Q: weight times the quantum of the configuration."""
        self.settled_at = settled_at
        """Number of the refill round that the counter is up to date with."""

    def rounds_due(self, output_cost: int, slack: int | None) -> int:
        """Return after how many refill rounds the client is no longer due; 0 when it is not due now.

        With the published gate (`slack` None) a client is due while q <= 0. With the credit gate it is due
        while q - h <= 0 and q <= slack.
        """
        if slack is None:
            return 0 if self.balance > 0 else -self.balance // self.quantum + 1
        to_open = rounds_until_above(self.committed(output_cost), 0, self.quantum)
        return min(to_open, rounds_until_above(self.balance, slack, self.quantum))

    def committed(self, output_cost: int) -> int:
        """Return q - h; h counts nothing while predictions fall short of what is produced."""
        return self.balance - output_cost * self.outstanding if self.outstanding > 0 else self.balance

    def settle(self, round_now: int, output_cost: int, slack: int | None) -> None:
        """Apply the refills since the counter was last touched; nothing else has changed in between."""
        missed = round_now - self.settled_at
        self.balance += min(missed, self.rounds_due(output_cost, slack)) * self.quantum
        self.settled_at = round_now
