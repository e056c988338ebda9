"""Longest prefix match, against its transcription."""

from __future__ import annotations

from typing import ClassVar

import hypothesis.strategies as st
from hypothesis.stateful import run_state_machine_as_test

from fairprefix.core.config import PolicyConfig
from fairprefix.testing.oracle import LPMOracle, Oracle
from tests.property.machine import PolicyMachine, machine_settings


class LPMMachine(PolicyMachine):
    """LPM and its oracle."""

    configs: ClassVar[st.SearchStrategy[PolicyConfig]] = st.builds(
        PolicyConfig,
        policy=st.just("lpm"),
        bounded_wait=st.none() | st.integers(1, 4),
        recompute=st.sampled_from(["free", "charged"]),
    )
    oracle_class: ClassVar[type[Oracle]] = LPMOracle


def test_lpm_does_what_its_transcription_does() -> None:
    """LPM offers in the order of freshly sorted matches, with and without taking the oldest in turn."""
    run_state_machine_as_test(LPMMachine, settings=machine_settings(40))
