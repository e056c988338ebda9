"""What hosts and authors of policies write: type checkers take it, and see the types that are promised.

Read by mypy and by pyright (`make lint`, `make types`); nothing in here runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from typing_extensions import assert_type

from fairprefix import (
    D2LPM,
    DLPM,
    FCFS,
    LPM,
    VTC,
    ApproximateIndex,
    AskedPrefixes,
    Choice,
    CostWeights,
    Gap,
    HostContract,
    Ledger,
    NoPrefixes,
    Policy,
    PolicyConfig,
    Prefixes,
    PrefixIndex,
    Receipt,
    Refusal,
    Request,
    Router,
    RouterConfig,
    Service,
    bounds,
    chain_hashes,
    jain_index,
    make_policy,
    make_router,
    restore_policy,
)
from fairprefix.hosting import HostedPolicy
from fairprefix.testing import Claims, Report, check_policy
from fairprefix.workload import Workload, WorkloadSize, make_workload


def a_host(prompt: Sequence[int]) -> None:
    """Every step of a request's life has a type."""
    index = PrefixIndex(block_size=16)
    policy = make_policy(PolicyConfig(policy="dlpm", quantum=2048, weights={"alice": 2}), index)
    policy.arrive(Request("r", "alice", input_tokens=32, max_output=8, blocks=chain_hashes(prompt, 16)))
    policy.begin_pass()
    assert_type(policy.peek(), Request | None)
    assert_type(list(policy.plan(8, budget=1024)), list[Request])
    receipt = policy.take("r", extend=32, reserve=8)
    assert_type(receipt, Receipt)
    assert_type(policy.amend(receipt, extend=16), Receipt)
    policy.defer("r", Refusal.NO_ROOM)
    policy.produced({"alice": 1})
    policy.preempt("r", output=1, keep_hold=False)
    policy.finish("r", output=1)
    policy.reweigh("alice", 3)


def any_policy_is_a_policy(config: PolicyConfig) -> Sequence[Policy]:
    """The classes, what wraps them and what restores them fit one interface."""
    policies: list[Policy] = [FCFS(config), LPM(config), VTC(config), DLPM(config)]
    restored: Policy = restore_policy(policies[0].snapshot(), NoPrefixes())
    contract: Policy = HostContract(restored)
    hosted: Policy = HostedPolicy(config, PrefixIndex(16))
    return [*policies, contract, hosted]


def any_view_is_a_view() -> Sequence[Prefixes]:
    """An index, a view that asks, and none at all fit one interface."""

    def ask(request: Request) -> int:
        return request.input_tokens

    return [PrefixIndex(16), AskedPrefixes(ask), NoPrefixes()]


def a_router(config: RouterConfig) -> Router:
    """A router is made from a configuration, or directly."""
    router: Router = make_router(config)
    assert_type(router.pick(Request("r", "alice", input_tokens=32, max_output=8)), Choice | None)
    return D2LPM(RouterConfig(), ApproximateIndex())


def figures(ledger: Ledger) -> Fraction | None:
    """What was received is counted in whole units, and compared exactly."""
    assert_type(ledger.service("alice"), Service)
    assert_type(ledger.largest_gap(), Gap)
    return jain_index([1, 2])


def a_bound() -> int:
    """Bounds are numbers that say what they assume."""
    engine = bounds.Engine(
        reservation="full", kv_tokens=10_000, max_running=64, longest_input=4_000, longest_output=1_000
    )
    bound = bounds.dlpm_both_backlogged(engine, CostWeights(), quantum=2048)
    assert_type(bound, bounds.Bound)
    return int(bound.value)


def a_verdict() -> Report:
    """The kit takes a factory: any callable that makes a policy."""

    def make(config: PolicyConfig, prefixes: Prefixes) -> Policy:
        return DLPM(config, prefixes)

    return check_policy(make, claims=Claims(bound="dlpm"))


def a_workload() -> Workload:
    """Workloads are made by name."""
    return make_workload("S1@ToT", WorkloadSize(programs=2, rate=1.0), seed=0)
