"""The checks, one property a file, in the order in which they are run and reported."""

from __future__ import annotations

from fairprefix.testing.checks import (
    blocked,
    bound,
    bounded_wait,
    capacity,
    charge_once,
    charge_output,
    charge_prompt,
    conservation,
    determinism,
    hash_seed,
    hit_rate,
    inputs,
    life_cycle,
    lift_rules,
    looking,
    only_queued,
    preemption,
    prefix_order,
    refill_rules,
    refund,
    rejoin_bound,
    relabelling,
    reweighing,
    settlement,
    side_by_side,
    snapshots,
    starvation,
    termination,
    weighted_bound,
    work_conservation,
)
from fairprefix.testing.checks.registry import Check

CHECKS: tuple[Check, ...] = (
    termination.CHECK,
    life_cycle.CHECK,
    only_queued.CHECK,
    capacity.CHECK,
    work_conservation.CHECK,
    blocked.CHECK,
    starvation.CHECK,
    conservation.CHECK,
    settlement.CHECK,
    determinism.CHECK,
    hash_seed.CHECK,
    snapshots.CHECK,
    relabelling.CHECK,
    looking.CHECK,
    inputs.CHECK,
    bound.CHECK,
    weighted_bound.CHECK,
    rejoin_bound.CHECK,
    refill_rules.CHECK,
    lift_rules.CHECK,
    charge_prompt.CHECK,
    charge_output.CHECK,
    charge_once.CHECK,
    preemption.CHECK,
    refund.CHECK,
    reweighing.CHECK,
    prefix_order.CHECK,
    hit_rate.CHECK,
    bounded_wait.CHECK,
    side_by_side.CHECK,
)

NAMES: tuple[str, ...] = tuple(check.name for check in CHECKS)

__all__ = ["CHECKS", "NAMES", "Check"]
