"""A worker's side of a shared ledger: what it checks, what it plans, and what is left of what was undone."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fairprefix.core.errors import ConfigError
from fairprefix.core.ledger_view import LedgerView
from fairprefix.core.policy import Refusal
from tests.core.test_shared_ledger import arrive, offered, shared


def running() -> LedgerView:
    """Return a view with request a1 running."""
    _, view, _v = shared()
    arrive(view, "a1", "a2")
    view.take("a1", extend=4, reserve=5)
    return view


NEGATIVE: dict[str, Callable[[LedgerView], object]] = {
    "limit": lambda view: view.plan(-1),
    "budget": lambda view: view.plan(1, budget=-1),
    "extend": lambda view: view.take("a2", extend=-1, reserve=0),
    "reserve": lambda view: view.take("a2", extend=0, reserve=-1),
    "output": lambda view: view.finish("a1", output=-1),
}


@pytest.mark.parametrize("name", NEGATIVE)
def test_a_negative_figure_is_named(name: str) -> None:
    """The error says which one it is, and nothing has changed."""
    view = running()
    before = view.canonical()
    with pytest.raises(ConfigError, match=f"^{name} = -1 .* integer >= 0"):
        NEGATIVE[name](view)
    assert view.canonical() == before


@pytest.mark.parametrize("name", ["extend", "reserve"])
def test_a_negative_correction_is_named(name: str) -> None:
    """An admission is corrected to a size, not to less than nothing."""
    _, view, _v = shared()
    arrive(view, "a1")
    receipt = view.take("a1", extend=4, reserve=5)
    with pytest.raises(ConfigError, match=f"^{name} = -1 .* integer >= 0"):
        view.amend(receipt, **{name: -1})
    assert getattr(view.amend(receipt, **{name: 0}), name) == 0


def test_nothing_is_a_figure() -> None:
    """A plan of nobody, a budget of no tokens, and an admission that computes nothing."""
    view = running()
    assert list(view.plan(0)) == list(view.plan(1, budget=0)) == []
    receipt = view.take("a2", extend=0, reserve=0)
    assert (receipt.extend, receipt.reserve, receipt.charged) == (0, 0, 0)


def test_a_receipt_says_what_was_admitted() -> None:
    """Request, client, sizes and charge."""
    _, view, _v = shared()
    arrive(view, "a1")
    receipt = view.take("a1", extend=4, reserve=5)
    found = (receipt.request, receipt.client, receipt.extend, receipt.reserve, receipt.charged)
    assert found == ("a1", "a", 4, 5, 4)


def test_a_budget_is_used_up_by_what_has_to_be_computed() -> None:
    """Of prompts of four tokens one is cached here: with a budget of four a second request is begun."""
    _, u, v = shared()
    arrive(u, "a1", "a2", "a3", path=(1,))
    assert [request.id for request in u.plan(9, budget=3)] == ["a1"]
    assert [request.id for request in u.plan(9, budget=4)] == ["a1", "a2"]
    assert [request.id for request in v.plan(9, budget=4)] == ["a1"]


def test_a_correction_is_reported_with_the_rest() -> None:
    """It is charged where the request was admitted."""
    ledger, u, _v = shared()
    arrive(u, "a1")
    u.amend(u.take("a1", extend=4, reserve=0), extend=3)
    ledger.report("u")
    assert (ledger.deficit("a"), ledger.unreported("a")) == (7, 0)


def test_an_admission_is_corrected_also_while_the_host_holds_the_request() -> None:
    """Its true size may become known after it was preempted."""
    ledger, u, _v = shared()
    arrive(u, "a1")
    receipt = u.take("a1", extend=4, reserve=5)
    u.preempt("a1", output=0, keep_hold=True)
    assert u.amend(receipt, reserve=1).reserve == 1
    ledger.validate()


def test_a_refunded_admission_leaves_no_trace() -> None:
    """The ledger is in the state that it was in, as far as anybody will ever see."""
    _, u, _v = shared()
    arrive(u, "a1", "a2")
    u.take("a2", extend=1, reserve=0)
    before = u.canonical()
    u.refund(u.take("a1", extend=4, reserve=5))
    assert u.canonical() == before


def test_a_request_that_comes_again_is_not_the_one_that_was_set_aside() -> None:
    """It is finished with its deferral: under the same name another one is offered at once."""
    _, u, _v = shared()
    arrive(u, "a1")
    u.defer("a1", Refusal.NO_ROOM)
    u.finish("a1", output=0)
    arrive(u, "a1")
    assert offered(u) == "a1"
