"""Which bound a configuration is held against."""

from __future__ import annotations

import pytest

from fairprefix.core.bounds import Engine, credit_both_backlogged, dlpm_both_backlogged, vtc_both_backlogged
from fairprefix.core.config import POLICIES, PolicyConfig
from fairprefix.core.guarantee import guarantee
from fairprefix.core.ledger import View

ENGINE = Engine(reservation="none", kv_tokens=1000, max_running=8, longest_input=100, longest_output=50)
CLIENTS = ("a", "b", "c")


def test_alone_nobody_can_be_treated_unfairly() -> None:
    """A gap is between two."""
    assert guarantee(PolicyConfig(), ENGINE, ["a"]) is None


def test_dlpm_promises_the_bound_of_its_gate() -> None:
    """With overdraft, recomputation, slack and the weights of the two lightest clients in it."""
    weights = {"a": 3, "b": 2}
    config = PolicyConfig(quantum=7, weights=weights, default_weight=5, overdraft=11, recompute="charged")
    found = guarantee(config, ENGINE, CLIENTS)
    bound = dlpm_both_backlogged(ENGINE, config.cost, 7, weights=(2, 3), overdraft=11, recompute="charged")
    assert found is not None
    assert (found.bound, found.view, found.claimed) == (bound, View.ACTUAL, True)
    config = PolicyConfig(quantum=7, gate="credit", slack=13, recompute="charged")
    found = guarantee(config, ENGINE, CLIENTS)
    assert found is not None
    assert found.bound == credit_both_backlogged(
        ENGINE, config.cost, 7, slack=13, weights=(1, 1), recompute="charged"
    )


def test_vtc_promises_its_own_bound_on_what_it_charges() -> None:
    """Its counters grow by charges, which are not what was computed."""
    config = PolicyConfig(policy="vtc", weights={"a": 4, "b": 4, "c": 4})
    found = guarantee(config, ENGINE, CLIENTS)
    assert found is not None
    assert found.bound == vtc_both_backlogged(ENGINE, config.cost, weights=(4, 4))
    assert (found.view, found.claimed) == (View.CHARGED, True)


@pytest.mark.parametrize("policy", sorted({*POLICIES} - {"dlpm", "vtc"}))
def test_other_policies_are_held_against_what_dlpm_would_have_promised(policy: str) -> None:
    """They promise nothing themselves."""
    found, dlpm = (guarantee(PolicyConfig(policy=name), ENGINE, CLIENTS) for name in (policy, "dlpm"))
    assert found is not None
    assert dlpm is not None
    assert (found.bound, found.claimed) == (dlpm.bound, False)
