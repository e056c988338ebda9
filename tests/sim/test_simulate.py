"""What the simulator says of the policies on real and packaged traces: the claims that the README makes."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fairprefix.core.config import PolicyConfig
from fairprefix.sim.engine import EngineConfig
from fairprefix.sim.simulate import RunResult, simulate
from fairprefix.sim.steptime import step_time_model
from fairprefix.sim.trace import Trace, TraceRequest, compose_clients, load_sample, load_trace


def run(trace: Trace, gpu: str, **settings: Any) -> RunResult:  # noqa: ANN401 (any field of the configuration)
    """Run a trace on Llama-3.1-8B with the KV pool of that GPU."""
    model = step_time_model("llama-3.1-8b", gpu)
    config = PolicyConfig(**settings)
    return simulate(trace, config, EngineConfig(kv_tokens=model.kv_tokens, reservation=config.reservation), model)


@cache
def on_sample(policy: str, reservation: str = "full", gate: str = "deficit") -> dict[str, Any]:
    """Return the figures of the packaged trace, which overloads an A10G."""
    return run(load_sample(), "a10g", policy=policy, reservation=reservation, gate=gate).figures


RESERVATIONS = ("full", "none")
GATES = ("deficit", "credit")


@pytest.mark.parametrize("reservation", RESERVATIONS)
@pytest.mark.parametrize("gate", GATES)
def test_dlpm_keeps_its_bound(reservation: str, gate: str) -> None:
    """DLPM's largest gap stays within its own bound, with both gates and in both reservation modes."""
    figures = on_sample("dlpm", reservation, gate)
    assert figures["bound_is_claimed"]
    assert 0 < figures["bound_ratio"] <= 1


@pytest.mark.parametrize("reservation", RESERVATIONS)
def test_vtc_keeps_its_bound(reservation: str) -> None:
    """VTC's largest gap, in the service that it charges, stays within its own bound."""
    figures = on_sample("vtc", reservation)
    assert figures["bound_is_claimed"]
    assert 0 < figures["bound_ratio"] <= 1


@pytest.mark.parametrize("policy", ["fcfs", "lpm"])
@pytest.mark.parametrize(("reservation", "gate"), [("full", "deficit"), ("full", "credit"), ("none", "credit")])
def test_the_bound_says_something(policy: str, reservation: str, gate: str) -> None:
    """FCFS and LPM fail the bound that DLPM keeps on the same engine."""
    figures = on_sample(policy, reservation, gate)
    assert not figures["bound_is_claimed"]
    assert figures["bound_ratio"] > 1


def test_dlpm_keeps_the_cache_hot_and_is_fair() -> None:
    """On the packaged trace DLPM has LPM's hit rate within a point and VTC's fairness or better."""
    dlpm, lpm, vtc = on_sample("dlpm"), on_sample("lpm"), on_sample("vtc")
    assert dlpm["prefix_hit_rate"] > lpm["prefix_hit_rate"] - 0.01
    assert dlpm["prefix_hit_rate"] > vtc["prefix_hit_rate"] + 0.3
    assert dlpm["jain_index"] >= vtc["jain_index"] - 0.02
    assert dlpm["jain_index"] > lpm["jain_index"] + 0.3


def test_the_same_seed_gives_the_same_bytes() -> None:
    """Two runs of the same trace under the same policy give identical results, to the last digit."""
    again = run(load_sample(), "a10g", policy="dlpm", reservation="none").figures
    assert json.dumps(again) == json.dumps(on_sample("dlpm", "none"))


def test_weights_shift_the_shares() -> None:
    """While all compete, a client of weight 3 gets three times the service of one of weight 1."""
    figures = run(load_sample(), "a10g", policy="dlpm", weights={"flood": 3}).figures
    shares = {client: entry["contended_share"] for client, entry in figures["clients"].items()}
    assert shares["flood"] / shares["chat"] == pytest.approx(3, rel=0.1)
    assert shares["agent"] / shares["chat"] == pytest.approx(1, rel=0.1)


def test_a_single_client_has_no_bound() -> None:
    """With one client there is no gap, and no bound is claimed."""
    trace = Trace("one", (TraceRequest(0, "a", 100, 10),), 16, has_clients=True)
    figures = run(trace, "a10g").figures
    assert (figures["bound"], figures["bound_ratio"], figures["max_gap"]) == (None, None, 0)
    assert figures["completed"] == 1


def test_the_mooncake_run_shows_the_point(shared_trace: Callable[[str], Path]) -> None:
    """First 2,000 Mooncake requests, 8 clients: hit rate LPM >= DLPM > VTC, and DLPM as fair as VTC."""
    trace = load_trace(shared_trace("mooncake_conversation_trace.jsonl.gz"), limit=2000)
    trace = compose_clients(trace, clients=8, seed=0)
    lpm, dlpm, vtc = (run(trace, "a100", policy=policy).figures for policy in ("lpm", "dlpm", "vtc"))
    assert lpm["prefix_hit_rate"] >= dlpm["prefix_hit_rate"] > vtc["prefix_hit_rate"]
    assert abs(dlpm["jain_index"] - vtc["jain_index"]) <= 0.02
    assert dlpm["jain_index"] >= lpm["jain_index"] + 0.3
    assert max(dlpm["bound_ratio"], vtc["bound_ratio"]) <= 1


@pytest.mark.parametrize("reservation", RESERVATIONS)
@pytest.mark.parametrize("gate", GATES)
def test_the_mooncake_run_keeps_the_bounds(
    shared_trace: Callable[[str], Path], reservation: str, gate: str
) -> None:
    """DLPM and VTC keep their bounds on the Mooncake run in both reservation modes and with both gates."""
    trace = load_trace(shared_trace("mooncake_conversation_trace.jsonl.gz"), limit=2000)
    trace = compose_clients(trace, clients=8, seed=0)
    for policy in ("dlpm", "vtc"):
        figures = run(trace, "a100", policy=policy, reservation=reservation, gate=gate).figures
        assert figures["bound_is_claimed"]
        assert 0 < figures["bound_ratio"] <= 1
