"""Several virtual engines on one clock: one alone is the engine alone, and bounds hold over all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import ConfigError
from fairprefix.core.router_config import RouterConfig
from fairprefix.sim.cluster import Fault, NoWorkerError
from fairprefix.sim.engine import EngineConfig, OversizeError
from fairprefix.sim.fleet import ARRANGEMENTS, Fleet, WorkerSpec, simulate_fleet
from fairprefix.sim.simulate import RunResult, simulate
from fairprefix.sim.steptime import step_time_model
from fairprefix.sim.trace import Trace, TraceRequest, load_sample, scale_time
from tests.sim.test_engine import OneMillisecond, requests, trace_of, workloads

SECOND = 1_000_000_000
SAME = {"bound_formula", "bound_assumptions"}
"""The only figures that differ between an engine by itself and a cluster of one."""


def small(workers: int, arrangement: str, *, faults: Sequence[Fault] = (), **router: Any) -> Fleet:  # noqa: ANN401
    """Return a fleet of tiny engines."""
    spec = WorkerSpec(EngineConfig(kv_tokens=130, chunk=24, max_batch=5, lookahead=3), OneMillisecond())
    return Fleet(
        workers=(spec,) * workers,
        arrangement=arrangement,
        faults=tuple(faults),
        router=RouterConfig(**{"quantum": 100, **router}),
    )


def trace(rows: Sequence[TraceRequest]) -> Trace:
    """Return a trace with blocks of four tokens."""
    return Trace("test", tuple(rows), 4, has_clients=True)


@cache
def on_sample(
    arrangement: str, policy: str = "dlpm", gate: str = "deficit", index: str = "approximate", third: str = "a100"
) -> RunResult:
    """Run the packaged trace, five times as fast, on three workers; the third may be of another kind."""
    specs = []
    for gpu in ("a10g", "a10g", third):
        model = step_time_model("llama-3.1-8b", gpu)
        specs.append(WorkerSpec(EngineConfig(kv_tokens=model.kv_tokens), model))
    fleet = Fleet(workers=tuple(specs), arrangement=arrangement, router=RouterConfig(index=index))
    return simulate_fleet(scale_time(load_sample(), 0.2), PolicyConfig(policy=policy, gate=gate), fleet)


@pytest.mark.parametrize("arrangement", ["rr", "d2lpm"])
@pytest.mark.parametrize("reservation", ["full", "none"])
@pytest.mark.parametrize("policy", ["dlpm", "lpm"])
def test_a_cluster_of_one_is_the_engine_by_itself(arrangement: str, reservation: str, policy: str) -> None:
    """Every figure is the same, to the last digit, but for what the bound calls its assumptions."""
    model = step_time_model("llama-3.1-8b", "a10g")
    engine = EngineConfig(kv_tokens=model.kv_tokens, reservation=reservation)
    config = PolicyConfig(policy=policy, reservation=reservation)
    alone = simulate(load_sample(), config, engine, model)
    fleet = Fleet(workers=(WorkerSpec(engine, model),), arrangement=arrangement)
    cluster = simulate_fleet(load_sample(), config, fleet)
    assert cluster.timeline == alone.timeline
    for name in alone.figures.keys() - SAME:
        assert cluster.figures[name] == alone.figures[name], name


@settings(max_examples=40, deadline=None)
@given(
    workloads,
    st.sampled_from(ARRANGEMENTS),
    st.sampled_from(["full", "none"]),
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 300), st.integers(1, 60)), max_size=1),
)
def test_every_request_is_served_once_whatever_fails(
    rows: list[tuple[int, str, int, int, int, int]],
    arrangement: str,
    reservation: str,
    workers: int,
    failures: list[tuple[int, int, int]],
) -> None:
    """All requests finish, or are lost after they have produced something; all tokens are accounted for."""
    faults = [
        Fault((at + (back if recovers else 0)) * SECOND // 1000, worker % workers, recovers=recovers)
        for worker, at, back in failures
        for recovers in (False, True)
    ]
    fleet = small(workers, arrangement, faults=sorted(faults, key=lambda fault: fault.at_ns))
    config = PolicyConfig(quantum=20, reservation=reservation)
    work = trace_of(rows)
    figures = simulate_fleet(trace(work), config, fleet).figures
    assert figures["completed"] + figures["lost"] == len(work)
    assert sum(worker["completed"] for worker in figures["workers"]) == figures["completed"]
    assert figures["lost"] == 0 or failures
    delivered = sum(client["output_tokens"] for client in figures["clients"].values())
    assert figures["total_output"] <= delivered
    assert figures["lost"] > 0 or delivered == sum(request.output_tokens for request in work)
    if figures["bound_ratio"] is not None:
        assert figures["bound_ratio"] < 1


@pytest.mark.parametrize("arrangement", ["d2lpm", "power_of_two", "central_pool", "shared_ledger"])
def test_the_same_input_gives_the_same_bytes(arrangement: str) -> None:
    """Two runs of the same cluster are identical, to the last digit."""
    texts = []
    for _ in range(2):
        on_sample.cache_clear()
        texts.append(json.dumps(on_sample(arrangement).to_mapping()))
    assert texts[0] == texts[1]


@pytest.mark.parametrize("arrangement", ARRANGEMENTS)
def test_dlpm_keeps_its_bound_over_the_cluster_and_at_each_worker(arrangement: str) -> None:
    """However requests are dispatched, with the refills counted that were missed."""
    figures = on_sample(arrangement).figures
    assert figures["bound_is_claimed"]
    assert 0 < figures["bound_ratio"] < 1
    for worker in figures["workers"]:
        assert worker["bound_ratio"] is None or worker["bound_ratio"] < 1


@pytest.mark.parametrize("arrangement", ["d2lpm", "central_pool"])
def test_the_credit_gate_keeps_its_bound_over_the_cluster(arrangement: str) -> None:
    """The workers' own bounds add up, whatever their gate."""
    figures = on_sample(arrangement, gate="credit").figures
    assert figures["bound_is_claimed"]
    assert 0 < figures["bound_ratio"] < 1


