"""Which bound a cluster is held against follows from how requests come to its workers."""

from __future__ import annotations

from fractions import Fraction

from fairprefix.core import bounds
from fairprefix.core.bounds import Engine
from fairprefix.core.config import PolicyConfig
from fairprefix.core.guarantee import Arrangement, cluster_guarantee, guarantee
from fairprefix.core.ledger import View

ENGINES = [
    Engine(reservation="full", kv_tokens=memory, max_running=4, longest_input=9, longest_output=9)
    for memory in (50, 80)
]


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
