"""Which bound a cluster is held against follows from how requests come to its workers."""

from __future__ import annotations

from fractions import Fraction

import pytest

from fairprefix.core import bounds
from fairprefix.core.bounds import Bound, Engine
from fairprefix.core.config import PolicyConfig
from fairprefix.core.guarantee import Arrangement, cluster_guarantee, guarantee
from fairprefix.core.ledger import View
from tests.core.bound_cases import TINY

ENGINES = [
    Engine(reservation="full", kv_tokens=memory, max_running=4, longest_input=9, longest_output=9)
    for memory in (50, 80)
]
PREEMPTING = [TINY, TINY]
"""Where output may have to be computed again."""


def exact(
    kind: str, *, misses: int = 0, unsettled: int = 0, gate: str = "deficit", policy: str = "dlpm"
) -> Fraction:
    """Return the bound for two clients of weight 1."""
    found = cluster_guarantee(
        PolicyConfig(policy=policy, gate=gate, quantum=7, slack=3),
        ENGINES,
        ("a", "b"),
        Arrangement(kind=kind, misses=misses, unsettled=unsettled),
    )
    assert found is not None
    assert (found.view, found.claimed) == (View.ACTUAL, policy == "dlpm")
    return found.bound.exact


def test_binding_on_arrival_costs_a_quantum_per_miss() -> None:
    """Theorem 5.1 and its correction."""
    config = PolicyConfig(quantum=7)
    assert exact("routed", misses=5) == bounds.d2lpm_both_backlogged(ENGINES, config.cost, 7, misses=5).exact


def test_a_pool_has_no_misses() -> None:
    """The sum of the workers' bounds."""
    assert exact("central_pool") == bounds.central_pool(ENGINES, PolicyConfig().cost, 7).exact == exact("routed")


def test_a_ledger_pays_for_staleness() -> None:
    """Once per client, not once per worker."""
    assert exact("shared_ledger", unsettled=9) == exact("shared_ledger") + 18


def test_the_credit_gate_adds_up_like_the_other_one() -> None:
    """Each worker's own bound, and the misses."""
    config = PolicyConfig(gate="credit", quantum=7, slack=3)
    own = [guarantee(config, engine, ("a", "b")) for engine in ENGINES]
    total = sum(one.bound.exact for one in own if one is not None)
    assert exact("routed", gate="credit", misses=2) == total + 14
    assert exact("central_pool", gate="credit") == total


def test_other_policies_are_held_against_dlpms_bound() -> None:
    """For comparison: they promise nothing over a cluster."""
    assert exact("routed", policy="vtc") == exact("routed")


def test_a_gap_is_between_two() -> None:
    """One client alone has no bound."""
    assert cluster_guarantee(PolicyConfig(), ENGINES, ("a",), Arrangement(kind="routed")) is None


@pytest.mark.parametrize("recompute", ["free", "charged"])
def test_everything_that_a_bound_depends_on_reaches_it(recompute: str) -> None:
    """Weights of the two lightest clients, prices, quantum, overdraft, recomputation, misses and staleness."""
    config = PolicyConfig(
        quantum=7,
        overdraft=5,
        recompute=recompute,
        cost_extend=3,
        cost_output=1,
        weights={"b": 3, "c": 2},
        default_weight=4,
    )

    def found(kind: str) -> Bound:
        how = Arrangement(kind=kind, misses=2, unsettled=9)
        held = cluster_guarantee(config, PREEMPTING, "bcd", how)
        assert held is not None
        return held.bound

    pair = (2, 3)
    assert found("shared_ledger") == bounds.shared_ledger(
        PREEMPTING, config.cost, 7, unsettled=9, weights=pair, recompute=recompute
    )
    assert found("central_pool") == bounds.central_pool(
        PREEMPTING, config.cost, 7, weights=pair, overdraft=5, recompute=recompute
    )
    assert found("routed") == bounds.d2lpm_both_backlogged(
        PREEMPTING, config.cost, 7, weights=pair, misses=2, overdraft=5, recompute=recompute
    )


def test_charged_recomputation_widens_every_bound() -> None:
    """What is charged for recomputed tokens is part of the promise, however requests come to the workers."""
    for kind in ("routed", "central_pool", "shared_ledger"):
        how = Arrangement(kind=kind)
        free, charged = (
            cluster_guarantee(PolicyConfig(cost_extend=3, recompute=recompute), PREEMPTING, "ab", how)
            for recompute in ("free", "charged")
        )
        assert free is not None
        assert charged is not None
        assert free.bound.exact < charged.bound.exact, kind
