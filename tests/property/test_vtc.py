"""The virtual token counter, against a transcription of Algorithm 2 (arXiv 2401.00588)."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor
from typing import ClassVar

import hypothesis.strategies as st
from hypothesis.stateful import run_state_machine_as_test

from fairprefix.core.base import BasePolicy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.vtc import VTC
from fairprefix.testing.oracle import Oracle, VTCOracle
from tests.property.machine import CLIENTS, PolicyMachine, machine_settings, weighted


class VTCMachine(PolicyMachine):
    """VTC and its oracle."""

    configs: ClassVar[st.SearchStrategy[PolicyConfig]] = st.builds(
        PolicyConfig,
        policy=st.just("vtc"),
        weights=weighted(),
        vtc_charge=st.sampled_from(["input", "extend"]),
        recompute=st.sampled_from(["free", "charged"]),
        cost_extend=st.integers(0, 3),
        cost_output=st.integers(1, 3),
    )
    oracle_class: ClassVar[type[Oracle]] = VTCOracle

    def account_view(self, policy: BasePolicy) -> dict[str, tuple[int, int]]:
        """Return counter and outstanding output of each client."""
        assert isinstance(policy, VTC)
        return {client: (policy.counter(client), self.outstanding_of(policy, client)) for client in CLIENTS}

    def oracle_view(self) -> dict[str, tuple[int, int]]:
        """Return the same, by the oracle."""
        assert isinstance(self.oracle, VTCOracle)
        counters = self.oracle.c
        return {client: (floor(counters.get(client, 0)), self.oracle.outstanding(client)) for client in CLIENTS}

    def all_outstanding(self, policy: BasePolicy) -> Sequence[int]:
        """Return the outstanding output of every account."""
        assert isinstance(policy, VTC)
        return [account.outstanding for account in policy._table]

    @staticmethod
    def outstanding_of(policy: VTC, client: str) -> int:
        """Return a client's outstanding output tokens."""
        account = policy._table.find(client)
        return account.outstanding if account else 0


def test_vtc_does_what_algorithm_2_does() -> None:
    """VTC lifts, orders, charges and breaks off its passes like Algorithm 2, with weights besides."""
    run_state_machine_as_test(VTCMachine, settings=machine_settings(40))
