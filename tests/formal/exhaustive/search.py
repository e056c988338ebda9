"""Breadth-first search over all states of a world, and the exact supremum of the gap over all intervals."""

from __future__ import annotations

from collections import deque

import numpy as np
from attrs import define, frozen

from fairprefix.core.bounds import Bound, CounterRange
from fairprefix.core.catalog import make_policy, restore_policy
from fairprefix.core.dlpm import DLPM
from tests.formal.exhaustive.world import Key, Make, Scope, World, new_world

F, G = "f", "g"
UNBOUNDED = 10**6
_VALIDATED_EVERY, _COMPARED_EVERY = 7, 497


@define
class Edges:
    """Transitions along which a gap may grow: from, to, and by how much f gains on g."""

    sources: list[int]
    targets: list[int]
    gains: list[int]

    def add(self, source: int, target: int, gain: int) -> None:
        """Note a transition."""
        self.sources.append(source)
        self.targets.append(target)
        self.gains.append(gain)

    def supremum(self, states: int, sign: int, give_up: int) -> int:
        """Return the largest total gain over all walks, exactly; `UNBOUNDED` when it exceeds `give_up`.

        Dynamic programming: the best walk that ends in a state extends a best walk that ends in one before it.
        """
        if not self.sources:
            return 0
        order = np.argsort(self.targets, kind="stable")
        sources, targets = np.asarray(self.sources)[order], np.asarray(self.targets)[order]
        gains = sign * np.asarray(self.gains)[order]
        reached, starts = np.unique(targets, return_index=True)
        best = np.zeros(states, dtype=np.int64)
        while True:
            longer = np.maximum.reduceat(best[sources] + gains, starts)
            improved = longer > best[reached]
            if not improved.any():
                return int(best.max())
            if longer.max() > give_up:
                return UNBOUNDED
            best[reached] = np.maximum(best[reached], longer)


@frozen(kw_only=True)
class Result:
    """What a search has found."""

    scope: Scope
    states: int
    transitions: int
    kinds_of_action: frozenset[str]
    returns_in_debt: int
    """Arrivals of a client that had no request left, and a counter below 0."""
    lowest: int
    """Smallest counter, and smallest counter less the outstanding output."""
    lowest_committed: int
    highest: int
    both_backlogged: int
    """Largest gap over an interval in which f and g were both backlogged, times both weights."""
    f_backlogged: int
    """Largest lead of g over f while f was backlogged, times both weights."""

    def scaled(self, bound: Bound) -> int:
        """Return a bound in the unit of the gaps."""
        weight = self.scope.config.weight
        scaled = bound.exact * weight(F) * weight(G)
        assert scaled.denominator == 1
        return scaled.numerator

    def check(self, *, pair: Bound, against_any: Bound, counters: CounterRange | None = None) -> None:
        """Check everything that was found against what is promised."""
        weights = self.scope.config.weight(F) * self.scope.config.weight(G)
        for bound, found in ((pair, self.both_backlogged), (against_any, self.f_backlogged)):
            strict = bound.relation == "<"
            assert found < bound.exact * weights or (not strict and found == bound.exact * weights), bound
        if counters is not None:
            for counter in (self.lowest, self.highest):
                assert counter in counters, counter


def explore(scope: Scope, *, make: Make = make_policy, give_up: int = 10_000, most: int = 300_000) -> Result:
    """Visit every state that can be reached, of the policy that `make` returns.

    Raises:
        AssertionError: the policy's own `validate` fails, a state that should be the same after snapshot and
            restore is not, an idle engine refuses to start anything, or there are more than `most` states.
    """
    return _Search(scope, make, most).run(give_up)


class _Search:
    def __init__(self, scope: Scope, make: Make, most: int) -> None:
        self._scope, self._most = scope, most
        first = new_world(scope, make)
        self._found: dict[Key, int] = {first.key(): 0}
        self._frontier = deque([first])
        self._both, self._alone = Edges([], [], []), Edges([], [], [])
        self._lowest = self._lowest_committed = self._highest = 0
        self._transitions = self._returns = 0
        self._happened: set[str] = set()

    def run(self, give_up: int) -> Result:
        """Expand states until none is left."""
        source = 0
        while self._frontier:
            self._expand(self._frontier.popleft(), source)
            source += 1
        return Result(
            scope=self._scope,
            states=len(self._found),
            transitions=self._transitions,
            kinds_of_action=frozenset(self._happened),
            returns_in_debt=self._returns,
            lowest=self._lowest,
            lowest_committed=self._lowest_committed,
            highest=self._highest,
            both_backlogged=max(self._both.supremum(source, sign, give_up) for sign in (1, -1)),
            f_backlogged=self._alone.supremum(source, -1, give_up),
        )

    def _expand(self, world: World, source: int) -> None:
        before = (world.backlogged(F), world.backlogged(G), world.rounds())
        waits = any(world.backlogged(client) for client in self._scope.kinds)
        idle = not world.runs and not world.held
        actions = list(world.actions())
        started = False
        for action in actions:
            after = world if action is actions[-1] else world.copy()
            if after.do(action):
                started = started or action[0] == "admit"
                self._happened.add(action[0])
                self._returns += action[0] == "arrive" and after.returned_in_debt(action[1])
                self._note(source, after, *before)
            else:
                after.discard()
        assert started or not idle or not waits, (
            f"{self._scope.name}: idle in state {source}, though somebody waits"
        )

    def _note(self, source: int, after: World, f_before: bool, g_before: bool, rounds: int) -> None:  # noqa: FBT001
        """Enter a transition, and the state that it leads to if that is new."""
        self._transitions += 1
        weight = self._scope.config.weight
        gain = after.served.get(F, 0) * weight(G) - after.served.get(G, 0) * weight(F)
        if isinstance(after.policy, DLPM):
            # An interval goes on as long as nobody of interest misses a refill.
            f_stays = f_before or after.rounds() == rounds
            g_stays = g_before or after.rounds() == rounds
        else:
            f_stays = f_before and after.backlogged(F)
            g_stays = g_before and after.backlogged(G)
        key = after.key()
        target = self._found.get(key)
        if target is None:
            target = self._found[key] = len(self._found)
            assert target < self._most, f"{self._scope.name}: more than {self._most} states"
            self._inspect(after, target)
            self._frontier.append(after)
        else:
            after.discard()
        if f_stays:
            self._alone.add(source, target, gain)
            if g_stays:
                self._both.add(source, target, gain)

    def _inspect(self, world: World, number: int) -> None:
        policy = world.policy
        if number % _VALIDATED_EVERY == 0:
            policy.validate()
        if number % _COMPARED_EVERY == 0:
            restored = restore_policy(policy.snapshot(), world.own_index())
            assert restored.canonical() == policy.canonical() == world.copy().policy.canonical()
        if isinstance(policy, DLPM):
            for client in self._scope.kinds:
                q = policy.deficit(client)
                self._lowest, self._highest = min(self._lowest, q), max(self._highest, q)
                self._lowest_committed = min(self._lowest_committed, q - policy.outstanding(client))
