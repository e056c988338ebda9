"""The time model against a recorded run of a real engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fairprefix.sim.engine import EngineConfig
from fairprefix.sim.reqlog import LogError, as_trace, read_log
from fairprefix.sim.steptime import TableModel
from fairprefix.sim.trace import load_trace
from fairprefix.sim.validate import compare, replay, with_prefixes


def test_means_of_a_recorded_vllm_run_are_met_within_ten_percent(shared_trace: Callable[[str], Path]) -> None:
    """TTFT, time per output token and latency of 300 requests on an RTX 4090, each within 2 % in fact."""
    model = TableModel.from_folder(shared_trace("llama31_8b_rtx4090"))
    log = read_log(shared_trace("llama31_8b_rtx4090") / "requests.jsonl.gz")
    trace = with_prefixes(
        as_trace(log, "log"), load_trace(shared_trace("sharegpt300_llama31_8b_blocks16.jsonl.gz"))
    )
    engine = EngineConfig(kv_tokens=model.kv_tokens, reservation="none")
    errors = {one.metric: one.error for one in compare(log, replay(trace, engine, model))}
    assert set(errors) == {"ttft_s", "tpot_s", "latency_s"}
    assert all(abs(error) < 0.02 for error in errors.values()), errors


def test_prefixes_of_other_requests_are_refused(shared_trace: Callable[[str], Path]) -> None:
    """They have to be the same requests in the same order."""
    log = read_log(shared_trace("llama31_8b_rtx4090") / "requests.jsonl.gz")
    prefixes = load_trace(shared_trace("sharegpt300_llama31_8b_blocks16.jsonl.gz"))
    with pytest.raises(LogError, match="other lengths, or another order"):
        with_prefixes(as_trace(log[1:], "log"), prefixes)
