"""A bound watched live, in bounded memory: for engines, adapters and the test kit.

It is told what the ledger is told, and keeps no history. For the pairs among the first `top` clients that it hears
of, it knows exactly the largest gap over all intervals in which both were backlogged: a gap over an interval is
the difference of two values of the walk W_f/weight_f - W_g/weight_g, so the lowest and highest value of the walk
since both are backlogged are all that has to be kept. For every other pair it gives an upper bound: see
`fairprefix.core.gaps`, whose virtual service V it follows.

Cost: O(top) for each charge of a client that is followed exactly, O(1) for others; O(top) for a client that goes,
O(clients backlogged) for one that comes and for `others_at_most`. Memory: O(top^2 + clients backlogged).
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import ceil

from attrs import define, frozen

from fairprefix.core.bounds import Bound, dlpm_a_posteriori
from fairprefix.core.cost import CostWeights
from fairprefix.core.errors import HostError, at_least, nearest, reject
from fairprefix.core.ledger import View
from fairprefix.core.request import Client

_VIRTUAL_SCALE = 1 << 20
"""V is kept in this fraction of a service unit; it sets how tight the upper bound is, not whether it holds."""

__all__ = ["BoundMonitor", "LiveGap"]


@frozen
class LiveGap:
    """The largest gap so far of any pair that is followed exactly."""

    exact: Fraction = Fraction(0)
    """Service units per unit of weight."""
    ahead: Client | None = None
    """Who was ahead; None while no gap was seen."""
    behind: Client | None = None
    at: int = 0
    """When it became that large."""

    @property
    def value(self) -> int:
        """The gap rounded up."""
        return ceil(self.exact)


@define(eq=False)
class _Stay:
    """One backlogged interval of a client, in relation to V (see `fairprefix.core.gaps`)."""

    weight: int
    opened_at: int
    """V when it began."""
    lead: int = 0
    """What the client was served since, scaled like V."""
    lowest: int = 0
    """Least distance, service minus weight * V, both since the stay began."""
    highest: int = 0


@define(eq=False)
class _Pair:
    """The walk of two followed clients since both are backlogged, scaled by both weights."""

    lowest: int
    highest: int


class BoundMonitor:
    """Watches the gaps of backlogged clients, and how they compare with a bound.

    Args:
        cost: what a token costs.
        weights: of the clients.
        default_weight: of a client that is not among them.
        bound: what is promised, for any two clients; None when nothing is.
        quantum: DLPM's quantum; without it there is no a-posteriori bound.
        overdraft: how far below 0 a client may still be admitted.
        view: in which service gaps are counted.
        top: how many clients are followed exactly, by the order in which they are heard of.

    Raises:
        ConfigError: a number is outside its range.
    """

    largest_gap: LiveGap

    def __init__(
        self,
        cost: CostWeights,
        *,
        weights: Mapping[Client, int] | None = None,
        default_weight: int = 1,
        bound: Bound | None = None,
        quantum: int | None = None,
        overdraft: int = 0,
        view: View = View.ACTUAL,
        top: int = 32,
    ) -> None:
        self.cost = cost
        self.bound = bound
        self.largest_gap = LiveGap()
        """The largest gap so far among the clients that are followed exactly."""
        self._weights = {client: at_least(f"weights[{client!r}]", w, 1) for client, w in (weights or {}).items()}
        self._default_weight = at_least("default_weight", default_weight, 1)
        self._quantum = None if quantum is None else at_least("quantum", quantum, 1)
        self._overdraft = at_least("overdraft", overdraft, 0)
        self._view = view
        self._top = at_least("top", top, 0)
        self._served: dict[Client, int] = {}
        """Service units of the clients that are followed exactly."""
        self._pairs: dict[tuple[Client, Client], _Pair] = {}
        """Pairs of followed clients that are both backlogged, in the order in which they are heard of."""
        self._stays: dict[Client, _Stay] = {}
        """Who is backlogged now."""
        self._virtual = 0
        self._present = 0
        self._spread_of_followed = Fraction(0)
        self._spread_of_others = Fraction(0)
        self._others_met = False
        self._longest_prompt = 0
        self._largest_hold = 0
        self._lightest: dict[Client, int] = {}
        """Weights of the two lightest clients seen."""
        self._now: int | None = None

    # Events: those of `fairprefix.core.ledger.Ledger`.

    def backlogged(self, client: Client, at: int) -> None:
        """Note that a client has a request queued from now on; again is no change."""
        self._move_on(at)
        if client in self._stays:
            return
        weight = self._meet(client)
        self._others_met |= bool(self._stays) and self._is_other_pair(client)
        self._stays[client] = _Stay(weight, self._virtual)
        self._present += weight
        for other in self._followed_partners(client):
            pair = self._key(client, other)
            level = self._level(pair)
            self._pairs[pair] = _Pair(level, level)

    def idle(self, client: Client, at: int) -> None:
        """Note that a client has no request queued from now on; again is no change."""
        self._move_on(at)
        if client not in self._stays:
            return
        for other in self._followed_partners(client):
            del self._pairs[self._key(client, other)]
        self._remember(client)
        self._present -= self._stays.pop(client).weight

    def admitted(
        self, client: Client, at: int, *, input_tokens: int, extend: int, charged: int, hold: int = 0
    ) -> None:
        """Note that a request was admitted for the first time.

        Args:
            client: whose it is.
            at: the instant.
            input_tokens: length of its prompt.
            extend: prompt tokens that have to be computed.
            charged: service units that the policy took for it.
            hold: h of the client right after the admission: output that its admitted requests may still be
                charged, in service units. Only the a-posteriori bound needs it.

        Raises:
            ConfigError: a negative figure.
            HostError: time went backwards.
        """
        units = self.sized(input_tokens=input_tokens, extend=extend, charged=charged, hold=hold)
        self._charge(client, at, units)

    def sized(self, *, input_tokens: int, extend: int, charged: int, hold: int = 0) -> int:
        """Note the sizes of an admission, for the a-posteriori bound, and return its service units in this view.

        For hosts that hand in the units of several admissions with `charged_together`; see `admitted`.

        Raises:
            ConfigError: a negative figure.
        """
        if min(input_tokens, extend, charged, hold) < 0:
            given = {"input_tokens": input_tokens, "extend": extend, "charged": charged, "hold": hold}
            name, value = next((name, value) for name, value in given.items() if value < 0)
            raise reject(f"admitted: {name}", value, "an integer >= 0")
        self._longest_prompt = max(self._longest_prompt, extend)
        self._largest_hold = max(self._largest_hold, hold)
        if self._view is View.CHARGED:
            return charged
        return self.cost.service(extend if self._view is View.ACTUAL else input_tokens, 0)

    def produced(self, client: Client, at: int, tokens: int) -> None:
        """Note output tokens, also of a client that has nothing queued any more.

        Raises:
            ConfigError: a negative number of tokens.
            HostError: time went backwards.
        """
        self._charge(client, at, self.cost.service(0, at_least("produced: tokens", tokens, 0)))

    def produced_together(self, tokens: Mapping[Client, int], at: int) -> None:
        """Note output tokens of several clients that count as one event; see `charged_together`.

        Raises:
            ConfigError: a negative number of tokens; nothing changes then.
            HostError: time went backwards.
        """
        for client, count in tokens.items():
            at_least(f"produced_together[{client!r}]", count, 0)
        self.charged_together({client: self.cost.service(0, count) for client, count in tokens.items()}, at)

    def charged_together(self, units: Mapping[Client, int], at: int) -> None:
        """Note service units of several clients that count as one event: the gaps are looked at once, afterwards.

        For a step in which many clients are served, or for a few steps at a time: between two looks a gap can
        exceed what is seen by what was charged in between, never fall short of it. O(clients + top^2).

        Raises:
            HostError: time went backwards.
        """
        self._move_on(at)
        for client, amount in units.items():
            self._meet(client)
            if client in self._served:
                self._served[client] += amount
            if client in self._stays:
                self._advance(self._stays[client], amount)
        for pair in self._pairs:
            if pair[0] in units or pair[1] in units:
                self._widen(pair, at)

    # Queries.

    def gap_of(self, first: Client, second: Client) -> Fraction:
        """Return the largest gap of two clients within their present common stay; 0 when there is none.

        Raises:
            HostError: one of them is not followed exactly.
        """
        for client in (first, second):
            if client not in self._served and len(self._served) >= self._top:
                hint = nearest(client, self._served)
                raise HostError(f"client {client!r} is not followed exactly{hint}: the first {self._top} are")
        pair = self._pairs.get(self._key(first, second))
        if pair is None:
            return Fraction(0)
        return Fraction(pair.highest - pair.lowest, self._weight(first) * self._weight(second))

    @property
    def others_at_most(self) -> int:
        """Upper bound on the gap of every pair that is not followed exactly; 0 when there was none."""
        if not self._others_met:
            return 0
        for client in self._stays:
            self._remember(client)
        return ceil(self._spread_of_others + max(self._spread_of_followed, self._spread_of_others))

    @property
    def a_posteriori(self) -> Bound | None:
        """DLPM's bound (published gate) from the largest prompt and hold seen; None without a quantum."""
        if self._quantum is None:
            return None
        return dlpm_a_posteriori(
            self.cost,
            self._quantum,
            longest_prompt_seen=self._longest_prompt,
            largest_hold_seen=self._largest_hold,
            weights=(*self._lightest.values(), *2 * (self._default_weight,))[:2],
            overdraft=self._overdraft,
        )

    @property
    def bound_ratio(self) -> Fraction | None:
        """Largest gap divided by the bound that was promised; None without a promise."""
        return None if self.bound is None else self.largest_gap.exact / self.bound.exact

    @property
    def violated(self) -> bool:
        """Whether the largest gap contradicts the bound that was promised."""
        return self.bound is not None and not self.bound.admits(self.largest_gap.exact)

    # Helpers.

    def _move_on(self, at: int) -> None:
        if self._now is not None and at < self._now:
            raise HostError(f"time went backwards: an event at {at} after one at {self._now}")
        self._now = at

    def _weight(self, client: Client) -> int:
        return self._weights.get(client, self._default_weight)

    def _meet(self, client: Client) -> int:
        """Follow a client exactly if there is room for one more; return its weight."""
        weight = self._weight(client)
        if client not in self._served and len(self._served) < self._top:
            self._served[client] = 0
        if client not in self._lightest:
            self._lightest[client] = weight
            if len(self._lightest) > 2:  # noqa: PLR2004 (a pair is two)
                del self._lightest[max(self._lightest, key=self._weight)]
        return weight

    def _charge(self, client: Client, at: int, units: int) -> None:
        self._move_on(at)
        self._meet(client)
        if client in self._served:
            self._served[client] += units
        stay = self._stays.get(client)
        if stay is not None:
            for other in self._followed_partners(client):
                self._widen(self._key(client, other), at)
            self._advance(stay, units)

    def _advance(self, stay: _Stay, units: int) -> None:
        """Move V on for a charge within a stay; the lowest point lies just before a charge, the highest after."""
        stay.lowest = min(stay.lowest, self._distance(stay))
        scaled = units * _VIRTUAL_SCALE
        stay.lead += scaled
        self._virtual += scaled // self._present
        stay.highest = max(stay.highest, self._distance(stay))

    def _distance(self, stay: _Stay) -> int:
        return stay.lead - stay.weight * (self._virtual - stay.opened_at)

    def _spread(self, client: Client) -> Fraction:
        stay = self._stays[client]
        lowest = min(stay.lowest, self._distance(stay))
        return Fraction(stay.highest - lowest, stay.weight * _VIRTUAL_SCALE)

    def _remember(self, client: Client) -> None:
        spread = self._spread(client)
        if client in self._served:
            self._spread_of_followed = max(self._spread_of_followed, spread)
        else:
            self._spread_of_others = max(self._spread_of_others, spread)

    def _is_other_pair(self, client: Client) -> bool:
        """Return whether `client`, which has just come, makes a pair that is not followed exactly."""
        return client not in self._served or any(other not in self._served for other in self._stays)

    def _followed_partners(self, client: Client) -> list[Client]:
        """Return the other followed clients that are backlogged, if `client` is followed itself."""
        if client not in self._served:
            return []
        return [other for other in self._served if other != client and other in self._stays]

    def _key(self, first: Client, second: Client) -> tuple[Client, Client]:
        return (first, second) if first < second else (second, first)

    def _level(self, pair: tuple[Client, Client]) -> int:
        first, second = pair
        return self._served[first] * self._weight(second) - self._served[second] * self._weight(first)

    def _widen(self, pair: tuple[Client, Client], at: int) -> None:
        """Move on the walk of a pair: at its highest the first is ahead by the whole range, else the second."""
        walk, level = self._pairs[pair], self._level(pair)
        walk.lowest, walk.highest = min(walk.lowest, level), max(walk.highest, level)
        first, second = pair
        units = self._weight(first) * self._weight(second)
        largest = self.largest_gap.exact
        if (walk.highest - walk.lowest) * largest.denominator > largest.numerator * units:
            ahead, behind = pair if level == walk.highest else (second, first)
            self.largest_gap = LiveGap(Fraction(walk.highest - walk.lowest, units), ahead, behind, at)
