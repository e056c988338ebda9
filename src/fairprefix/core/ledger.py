"""What each client really received: service, gaps over co-backlogged intervals, Jain's index.

A host, or a test, tells the ledger what happened; the ledger never looks into a policy, so that it can judge
one. Recording an event takes constant time. Time is an opaque integer that never goes backwards (nanoseconds
of a virtual clock, steps, ...). Events of the same instant count in the order in which they are reported.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from enum import Enum
from fractions import Fraction
from math import ceil

from attrs import Factory, define, field, frozen

from fairprefix.core import gaps
from fairprefix.core.cost import CostWeights
from fairprefix.core.errors import HostError, at_least, nearest, reject
from fairprefix.core.request import Client


class View(Enum):
    """Which service is compared; output tokens count the same in all of them."""

    ACTUAL = "actual"
    """Prompt tokens that had to be computed: w_e * extend + w_q * output. The bounds are about this one."""
    CHARGED = "charged"
    """What the policy itself took from the account at admission, + w_q * output."""
    CLIENT = "client"
    """As the client sees it, cached or not: w_e * input + w_q * output (DLPM, arXiv 2501.14312, §6.1)."""


@frozen
class Service:
    """Everything that one client received so far, in tokens unless stated."""

    input_tokens: int
    """Prompt tokens of the requests admitted, cached or not."""
    extend: int
    """Prompt tokens that had to be computed."""
    output: int
    """Output tokens produced."""
    recomputed: int
    """Tokens computed again after a preemption: overhead of the engine, not service."""
    requests: int
    """Requests admitted."""
    charged: int
    """Service units that the policy took at admission."""

    def units(self, view: View, cost: CostWeights) -> int:
        """Return the service units received, in the `view` asked for."""
        if view is View.CHARGED:
            return self.charged + cost.service(0, self.output)
        prompt = self.extend if view is View.ACTUAL else self.input_tokens
        return cost.service(prompt, self.output)


@frozen
class Gap:
    """The largest |W_f/weight_f - W_g/weight_g| over any interval in which f and g stay backlogged."""

    value: int
    """Service units per unit of weight, rounded up."""
    exact_value: Fraction
    """The same without rounding."""
    first: Client | None
    """Who was ahead; None when no two clients were backlogged together, or their service never differed."""
    second: Client | None
    """Who was behind."""
    start: int
    """Instant at which the gap begins to grow; charges of that instant may precede it. 0 without a pair."""
    end: int
    """Instant of the last charge that counts; later charges of that instant do not. 0 without a pair."""
    others_at_most: int
    """Upper bound on the gap of every pair that was not examined exactly; 0 when there is none."""


@define
class _Account:
    """Running totals of one client (see `Service`), and when it was backlogged."""

    index: int
    weight: int
    input_tokens: int = 0
    extend: int = 0
    output: int = 0
    recomputed: int = 0
    requests: int = 0
    charged: int = 0
    opened: list[int] = Factory(list)
    """Instants at which it became backlogged."""
    closed: list[int] = Factory(list)
    """Instants at which it became idle: as many as `opened`, or one fewer while it is backlogged."""

    def is_backlogged(self) -> bool:
        return len(self.opened) > len(self.closed)


@define
class _Companionship:
    """The stretches of the history in which every client known was backlogged."""

    backlogged: int = 0
    """How many clients are backlogged now."""
    since: int | None = None
    """Order of the event from which on all of them are, or None."""
    stretches: list[tuple[int, int]] = Factory(list)
    """Orders of the first and the last event of each past stretch."""

    def stranger(self) -> None:
        """A client appears that nobody knew: until now not everybody was backlogged."""
        self.since = None
        self.stretches.clear()

    def joined(self, order: int, known: int) -> None:
        self.backlogged += 1
        if self.backlogged == known:
            self.since = order

    def left(self, order: int) -> None:
        self.backlogged -= 1
        if self.since is not None:
            self.stretches.append((self.since, order))
            self.since = None

    def until(self, order: int) -> list[tuple[int, int]]:
        return self.stretches if self.since is None else [*self.stretches, (self.since, order)]


@define
class _Admissions:
    """Admissions whose amount differs between the views."""

    orders: array[int] = Factory(lambda: array("q"))
    charged: array[int] = Factory(lambda: array("q"))
    client: array[int] = Factory(lambda: array("q"))


def _own_copy(weights: Mapping[Client, int] | None) -> dict[Client, int]:
    return dict(weights or {})


@define(eq=False, repr=False)
class Ledger:
    """What each client really received.

    Raises:
        ConfigError: a weight below 1.
    """

    cost: CostWeights = field(factory=CostWeights)
    """What a token is worth, in service units."""
    weights: Mapping[Client, int] = field(default=None, converter=_own_copy)
    """Share of each client in relation to the others; fixed from here on."""
    default_weight: int = 1
    """Weight of a client that is not in `weights`."""
    _accounts: dict[Client, _Account] = field(init=False, factory=dict)
    _companionship: _Companionship = field(init=False, factory=_Companionship)
    _admissions: _Admissions = field(init=False, factory=_Admissions)
    # The history, in order: whose event it is, and its service units or a marker of `gaps`.
    _owners: array[int] = field(init=False, factory=lambda: array("q"))
    _amounts: array[int] = field(init=False, factory=lambda: array("q"))
    # For each instant, the order of its first event: gives the time of any event by bisection.
    _instants: array[int] = field(init=False, factory=lambda: array("q"))
    _first_orders: array[int] = field(init=False, factory=lambda: array("q"))
    _now: int | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        """Refuse weights that cannot share anything out."""
        at_least("ledger.default_weight", self.default_weight, 1)
        for client, weight in self.weights.items():
            at_least(f"ledger.weights[{client!r}]", weight, 1)

    # -- events ---------------------------------------------------------------------------------------

    def backlogged(self, client: Client, at: int) -> None:
        """Record that the client has a request queued from now on; again is no change."""
        account = self._touch(client, at)
        if account.is_backlogged():
            return
        account.opened.append(at)
        self._companionship.joined(self._log(account, gaps.BACKLOGGED), len(self._accounts))

    def idle(self, client: Client, at: int) -> None:
        """Record that the client has no request queued from now on; again is no change."""
        account = self._touch(client, at)
        if not account.is_backlogged():
            return
        account.closed.append(at)
        self._companionship.left(self._log(account, gaps.IDLE))

    def admitted(self, client: Client, at: int, *, input_tokens: int, extend: int, charged: int) -> None:
        """Record that a request of the client was admitted for the first time.

        Args:
            client: whose request it is.
            at: the instant.
            input_tokens: length of its prompt.
            extend: prompt tokens that have to be computed.
            charged: service units that the policy took from the account for it.

        Raises:
            ConfigError: a negative figure.
            HostError: time went backwards.
        """
        at_least("admitted: input_tokens", input_tokens, 0)
        at_least("admitted: extend", extend, 0)
        at_least("admitted: charged", charged, 0)
        account = self._touch(client, at)
        account.input_tokens += input_tokens
        account.extend += extend
        account.charged += charged
        account.requests += 1
        self._admissions.orders.append(self._log(account, self.cost.service(extend, 0)))
        self._admissions.charged.append(charged)
        self._admissions.client.append(self.cost.service(input_tokens, 0))

    def produced(self, client: Client, at: int, tokens: int) -> None:
        """Record output tokens, also of a client that has nothing queued any more.

        Raises:
            ConfigError: a negative number of tokens.
            HostError: time went backwards.
        """
        if tokens < 0:
            raise reject("produced: tokens", tokens, "an integer >= 0")
        account = self._touch(client, at)
        self._log(account, tokens * self.cost.output)
        account.output += tokens

    def recomputed(self, client: Client, at: int, tokens: int) -> None:
        """Record tokens that were computed again after a preemption: overhead, not service.

        Raises:
            ConfigError: a negative number of tokens.
            HostError: time went backwards.
        """
        at_least("recomputed: tokens", tokens, 0)
        self._touch(client, at).recomputed += tokens

    # -- queries --------------------------------------------------------------------------------------

    def clients(self) -> tuple[Client, ...]:
        """Return every client seen, in the order of appearance."""
        return tuple(self._accounts)

    def service(self, client: Client) -> Service:
        """Return what a client received so far.

        Raises:
            HostError: nothing was ever recorded for that client.
        """
        account = self._known(client)
        return Service(
            input_tokens=account.input_tokens,
            extend=account.extend,
            output=account.output,
            recomputed=account.recomputed,
            requests=account.requests,
            charged=account.charged,
        )

    def backlogged_intervals(self, client: Client) -> list[tuple[int, int]]:
        """Return the half-open intervals [start, end) in which the client had a request queued.

        One that is still open ends at the last instant seen; those that took no time are left out.

        Raises:
            HostError: nothing was ever recorded for that client.
        """
        account = self._known(client)
        ends = [*account.closed, self._now or 0] if account.is_backlogged() else account.closed
        return [(start, end) for start, end in zip(account.opened, ends, strict=True) if start < end]

    def largest_gap(self, view: View = View.ACTUAL, top: int = 32) -> Gap:
        """Return the largest gap of any pair over any interval in which both stay backlogged.

        Exact over the pairs among the `top` clients that received most while backlogged; for all other
        pairs the result holds an upper bound (`fairprefix.core.gaps` tells how). Takes time linear in the
        number of events, and again in the number of charges of each pair looked at.

        Raises:
            ConfigError: a negative `top`.
        """
        at_least("top", top, 0)
        weights = [account.weight for account in self._accounts.values()]
        paths = gaps.follow(gaps.History(weights, self._owners, self._amounts_in(view)))
        chosen = gaps.most_served(paths, top)
        widest = gaps.widest_gap(paths, weights, chosen)
        found = widest.ahead is not None
        return Gap(
            value=ceil(widest.size),
            exact_value=widest.size,
            first=self._name(widest.ahead),
            second=self._name(widest.behind),
            start=self._time_of(widest.start) if found else 0,
            end=self._time_of(widest.end) if found else 0,
            others_at_most=gaps.bound_on_others(paths, chosen),
        )

    def all_backlogged_time(self) -> int:
        """Return for how long every client ever seen was backlogged, in the host's unit of time."""
        stretches = self._companionship.until(len(self._owners))
        return sum(self._time_of(end) - self._time_of(start) for start, end in stretches)

    def all_backlogged_services(self, view: View = View.ACTUAL) -> dict[Client, int]:
        """Return what each client received while every client ever seen was backlogged, in units."""
        received = [0] * len(self._accounts)
        amounts = self._amounts_in(view)
        for start, end in self._companionship.until(len(self._owners)):
            # The event that opens a stretch is the marker of whoever joined last: not a charge.
            inside = slice(start + 1, end)
            for owner, amount in zip(self._owners[inside], amounts[inside], strict=True):
                received[owner] += amount
        return dict(zip(self._accounts, received, strict=True))

    def all_backlogged_service(self, client: Client, view: View = View.ACTUAL) -> int:
        """Return what one client received while every client ever seen was backlogged, in units.

        Raises:
            HostError: nothing was ever recorded for that client.
        """
        self._known(client)
        return self.all_backlogged_services(view)[client]

    def jain(self, view: View = View.ACTUAL) -> Fraction | None:
        """Return Jain's index of the weighted service received while all clients were backlogged.

        None when all of them never were, or when nobody received anything in that time.
        """
        if not self.all_backlogged_time():
            return None
        received = self.all_backlogged_services(view)
        return jain_index(Fraction(received[c], a.weight) for c, a in self._accounts.items())

    # -- helpers --------------------------------------------------------------------------------------

    def _touch(self, client: Client, at: int) -> _Account:
        """Return the client's account, opened on first sight, after moving time on to `at`."""
        if at != self._now:
            self._move_on(at)
        return self._accounts.get(client) or self._open_account(client)

    def _move_on(self, at: int) -> None:
        if self._now is not None and at < self._now:
            raise HostError(f"time went backwards: an event at {at} after one at {self._now}")
        self._instants.append(at)
        self._first_orders.append(len(self._owners))
        self._now = at

    def _open_account(self, client: Client) -> _Account:
        weight = self.weights.get(client, self.default_weight)
        account = self._accounts[client] = _Account(len(self._accounts), weight)
        self._companionship.stranger()
        return account

    def _known(self, client: Client) -> _Account:
        if client not in self._accounts:
            hint = nearest(client, self._accounts)
            raise HostError(f"client {client!r} is unknown: nothing was recorded for it{hint}")
        return self._accounts[client]

    def _log(self, account: _Account, amount: int) -> int:
        """Append an event to the history and return its order."""
        self._amounts.append(amount)  # first: it refuses what is no 64-bit integer
        self._owners.append(account.index)
        return len(self._owners) - 1

    def _amounts_in(self, view: View) -> array[int]:
        if view is View.ACTUAL:
            return self._amounts
        amounts = self._amounts[:]
        admissions = self._admissions
        values = admissions.charged if view is View.CHARGED else admissions.client
        for order, value in zip(admissions.orders, values, strict=True):
            amounts[order] = value
        return amounts

    def _time_of(self, order: int) -> int:
        """Return when the event of that order happened; beyond the last one it is now."""
        return self._instants[bisect_right(self._first_orders, order) - 1]

    def _name(self, index: int | None) -> Client | None:
        return None if index is None else tuple(self._accounts)[index]


def jain_index(values: Iterable[int | Fraction]) -> Fraction | None:
    """Return Jain's fairness index (sum x)^2 / (n * sum x^2): 1 when all are equal, 1/n when one has all.

    None when there are no values, or when all of them are 0.

    Raises:
        ConfigError: a negative value.
    """
    shares = [Fraction(value) for value in values]
    if shares and min(shares) < 0:
        raise reject("a value of Jain's index", min(shares), "a number >= 0")
    squares = sum((share * share for share in shares), Fraction(0))
    return sum(shares, Fraction(0)) ** 2 / (len(shares) * squares) if squares else None
