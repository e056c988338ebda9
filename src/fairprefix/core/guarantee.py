"""Which bound applies to a run: the policy's own, or, for a policy without one, what DLPM would have promised."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from attrs import frozen

from fairprefix.core.bounds import (
    Bound,
    Engine,
    central_pool,
    credit_both_backlogged,
    d2lpm_both_backlogged,
    dlpm_both_backlogged,
    lightest_pair,
    over_workers,
    shared_ledger,
    vtc_both_backlogged,
)
from fairprefix.core.config import PolicyConfig
from fairprefix.core.ledger import View
from fairprefix.core.request import Client


@frozen
class Guarantee:
    """A bound on the gap of two backlogged clients, and in which service it is counted."""

    bound: Bound
    view: View
    claimed: bool
    """Whether the policy promises it; False where it is DLPM's bound, shown for comparison."""


def guarantee(config: PolicyConfig, engine: Engine, clients: Iterable[Client]) -> Guarantee | None:
    """Return the bound for any two of `clients`; None when there are fewer than two."""
    weights = {client: config.weight(client) for client in clients}
    if len(weights) < 2:  # noqa: PLR2004 (a gap is between two)
        return None
    pair = lightest_pair(weights)
    if config.policy == "vtc":
        return Guarantee(vtc_both_backlogged(engine, config.cost, weights=pair), View.CHARGED, claimed=True)
    return Guarantee(_dlpm(config, engine, pair), View.ACTUAL, claimed=config.policy == "dlpm")


def _dlpm(config: PolicyConfig, engine: Engine, pair: tuple[int, int]) -> Bound:
    if config.gate == "credit":
        return credit_both_backlogged(
            engine, config.cost, config.quantum, slack=config.slack, weights=pair, recompute=config.recompute
        )
    return dlpm_both_backlogged(
        engine,
        config.cost,
        config.quantum,
        weights=pair,
        overdraft=config.overdraft,
        recompute=config.recompute,
    )


@frozen(kw_only=True)
class Arrangement:
    """How requests come to the workers of a cluster, as far as the bound depends on it."""

    kind: str
    """routed, central_pool or shared_ledger."""
    misses: int = 0
    """Refills missed by the client that missed most (routed)."""
    unsettled: int = 0
    """The most that workers had not reported of one client (shared_ledger)."""


def cluster_guarantee(
    config: PolicyConfig, engines: Sequence[Engine], clients: Iterable[Client], how: Arrangement
) -> Guarantee | None:
    """Return the bound for any two of `clients` over all workers; None when there are fewer than two.

    Where the workers' policy is not DLPM it is DLPM's bound, shown for comparison.
    """
    weights = {client: config.weight(client) for client in clients}
    if len(weights) < 2:  # noqa: PLR2004 (a gap is between two)
        return None
    pair = lightest_pair(weights)
    claimed = config.policy == "dlpm"
    return Guarantee(_over_cluster(config, engines, pair, how), View.ACTUAL, claimed=claimed)


def _over_cluster(
    config: PolicyConfig, engines: Sequence[Engine], pair: tuple[int, int], how: Arrangement
) -> Bound:
    cost, quantum, recompute = config.cost, config.quantum, config.recompute
    if how.kind == "shared_ledger":
        return shared_ledger(engines, cost, quantum, unsettled=how.unsettled, weights=pair, recompute=recompute)
    if config.gate == "credit":
        return over_workers([_dlpm(config, engine, pair) for engine in engines], quantum, misses=how.misses)
    if how.kind == "central_pool":
        return central_pool(engines, cost, quantum, weights=pair, overdraft=config.overdraft, recompute=recompute)
    return d2lpm_both_backlogged(
        engines,
        cost,
        quantum,
        weights=pair,
        misses=how.misses,
        overdraft=config.overdraft,
        recompute=recompute,
    )
