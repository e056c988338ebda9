"""First come, first served, against its transcription."""

from __future__ import annotations

from typing import ClassVar

import hypothesis.strategies as st
from hypothesis.stateful import run_state_machine_as_test

from fairprefix.core.config import PolicyConfig
from fairprefix.testing.oracle import FCFSOracle, Oracle
from tests.property.machine import PolicyMachine, machine_settings


class FCFSMachine(PolicyMachine):
    """FCFS and its oracle."""

    configs: ClassVar[st.SearchStrategy[PolicyConfig]] = st.builds(
        PolicyConfig, policy=st.just("fcfs"), recompute=st.sampled_from(["free", "charged"])
    )
    oracle_class: ClassVar[type[Oracle]] = FCFSOracle


def test_fcfs_does_what_its_transcription_does() -> None:
    """FCFS offers, charges, plans and restores like the literal queue, whatever happens to its requests."""
    run_state_machine_as_test(FCFSMachine, settings=machine_settings(30))
