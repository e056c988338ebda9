"""Which bound applies to a run is the policy's own, or DLPM's for comparison, for the two lightest clients."""

from __future__ import annotations

import pytest

from fairprefix.core import bounds
from fairprefix.core.config import PolicyConfig
from fairprefix.core.guarantee import Guarantee, guarantee
from fairprefix.core.ledger import View
from tests.core.bound_cases import TINY, engine

FULL = engine()
WEIGHTS = {"b": 3, "c": 2}
CLIENTS = ("b", "c", "d", "c")


def told(policy: str, **settings: object) -> tuple[PolicyConfig, Guarantee]:
    """Return a configuration and what is promised for three clients of weights 3, 2 and 4."""
    config = PolicyConfig(policy=policy, quantum=50, weights=WEIGHTS, default_weight=4, **settings)  # type: ignore[arg-type]
    found = guarantee(config, FULL, CLIENTS)
    assert found is not None
    return config, found


def test_dlpm_promises_its_own_bound() -> None:
    """The published gate: weights, overdraft and quantum count, in computed service."""
    config, found = told("dlpm", overdraft=7)
    assert found.bound == bounds.dlpm_both_backlogged(FULL, config.cost, 50, weights=(2, 3), overdraft=7)
    assert (found.view, found.claimed) == (View.ACTUAL, True)


def test_the_credit_gate_promises_its_own_bound() -> None:
    """The credit gate: the slack counts, not the engine's memory."""
    config, found = told("dlpm", gate="credit", slack=30)
    assert found.bound == bounds.credit_both_backlogged(FULL, config.cost, 50, weights=(2, 3), slack=30)
    assert found.claimed


@pytest.mark.parametrize("gate", ["deficit", "credit"])
def test_charged_recomputation_widens_the_bound(gate: str) -> None:
    """What is charged for recomputed tokens is part of the promise, under both gates."""
    free = PolicyConfig(quantum=50, gate=gate, cost_extend=3)
    charged = PolicyConfig(quantum=50, gate=gate, cost_extend=3, recompute="charged")
    narrow, wide = guarantee(free, TINY, "ab"), guarantee(charged, TINY, "ab")
    assert narrow is not None
    assert wide is not None
    assert wide.bound.exact > narrow.bound.exact


def test_vtc_promises_on_what_it_charges() -> None:
    """VTC's bound is on charged service, whole prompts."""
    config, found = told("vtc")
    assert found.bound == bounds.vtc_both_backlogged(FULL, config.cost, weights=(2, 3))
    assert (found.view, found.claimed) == (View.CHARGED, True)


@pytest.mark.parametrize("policy", ["fcfs", "lpm"])
def test_others_are_compared_with_dlpm(policy: str) -> None:
    """A policy without a bound is shown beside DLPM's, which it does not claim."""
    config, found = told(policy)
    assert found.bound == bounds.dlpm_both_backlogged(FULL, config.cost, 50, weights=(2, 3))
    assert (found.view, found.claimed) == (View.ACTUAL, False)


def test_one_client_has_no_gap() -> None:
    """Fewer than two different clients: nothing to promise; two: something."""
    assert guarantee(PolicyConfig(), FULL, ("a", "a")) is None
    assert guarantee(PolicyConfig(), FULL, ("a", "b")) is not None
