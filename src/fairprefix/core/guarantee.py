"""Which bound applies to a run: the policy's own, or, for a policy without one, what DLPM would have promised."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import frozen

from fairprefix.core.bounds import (
    Bound,
    Engine,
    credit_both_backlogged,
    dlpm_both_backlogged,
    lightest_pair,
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