def test_what_is_not_dlpm_promises_nothing_over_a_cluster() -> None:
    """LPM at each worker breaks what DLPM keeps, under the same router."""
    figures = on_sample("d2lpm", policy="lpm").figures
    assert not figures["bound_is_claimed"]
    assert figures["bound_ratio"] > 1
    assert figures["missed_refills"] is None


def test_a_pool_and_a_ledger_are_fairer_than_binding_on_arrival() -> None:
    """Their gaps are smaller than that of locality-blind and of locality-only routing; a pool misses nothing."""
    pool, ledger = (on_sample(name).figures["charged_gap"] for name in ("central_pool", "shared_ledger"))
    assert max(pool, ledger) < min(on_sample(name).figures["charged_gap"] for name in ("rr", "cache_aware"))


def test_the_ledgers_staleness_is_stated() -> None:
    """The largest amount that was not reported is a figure of the run, and part of the bound."""
    figures = on_sample("shared_ledger").figures
    assert figures["unsettled"] > 0
    assert "delta" in figures["bound_formula"]


def test_d2lpm_keeps_the_cache_hotter_than_round_robin_and_is_fairer_than_locality_alone() -> None:
    """What the router is for, where the workers are alike."""
    names = ("d2lpm", "client_rr", "cache_aware")
    d2lpm, turns, cache_aware = (on_sample(name, third="a10g").figures for name in names)
    assert d2lpm["prefix_hit_rate"] > turns["prefix_hit_rate"]
    assert d2lpm["charged_gap"] < cache_aware["charged_gap"] / 2


def test_an_exact_index_is_fed_by_the_workers() -> None:
    """With events instead of guesses the run still serves everything, within its bound."""
    figures = on_sample("d2lpm", index="exact").figures
    assert figures["completed"] == len(load_sample().requests)
    assert figures["bound_ratio"] < 1
    assert figures["prefix_hit_rate"] != on_sample("d2lpm").figures["prefix_hit_rate"]


def test_a_worker_that_fails_loses_its_cache_and_what_has_begun_and_the_rest_is_sent_again() -> None:
    """Requests that had produced something are lost, the others are served elsewhere."""
    rows = requests((0, "a", 8, 40, (1, 2)), (1, "a", 8, 40, (1, 2)), *((2, "b", 100, 20, ()) for _ in range(4)))
    figures = simulate_fleet(trace(rows), PolicyConfig(), small(2, "rr", faults=[Fault(20_000_000, 0)])).figures
    assert (figures["completed"], figures["lost"], figures["rerouted"]) == (5, 1, 2)
    assert [worker["failures"] for worker in figures["workers"]] == [1, 0]
    assert 0 < figures["clients"]["a"]["output_tokens"] < 80


def test_a_worker_that_is_back_serves_again_with_an_empty_cache() -> None:
    """It is given work after its recovery, and finds nothing cached."""
    rows = requests((0, "a", 8, 2, (1, 2)), (900, "a", 8, 2, (1, 2)))
    faults = [Fault(SECOND // 2, 0), Fault(SECOND * 4 // 5, 0, recovers=True)]
    figures = simulate_fleet(trace(rows), PolicyConfig(), small(1, "d2lpm", faults=faults)).figures
    assert (figures["completed"], figures["prefix_hit_rate"]) == (2, 0.0)


@pytest.mark.parametrize("arrangement", ["d2lpm", "central_pool", "shared_ledger"])
def test_requests_wait_for_a_worker_to_be_back(arrangement: str) -> None:
    """While all workers are down nothing is lost."""
    rows = requests((100, "a", 8, 2, (1, 2)), (150, "b", 8, 2, ()))
    faults = [Fault(0, 0), Fault(SECOND, 0, recovers=True)]
    figures = simulate_fleet(trace(rows), PolicyConfig(), small(1, arrangement, faults=faults)).figures
    assert figures["completed"] == 2
    assert figures["mean_ttft_ms"] > 850


def test_without_any_worker_left_the_run_is_an_error() -> None:
    """It says what to do."""
    fleet = small(1, "rr", faults=[Fault(0, 0)])
    with pytest.raises(NoWorkerError, match="let one recover"):
        simulate_fleet(trace(requests((5, "a", 8, 2, ()))), PolicyConfig(), fleet)


def test_a_request_has_to_fit_every_worker() -> None:
    """The smallest worker decides what is too large."""
    large = WorkerSpec(EngineConfig(kv_tokens=1000), OneMillisecond())
    fleet = Fleet(workers=(large, *small(1, "rr").workers), arrangement="rr")
    with pytest.raises(OversizeError, match="holds 130"):
        simulate_fleet(trace(requests((0, "a", 200, 10, ()))), PolicyConfig(), fleet)


def test_a_fleet_is_checked_when_it_is_made() -> None:
    """Arrangement, number of workers, faults and staleness; and the shared ledger's policy."""
    with pytest.raises(ConfigError, match="did you mean 'd2lpm'"):
        small(1, "d2lmp")
    with pytest.raises(ConfigError, match="at least one worker"):
        small(0, "rr")
    with pytest.raises(ConfigError, match="a number from 0 to 1"):
        small(2, "rr", faults=[Fault(0, 2)])
    with pytest.raises(ConfigError, match="dlpm with router shared_ledger"):
        simulate_fleet(trace(requests((0, "a", 8, 2, ()))), PolicyConfig(policy="lpm"), small(1, "shared_ledger"))
