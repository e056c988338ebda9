"""Deficit longest prefix match, against a transcription of Algorithm 1 (arXiv 2501.14312)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import hypothesis.strategies as st
from hypothesis.stateful import run_state_machine_as_test

from fairprefix.core.base import BasePolicy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.dlpm import DLPM
from fairprefix.testing.oracle import DLPMOracle, Oracle
from tests.property.machine import CLIENTS, PolicyMachine, machine_settings, weighted

COMMON = {
    "policy": st.just("dlpm"),
    "quantum": st.integers(1, 50),
    "weights": weighted(),
    "bounded_wait": st.none() | st.integers(1, 4),
    "recompute": st.sampled_from(["free", "charged"]),
    "cost_extend": st.integers(0, 3),
    "cost_output": st.integers(1, 3),
}


class DLPMMachine(PolicyMachine):
    """DLPM and its oracle, under the published gate, with and without overdraft."""

    configs: ClassVar[st.SearchStrategy[PolicyConfig]] = st.builds(
        PolicyConfig, gate=st.just("deficit"), overdraft=st.just(0) | st.integers(1, 30), **COMMON
    )
    oracle_class: ClassVar[type[Oracle]] = DLPMOracle

    def account_view(self, policy: BasePolicy) -> tuple[int, dict[str, tuple[int, int]]]:
        """Return the refill rounds, and deficit and outstanding output of each client."""
        assert isinstance(policy, DLPM)
        accounts = {client: (policy.deficit(client), policy.outstanding(client)) for client in CLIENTS}
        return policy.rounds, accounts

    def oracle_view(self) -> tuple[int, dict[str, tuple[int, int]]]:
        """Return the same, by the oracle."""
        oracle = self.oracle
        assert isinstance(oracle, DLPMOracle)
        w_q = oracle.settings.w_q
        accounts = {client: (oracle.q.get(client, 0), w_q * oracle.outstanding(client)) for client in CLIENTS}
        return oracle.rounds, accounts

    def all_outstanding(self, policy: BasePolicy) -> Sequence[int]:
        """Return the outstanding output of every account."""
        assert isinstance(policy, DLPM)
        return [account.outstanding for account in policy._table]


class CreditGateMachine(DLPMMachine):
    """DLPM and its oracle, under the credit gate with slack."""

    configs: ClassVar[st.SearchStrategy[PolicyConfig]] = st.builds(
        PolicyConfig, gate=st.just("credit"), slack=st.integers(0, 40), **COMMON
    )


def test_dlpm_does_what_algorithm_1_does() -> None:
    """Under the published gate, refills in closed form are those of the loop, for every client at every step."""
    run_state_machine_as_test(DLPMMachine, settings=machine_settings(40))


def test_dlpm_under_the_credit_gate_does_what_the_rule_says() -> None:
    """Under the credit gate, the same holds for the rule of docs/theory.md, whatever the slack."""
    run_state_machine_as_test(CreditGateMachine, settings=machine_settings(40))
