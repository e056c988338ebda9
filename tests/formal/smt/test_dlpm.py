"""DLPM on one worker, published gate: counters, two backlogged clients, weights, overdraft, one against any."""

from __future__ import annotations

import pytest

from tests.formal.smt.induction import System, every_transition_can_happen, prove
from tests.formal.smt.systems import (
    AGAINST_ANY,
    BACKLOGGED,
    CHANGING_WEIGHTS,
    COUNTER,
    CREDIT,
    CREDIT_COUNTER,
    FRESH_START,
    WEIGHTED,
)
from tests.formal.smt.worker import Account, Pair


def test_the_counter_stays_between_its_debt_and_one_quantum() -> None:
    """-(U + overdraft) < q - h <= q <= Q + R, for every engine, cost, quantum and order of events."""
    prove(COUNTER)


def test_two_backlogged_clients_drift_apart_by_less_than_their_debts_and_two_quanta() -> None:
    """|W_f - W_g| < U_f + U_g + 2Q (+ overdraft, + refunds), per unit of weight, over every interval.

    The same holds for committed service; delivered service differs by w_e*L of each client more.
    """
    prove(BACKLOGGED)


def test_from_a_fresh_start_the_drift_is_one_quantum_and_the_larger_debt() -> None:
    """|W_f - W_g| < Q + max(U_f + R_g, U_g + R_f) as long as it is counted from the very beginning."""
    prove(FRESH_START)


def test_weights_divide_service_and_debt() -> None:
    """weight_g*W_f - weight_f*W_g is within weight_g*U_f + weight_f*U_g + 2*weight_f*weight_g*Q, in integers."""
    prove(WEIGHTED)


def test_weights_may_change_when_debt_is_left_as_it_is() -> None:
    """|(W_f - E_f) - (W_g - E_g)| < U_f + U_g + max Q_f + max Q_g, E being the sum of a client's quanta."""
    prove(CHANGING_WEIGHTS)


def test_nobody_gets_ahead_of_a_backlogged_client_by_more_than_a_backlogged_one_could() -> None:
    """W_g - W_f < U_f + U_g + 2Q where only f is queued at every refill.

    With W_f = 0 this is a newcomer's wait: what any other client receives before f is served.
    """
    prove(AGAINST_ANY)


def test_committed_credit_bounds_the_drift_by_one_request_whatever_the_engine() -> None:
    """|W_f - W_g| < 2(w_e*L + w_q*O + Q + S): no reservation, memory or number of requests appears in it."""
    prove(CREDIT)


def test_committed_credit_stays_above_the_cost_of_one_request() -> None:
    """-(w_e*L + w_q*O + overdraft) < q - h <= q <= Q + S + R.

    While nobody is queued debt may be forgiven, and the credit of clients with h = 0 may be dropped.
    """
    prove(CREDIT_COUNTER)


@pytest.mark.parametrize(
    "system",
    [COUNTER, BACKLOGGED, FRESH_START, WEIGHTED, CHANGING_WEIGHTS, AGAINST_ANY, CREDIT, CREDIT_COUNTER],
    ids=["counter", "backlogged", "fresh", "weighted", "changing", "against any", "credit", "credit counter"],
)
def test_every_transition_of_the_proofs_can_happen(system: System[Account] | System[Pair]) -> None:
    """No proof is empty: for each transition there is a run that takes it."""
    every_transition_can_happen(system)
