"""Every theorem as a function: the bound for YOUR engine, and the assumptions that it needs.

Describe the engine once, then ask for what the policy promises on it:

    engine = Engine(
        reservation="full", kv_tokens=10_000, max_running=64, longest_input=4_000, longest_output=1_000
    )
    bound = dlpm_both_backlogged(engine, CostWeights(), quantum=2_000)
    bound.value        # service units
    bound.assumptions  # what has to hold for it

All results are exact. Parameters outside their valid range raise `ConfigError`.
"""

from __future__ import annotations

from fairprefix.core.bounds_base import (
    Bound,
    CounterRange,
    Engine,
    held_output,
    lightest_pair,
    one_client_debt,
)
from fairprefix.core.bounds_cluster import central_pool, d2lpm_both_backlogged, over_workers, shared_ledger
from fairprefix.core.bounds_credit import (
    credit_both_backlogged,
    credit_range,
    prediction_surcharge,
)
from fairprefix.core.bounds_dlpm import (
    bounded_wait_position,
    changed_weights,
    counter_range_dlpm,
    dlpm_a_posteriori,
    dlpm_backlogged_vs_any,
    dlpm_both_backlogged,
    dlpm_published,
    dlpm_tight_full,
    newcomer_wait,
    newcomer_wait_weighted,
)
from fairprefix.core.bounds_vtc import (
    lower_bound_work_conserving,
    vtc_backlogged_vs_any,
    vtc_both_backlogged,
    vtc_lemma,
)

__all__ = [
    "Bound",
    "CounterRange",
    "Engine",
    "bounded_wait_position",
    "central_pool",
    "changed_weights",
    "counter_range_dlpm",
    "credit_both_backlogged",
    "credit_range",
    "d2lpm_both_backlogged",
    "dlpm_a_posteriori",
    "dlpm_backlogged_vs_any",
    "dlpm_both_backlogged",
    "dlpm_published",
    "dlpm_tight_full",
    "held_output",
    "lightest_pair",
    "lower_bound_work_conserving",
    "newcomer_wait",
    "newcomer_wait_weighted",
    "one_client_debt",
    "over_workers",
    "prediction_surcharge",
    "shared_ledger",
    "vtc_backlogged_vs_any",
    "vtc_both_backlogged",
    "vtc_lemma",
]
