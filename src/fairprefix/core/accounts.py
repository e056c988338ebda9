"""The bounded table of client accounts.

A client's debt must outlive its idleness: erased debt could be run up again and again (docs/theory.md). Names
are invented by clients, though, so the table has a capacity. An idle account is dropped only when dropping it
gives nothing away; while the table is full, further names share one overflow account that keeps the worst debt
of all who use it, and a name that gets an account of its own later starts from that debt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from fairprefix.core.errors import HostError
from fairprefix.core.lane import Lane
from fairprefix.core.request import Client

OVERFLOW = ""
"""Key of the shared account; no client can have it, because a client's name is never empty."""

_LOOK_AT_MOST = 8


class Account:
    """What a policy keeps about one client."""

    __slots__ = ("balance", "key", "lane", "live", "outstanding", "weight")

    key: str
    weight: int
    lane: Lane
    balance: int
    outstanding: int
    live: int

    def __init__(self, key: str, weight: int, lane: Lane, balance: int = 0) -> None:
        self.key = key
        self.weight = weight
        self.lane = lane
        self.balance = balance
        """DLPM: the deficit counter q. VTC: the virtual counter, in units of 1/scale."""
        self.outstanding = 0
        """Output tokens that its running and held requests may still produce (reserved minus produced)."""
        self.live = 0
        """Its requests that are not finished."""


A = TypeVar("A", bound=Account)


class AccountTable(Generic[A]):
    """At most `capacity` accounts and the overflow account.

    Complexity: O(1) for every operation; at most 8 idle accounts are looked at to make room.
    """

    def __init__(self, capacity: int, open_account: Callable[[str], A], forgettable: Callable[[A], bool]) -> None:
        self._capacity = capacity
        self._open = open_account
        self._forgettable = forgettable
        self.by_key: dict[str, A] = {}
        """To look accounts up in; only the table changes it."""
        self._idle: dict[str, None] = {}
        self._sharing: dict[Client, int] = {}

    def __getitem__(self, key: str) -> A:
        return self.by_key[key]

    def __contains__(self, key: str) -> bool:
        return key in self.by_key

    def __iter__(self) -> Iterator[A]:
        return iter(self.by_key.values())

    def __len__(self) -> int:
        return len(self.by_key)

    def find(self, client: Client) -> A | None:
        """Return the account that pays for a client's live requests, or its own account, or None."""
        return self.by_key.get(OVERFLOW if client in self._sharing else client)

    def producers(self, tokens: Mapping[Client, int]) -> list[tuple[A, int]]:
        """Return the accounts that pay for output tokens, and how many.

        Raises:
            HostError: a client has no live request that could have produced them.
        """
        paying: list[tuple[A, int]] = []
        by_key, sharing = self.by_key, self._sharing
        for client, count in tokens.items():
            account = by_key.get(OVERFLOW if client in sharing else client)
            if account is None or not account.live:
                raise HostError(f"client {client!r} has no request that could have produced {count} tokens")
            paying.append((account, count))
        return paying

    def enlist(self, client: Client) -> A:
        """Return the account that pays for a new request of `client`, and count the request."""
        account = self.find(client) or self._new(client)
        if account.key == OVERFLOW:
            self._sharing[client] = self._sharing.get(client, 0) + 1
        account.live += 1
        self._idle.pop(account.key, None)
        return account

    def release(self, account: A, client: Client) -> None:
        """Count out a finished request."""
        account.live -= 1
        if not account.live:
            self._idle[account.key] = None
        if account.key == OVERFLOW:
            self._sharing[client] -= 1
            if not self._sharing[client]:
                del self._sharing[client]

    def idle_keys(self) -> list[str]:
        """Return the keys of idle accounts, in the order in which they are considered for dropping."""
        return list(self._idle)

    def dump(self, saved: tuple[str, ...]) -> dict[str, Any]:
        """Return the table as plain data; `saved` names the attributes that matter besides key and turn."""
        return {
            "accounts": [
                {"key": account.key, "live": account.live, "turn": account.lane.turn}
                | {name: getattr(account, name) for name in saved}
                for account in self
            ],
            "idle": list(self._idle),
            "sharing": dict(self._sharing),
        }

    def load(self, data: Mapping[str, Any]) -> None:
        """Read back what `dump` returned."""
        for saved in data["accounts"]:
            account = self._add(saved["key"])
            account.lane.turn = saved["turn"]
            for name in saved.keys() - {"key", "turn"}:
                setattr(account, name, saved[name])
        self._idle = dict.fromkeys(data["idle"])
        self._sharing = dict(data["sharing"])

    def _new(self, client: Client) -> A:
        overflow = self.by_key.get(OVERFLOW)
        own = len(self.by_key) - (overflow is not None)
        if own >= self._capacity and not self._make_room():
            return overflow or self._add(OVERFLOW)
        if overflow and not overflow.live and self._forgettable(overflow):
            self._drop(OVERFLOW)
        return self._add(client)

    def _add(self, key: str) -> A:
        account = self.by_key[key] = self._open(key)
        return account

    def _drop(self, key: str) -> None:
        del self.by_key[key], self._idle[key]

    def _make_room(self) -> bool:
        """Drop one idle account that can be forgotten; those that cannot go to the end of the line."""
        for key in [key for key, _ in zip(self._idle, range(_LOOK_AT_MOST), strict=False)]:
            if key != OVERFLOW and self._forgettable(self.by_key[key]):
                self._drop(key)
                return True
            del self._idle[key]
            self._idle[key] = None
        return False
