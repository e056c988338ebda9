"""A hosted policy decides what the bare one decides, counts what the ledger counts, and survives any failure."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairprefix.core.bounds import Engine
from fairprefix.core.catalog import make_policy
from fairprefix.core.config import POLICIES, PolicyConfig
from fairprefix.core.contract import HostContract
from fairprefix.core.cost import Receipt
from fairprefix.core.ledger import Ledger, View
from fairprefix.core.policy import Policy, Refusal
from fairprefix.core.prefixes import Prefixes, PrefixIndex
from fairprefix.core.request import Request
from fairprefix.hosting import HostedPolicy
from fairprefix.hosting.figures import OTHER, Figures
from fairprefix.sim.engine import EngineConfig, VirtualEngine
from fairprefix.sim.kvcache import KVCache
from fairprefix.sim.record import RunRecord
from fairprefix.sim.steptime import step_time_model
from fairprefix.sim.trace import TraceRequest

KV_TOKENS = 400
PATHS = ((0, 1, 2), (10, 11, 12), (20, 21, 22))
DECISIONS = ("arrive", "begin_pass", "peek", "take", "defer", "unblock", "produced", "preempt", "finish")


class Failing:
    """Passes calls on to a policy until one of a given name has been made so often, and raises then and after."""

    def __init__(self, policy: Policy, name: str, after: int) -> None:
        self._policy, self._name, self._left = policy, name, after

    def __getattr__(self, name: str) -> object:
        if name == self._name:
            self._left -= 1
        if self._left < 0:
            raise RuntimeError("broken on purpose")
        return getattr(self._policy, name)


def workload(count: int = 60) -> list[TraceRequest]:
    """Return requests of three clients, more than fit at once."""
    return [
        TraceRequest(i * 1000, "abc"[i % 7 % 3], 12 + i % 5 * 8, 4 + i % 9, blocks=PATHS[i % 3])
        for i in range(count)
    ]


def limits(reservation: str) -> Engine:
    """Return what the bound has to know of the engine."""
    return Engine(reservation=reservation, kv_tokens=KV_TOKENS, max_running=6, longest_input=44, longest_output=12)


def serve(
    config: PolicyConfig, *, hosted: HostedPolicy | None = None, policy: Policy | None = None
) -> tuple[RunRecord, list[str]]:
    """Run the workload; return the record, and the requests in the order of admission."""
    index = PrefixIndex(4)
    cache = KVCache(KV_TOKENS, index)
    record = RunRecord(Ledger(config.cost))
    order: list[str] = []
    chosen = policy or make_policy(config, index)
    if hosted is not None:
        chosen = hosted

    class Noting(HostContract):
        def take(self, id: str, *, extend: int, reserve: int) -> Receipt:
            order.append(id)
            return super().take(id, extend=extend, reserve=reserve)

    engine = VirtualEngine(
        EngineConfig(
            kv_tokens=KV_TOKENS, chunk=32, max_batch=6, reservation=config.reservation, oversize="reject"
        ),
        step_time_model("llama-3.1-8b", "a100"),
        cache,
        Noting(chosen),
        record,
    )
    requests = workload()
    engine.run(requests)
    assert engine.finished == len(requests)
    return record, order


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("reservation", ["full", "none"])
def test_a_hosted_policy_decides_like_the_bare_one(policy: str, reservation: str) -> None:
    """Guarding and watching change no decision."""
    config = PolicyConfig(policy=policy, quantum=64, reservation=reservation)
    hosted = HostedPolicy(config)
    assert serve(config, hosted=hosted)[1] == serve(config, policy=make_policy(config))[1]
    assert not hosted.errors
    assert not hosted.live


@pytest.mark.parametrize("reservation", ["full", "none"])
def test_figures_equal_the_ledger(reservation: str) -> None:
    """Service, hit rate, recomputation and the largest gap are those that the ledger finds."""
    config = PolicyConfig(quantum=64, reservation=reservation)
    hosted = HostedPolicy(config, limits=limits(reservation))
    record, _ = serve(config, hosted=hosted)
    ledger, figures = record.ledger, hosted.figures
    assert figures.service() == {
        client: ledger.service(client).units(View.ACTUAL, config.cost) for client in ledger.clients()
    }
    recomputed = sum(figure.value for figure in figures.samples() if "recomputed" in figure.name)
    assert recomputed == record.recomputed_tokens
    prompt = sum(job.request.input_tokens for job in record.finished_jobs)
    cached = sum(job.cached_tokens for job in record.finished_jobs)
    assert figures.hit_rate == pytest.approx(cached / prompt)
    assert figures.bound_ratio is not None
    assert 0 < figures.bound_ratio <= 1
    assert figures.bound_ratio_so_far is not None
    exact = ledger.largest_gap().value
    assert float(figures.monitor.largest_gap.exact) <= exact
    # Output is looked at in batches, between admissions.
    assert float(figures.monitor.largest_gap.exact) >= 0.8 * exact


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(DECISIONS), st.integers(0, 40), st.sampled_from(["full", "none"]))
def test_whatever_call_fails_everybody_is_served(name: str, after: int, reservation: str) -> None:
    """A policy that raises is left at once: every request is still served, and the failure is told once."""
    config = PolicyConfig(quantum=64, reservation=reservation)
    told: list[Exception] = []

    def make(config: PolicyConfig, prefixes: Prefixes | None) -> Policy:
        return Failing(make_policy(config, prefixes), name, after)  # type: ignore[return-value]

    hosted = HostedPolicy(config, on_error=told.append, make=make)
    record, _ = serve(config, hosted=hosted)
    assert len(record.finished_jobs) == len(workload())
    assert len(told) == hosted.errors == hosted.failed
    assert not hosted.live


def failed_policy(*ids: str) -> HostedPolicy:
    """Return a hosted policy that has failed before these requests arrived."""

    def make(config: PolicyConfig, prefixes: Prefixes | None) -> Policy:
        return Failing(make_policy(config, prefixes), "arrive", 0)  # type: ignore[return-value]

    hosted = HostedPolicy(PolicyConfig(), make=make)
    for id in ids:
        hosted.arrive(Request(id, "client", 10, 10))
    return hosted


def ids(requests: Sequence[Request]) -> list[str]:
    """Return their ids."""
    return [request.id for request in requests]


def test_after_a_failure_requests_are_offered_in_arrival_order() -> None:
    """Deferred ones come again in the next pass, preempted ones in their old place, blocked ones later."""
    policy = failed_policy("1", "2", "3", "4")
    assert ids(policy.plan(2)) == ["1", "2"]
    policy.defer("1", Refusal.NO_ROOM)
    policy.defer("2", Refusal.BLOCKED)
    assert ids(policy.plan(9)) == ["3", "4"]
    receipt = policy.take("3", extend=10, reserve=10)
    policy.refund(policy.amend(receipt, extend=5))
    policy.begin_pass()
    assert ids(policy.plan(9)) == ["1", "3", "4"]
    policy.unblock("2")
    policy.take("1", extend=10, reserve=10)
    policy.preempt("1", output=0, keep_hold=False)
    assert ids(policy.plan(9)) == ["1", "2", "3", "4"]
    policy.finish("1", output=0)
    first = policy.peek()
    assert first is not None
    assert first.id == "2"


def test_a_failed_policy_is_not_asked_again() -> None:
    """The failure counts once, whatever happens afterwards."""
    policy = failed_policy("1", "2")
    policy.begin_pass()
    policy.produced({"nobody": 3})
    policy.reweigh("client", 2)
    assert policy.failed
    assert policy.errors == 1


def test_clients_beyond_the_limit_are_counted_as_other() -> None:
    """Invented names cannot grow the figures."""
    figures = Figures(PolicyConfig(), names=2)
    for number in range(1000):
        figures.arrived(f"client {number}")
        figures.queued(f"client {number}", +1)
        figures.queued(f"client {number}", -1)
    assert figures.names == ["client 0", "client 1", OTHER]
    requests = {s.labels["fairness_id"]: s.value for s in figures.samples() if s.name.endswith("request_total")}
    assert requests == {"client 0": 1, "client 1": 1, OTHER: 998}
