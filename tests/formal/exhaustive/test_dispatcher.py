"""Every state of D2LPM's dispatcher in small configurations, on the shipping class."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from fairprefix.core.d2lpm import D2LPM, DispatchAccount
from fairprefix.core.request import Request
from fairprefix.core.router_config import RouterConfig
from fairprefix.core.workers import Worker
from tests.formal.exhaustive.dispatcher import Kind, Result, Scope, explore
from tests.formal.report import EXHAUSTIVE


def _scope(name: str, *kinds: Kind, extras: str = "", live: int = 2, **settings: Any) -> Scope:  # noqa: ANN401
    both = "clients" in name
    return Scope(
        name=f"D2LPM, {name}",
        config=RouterConfig(**{"quantum": 2, "cost_output": 1, "block_size": 1, **settings}),
        kinds={"f": kinds, "g": kinds[-1:]} if both else {"f": kinds},
        workers=("u", "v", "w") if "three" in name else ("u", "v"),
        blocks=1,
        live=live,
        extras=frozenset(extras.split()),
    )


HOT, COLD, LONG = Kind(2, 1, (1,)), Kind(1, 1, (3,)), Kind(1, 2, (1,))
SCOPES = {
    scope.name: scope
    for scope in (
        _scope("as published", HOT, COLD),
        _scope("two clients", HOT, live=1, quantum=1),
        _scope("extend charged", HOT, COLD, prompt_charge="extend"),
        _scope("longest output in advance", HOT, LONG, output_charge="max"),
        _scope("usual output in advance", LONG, output_charge="average"),
        _scope("refunds", HOT, extras="refund", output_charge="max"),
        _scope("suspended", HOT, COLD, extras="suspend", live=1),
        _scope("leave and join", HOT, COLD, extras="leave refund", live=1),
        _scope("three workers", HOT, live=2),
        _scope("two clients of weights 1 and 2", COLD, weights={"g": 2}, live=1, quantum=1),
    )
}


@cache
def result(name: str) -> Result:
    """Search a scope, once a session."""
    found = explore(SCOPES[name])
    lowest = f"> {-_debt(SCOPES[name])}"
    EXHAUSTIVE.add(name, f"{found.states:,}", f"{found.transitions:,}", found.lowest, lowest, "", "", "", "")
    return found


def _debt(scope: Scope) -> int:
    """Return what a counter stays above the negative of.

    The last dispatch is decided with credit and costs its prompt; what is out may cost its output besides.
    """
    most_output = max(kind.output for kinds in scope.kinds.values() for kind in kinds)
    longest = max(kind.prompt for kinds in scope.kinds.values() for kind in kinds)
    return scope.config.cost.service(longest, scope.live * most_output)


@pytest.mark.parametrize("name", SCOPES)
def test_no_transition_breaks_the_rule(name: str) -> None:
    """All states were visited: the worker chosen, the refills and the charges are those of Algorithm 2."""
    scope, found = SCOPES[name], result(name)
    assert -_debt(scope) < found.lowest < 0
    # What is given back may lift a counter above a quantum: the charges of all requests that are out.
    given_back = scope.live * scope.dearest() if "refund" in scope.extras or "advance" in name else 0
    assert found.highest <= scope.config.quantum + given_back
    assert found.highest == scope.config.quantum or given_back


def test_a_refund_can_lift_a_counter_above_a_quantum() -> None:
    """The term R of the range is needed: a client is refilled while charges are out that are given back later."""
    assert result("D2LPM, refunds").highest > SCOPES["D2LPM, refunds"].config.quantum


def test_enough_was_searched() -> None:
    """Every sort of event is among the transitions."""
    found = [result(name) for name in SCOPES]
    assert sum(one.states for one in found) > 5_000
    happened = frozenset[str]().union(*(one.kinds_of_action for one in found))
    assert happened == {"pick", "settle", "refund", "suspend", "resume", "leave", "join"}


# Controls: the search has to be able to say no.


class _Sticky(D2LPM):
    """Looks for the longest match first, and for credit only among those that have it."""

    def _choose(self, request: Request, among: int, now: int) -> tuple[Worker, int | None]:
        super()._choose(request, among, now)
        depth, holders = self.index.match(request.blocks, request.namespace, among)
        return self.workers.least_loaded(holders), depth


class _ToppedUp(D2LPM):
    """Refills suspended workers as well that have credit."""

    def _rounds_due(self, account: DispatchAccount, worker: Worker) -> int:
        return max(1, super()._rounds_due(account, worker))


class _Double(D2LPM):
    """Charges again whenever it is asked again."""

    def pick(self, request: Request, **others: Any) -> Any:  # noqa: ANN401
        if request.id in self._dispatched:
            self._spend(self._accounts[request.client], self._dispatched[request.id], 1)
        return super().pick(request, **others)


@pytest.mark.parametrize(
    ("make", "name", "complaint"),
    [
        (_Sticky, "as published", "was chosen"),
        (_ToppedUp, "suspended", "the counters are not"),
        (_Double, "as published", "asking again"),
    ],
)
def test_a_dispatcher_that_is_wrong_is_found(make: type[D2LPM], name: str, complaint: str) -> None:
    """Locality without credit, credit that is topped up, and picks that are charged twice."""
    with pytest.raises(AssertionError, match=complaint):
        explore(SCOPES[f"D2LPM, {name}"], make=make)
