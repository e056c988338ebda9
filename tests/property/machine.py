"""A Hypothesis state machine that drives a policy and its oracle side by side, event by event."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fairprefix.core.base import BasePolicy
from fairprefix.core.catalog import make_policy, restore_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.cost import Receipt
from fairprefix.core.policy import Refusal
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.core.request import Request
from fairprefix.testing.oracle import Job, Oracle, Settings
from tests.support import sized

CLIENTS = ("a", "b", "c", "d")
NAMESPACES = ("", "salted")
PATHS: tuple[tuple[int, ...], ...] = tuple(
    tuple(int(name[: depth + 1]) for depth in range(len(name)))
    for name in ("1", "2", "11", "12", "21", "111", "112", "121", "211", "1111", "1112")
)
"""The prompts' chains of blocks: a small forest, in which block 112 comes after block 11, after block 1."""

Arrival = tuple[str, tuple[int, ...], int, int, int]
"""(client, prefix, further tokens, most output tokens, namespace)."""

ARRIVALS: st.SearchStrategy[Arrival] = st.tuples(
    st.sampled_from(CLIENTS),
    st.sampled_from((*PATHS, ())),
    st.integers(0, 3),
    st.integers(1, 6),
    st.sampled_from([0, 0, 0, 0, 1]),
)

ANSWER = st.sampled_from(["take", "take", "take", "no_room", "blocked"])
ANSWERS = st.lists(ANSWER, min_size=1, max_size=6)

CHANGES = st.lists(
    st.tuples(st.booleans(), st.sampled_from(PATHS), st.integers(0, 3), st.sampled_from([0, 0, 0, 1])),
    min_size=1,
    max_size=4,
)
"""Runs of blocks: whether they become cached or are evicted, the chain, its first block in question, namespace."""

pick = st.integers(0, 63)
"""Which of the requests in question; taken modulo their number."""


def weighted(max_weight: int = 4) -> st.SearchStrategy[dict[str, int]]:
    """Return tables of client weights."""
    return st.dictionaries(st.sampled_from(CLIENTS), st.integers(1, max_weight), max_size=3)


def machine_settings(steps: int) -> settings:
    """Return the settings of the profile, for histories of `steps` events."""
    return settings(
        max_examples=sized(250, nightly=20_000, mutation=40),
        stateful_step_count=steps,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
    )


class PolicyMachine(RuleBasedStateMachine):
    """Every event goes to the policy and to its oracle; then both must say the same."""

    configs: ClassVar[st.SearchStrategy[PolicyConfig]]
    oracle_class: ClassVar[type[Oracle]]

    def __init__(self) -> None:
        super().__init__()
        self.receipts: dict[str, Receipt] = {}
        self.reweighed: set[str] = set()
        """Requests whose client's weight has changed since they were admitted."""
        self.arrivals = 0
        self.block_size = 1

    @initialize(data=st.data(), block_size=st.integers(1, 4), arrivals=st.lists(ARRIVALS, max_size=8))
    def start(self, data: st.DataObject, block_size: int, arrivals: list[Arrival]) -> None:
        """Make a policy and its oracle, with some requests that wait already."""
        config = data.draw(self.configs, label="config")
        self.block_size = block_size
        self.index = PrefixIndex(block_size)
        self.policy: BasePolicy = make_policy(config, self.index)
        self.oracle = self.oracle_class(
            Settings(
                block_size=block_size,
                quantum=config.quantum,
                weights=dict(config.weights),
                w_e=config.cost_extend,
                w_q=config.cost_output,
                bounded_wait=config.bounded_wait,
                slack=config.slack if config.gate == "credit" else None,
                overdraft=config.overdraft,
                recompute_is_charged=config.recompute == "charged",
                vtc_charges_extend=config.vtc_charge == "extend",
            )
        )
        self.arrive(arrivals)

    # Helpers.

    def jobs(self, *places: str) -> list[Job]:
        """Return the requests in one of these places."""
        return [job for job in self.oracle.jobs.values() if job.place in places]

    def fresh_extend(self, job: Job) -> int:
        """Return the tokens that have to be computed to run a request."""
        return job.prompt + job.output - self.oracle.match(job)

    def admit(self, job: Job, extend: int, reserve: int) -> None:
        """Take a request on both sides."""
        receipt = self.policy.take(job.id, extend=extend, reserve=reserve)
        self.oracle.admit(job, extend, reserve)
        self.receipts[job.id] = receipt
        self.reweighed.discard(job.id)
        assert (receipt.extend, receipt.reserve, receipt.charged) == (extend, reserve, job.charged)

    def refuse(self, job: Job, why: Refusal) -> None:
        """Defer a request on both sides."""
        self.policy.defer(job.id, why)
        if why is Refusal.BLOCKED:
            self.oracle.block(job)
        else:
            self.oracle.refuse(job)

    def rebuilt_index(self) -> PrefixIndex:
        """Return a new index of the same cache."""
        index = PrefixIndex(self.block_size)
        for namespace in NAMESPACES:
            for path in PATHS:
                if (namespace, path[-1]) in self.oracle.cache:
                    index.cached(path, start=len(path) - 1, namespace=namespace)
        return index

    def restored(self) -> tuple[BasePolicy, PrefixIndex]:
        """Return a copy of the policy that went through JSON."""
        index = self.rebuilt_index()
        return restore_policy(json.loads(json.dumps(self.policy.snapshot())), index), index

    def account_view(self, policy: BasePolicy) -> Any:  # noqa: ANN401 (whatever the policy keeps)
        """Return what the policy keeps about its clients."""

    def oracle_view(self) -> Any:  # noqa: ANN401
        """Return what the oracle says about the same."""

    def all_outstanding(self, policy: BasePolicy) -> Sequence[int]:  # noqa: ARG002
        """Return the outstanding output of every account."""
        return []

    # Events.

    @rule(arrivals=st.lists(ARRIVALS, min_size=1, max_size=5))
    def arrive(self, arrivals: list[Arrival]) -> None:
        """Requests arrive."""
        for client, path, extra, max_output, salted in arrivals:
            self.arrivals += 1
            job = Job(
                id=f"r{self.arrivals}",
                client=client,
                prompt=max(1, len(path) * self.block_size + extra),
                max_output=max_output,
                blocks=path,
                namespace=NAMESPACES[salted],
            )
            self.policy.arrive(Request(job.id, client, job.prompt, max_output, path, job.namespace))
            self.oracle.arrive(job)

    @precondition(lambda self: self.jobs("waiting"))
    @rule(answers=ANSWERS, short=st.sampled_from([0, 0, 0, 1, 2]), same_pass=st.booleans())
    def offers(self, answers: list[str], short: int, *, same_pass: bool) -> None:
        """The host asks, and admits or refuses what it is offered."""
        if not same_pass:
            self.policy.begin_pass()
            self.oracle.begin_pass()
        for answer in answers:
            offered = self.policy.peek()
            job = self.oracle.next()
            assert (offered and offered.id) == (job and job.id)
            if job is None:
                return
            if answer == "take":
                reserve = max(0, job.max_output - job.output - short)
                self.admit(job, self.fresh_extend(job), reserve)
            else:
                self.refuse(job, Refusal(answer))

    @precondition(lambda self: self.jobs("waiting", "running"))
    @rule(answers=ANSWERS, tokens=st.integers(1, 3))
    def step(self, answers: list[str], tokens: int) -> None:
        """An engine's step: a pass, then every running request produces, and those that are done finish."""
        self.offers(answers, short=0, same_pass=False)
        self.produce([tokens] * len(self.oracle.jobs))
        for job in self.jobs("running"):
            if job.output == job.max_output:
                self.policy.finish(job.id, output=job.output)
                self.oracle.finish(job)

    @precondition(lambda self: self.jobs("waiting"))
    @rule(which=pick, answer=ANSWER, extend=st.integers(0, 9), reserve=st.integers(0, 6))
    def unasked(self, which: int, answer: str, extend: int, reserve: int) -> None:
        """The host admits or refuses a request that need not have been offered."""
        jobs = self.jobs("waiting")
        job = jobs[which % len(jobs)]
        if answer == "take":
            self.admit(job, extend, reserve)
        else:
            self.refuse(job, Refusal(answer))

    @precondition(lambda self: self.jobs("blocked"))
    @rule(which=pick)
    def unblock(self, which: int) -> None:
        """What blocked a request is gone."""
        jobs = self.jobs("blocked")
        job = jobs[which % len(jobs)]
        self.policy.unblock(job.id)
        self.oracle.unblock(job)

    @precondition(lambda self: self.jobs("running"))
    @rule(amounts=st.lists(st.integers(0, 4), min_size=1, max_size=6))
    def produce(self, amounts: list[int]) -> None:
        """A step: the running requests produce some tokens each, one report for each client."""
        tokens: dict[str, int] = {}
        for job, wanted in zip(self.jobs("running"), amounts, strict=False):
            amount = min(wanted, job.max_output - job.output)
            tokens[job.client] = tokens.get(job.client, 0) + amount
            self.oracle.produce(job, amount)
        self.policy.produced(tokens)

    @precondition(lambda self: self.jobs("running"))
    @rule(which=pick, keep_hold=st.booleans())
    def preempt(self, which: int, *, keep_hold: bool) -> None:
        """A running request loses its memory."""
        jobs = self.jobs("running")
        job = jobs[which % len(jobs)]
        self.policy.preempt(job.id, output=job.output, keep_hold=keep_hold)
        self.oracle.preempt(job, held=keep_hold)

    @precondition(lambda self: self.jobs("held"))
    @rule(which=pick)
    def resume(self, which: int) -> None:
        """The host resumes a held request by itself."""
        jobs = self.jobs("held")
        job = jobs[which % len(jobs)]
        self.admit(job, self.fresh_extend(job), job.max_output - job.output)

    @precondition(lambda self: self.oracle.jobs)
    @rule(which=pick)
    def finish(self, which: int) -> None:
        """A request is done, or is aborted wherever it stands."""
        jobs = list(self.oracle.jobs.values())
        job = jobs[which % len(jobs)]
        self.policy.finish(job.id, output=job.output)
        self.oracle.finish(job)

    @precondition(lambda self: self.oracle.jobs)
    @rule(client=st.sampled_from(CLIENTS))
    def leave(self, client: str) -> None:
        """A client goes away: all of its requests end, wherever they stand; later arrivals are its return."""
        for job in [job for job in self.oracle.jobs.values() if job.client == client]:
            self.policy.finish(job.id, output=job.output)
            self.oracle.finish(job)

    @precondition(lambda self: self.jobs("running"))
    @rule()
    def chunk(self) -> None:
        """A step in which nothing but chunks of prompts is computed: nobody produces."""
        self.policy.begin_pass()
        self.oracle.begin_pass()
        self.produce([0] * len(self.oracle.jobs))

    @precondition(lambda self: self.refundable())
    @rule(which=pick)
    def refund(self, which: int) -> None:
        """An admission did not happen after all."""
        jobs = self.refundable()
        job = jobs[which % len(jobs)]
        self.policy.refund(self.receipts.pop(job.id))
        self.oracle.refund(job)

    def refundable(self) -> list[Job]:
        """Return the requests that have been admitted just now, from the queue."""
        return [
            job
            for job in self.jobs("running")
            if job.output == job.before and not job.resumed and job.id not in self.reweighed
        ]

    @precondition(lambda self: self.amendable())
    @rule(which=pick, extend=st.none() | st.integers(0, 9), reserve=st.none() | st.integers(0, 6))
    def amend(self, which: int, extend: int | None, reserve: int | None) -> None:
        """The true size of an admission becomes known."""
        jobs = self.amendable()
        job = jobs[which % len(jobs)]
        receipt = self.policy.amend(self.receipts[job.id], extend=extend, reserve=reserve)
        self.oracle.amend(
            job,
            job.extend if extend is None else extend,
            job.reserve if reserve is None else reserve,
        )
        self.receipts[job.id] = receipt
        assert (receipt.extend, receipt.reserve, receipt.charged) == (job.extend, job.reserve, job.charged)

    def amendable(self) -> list[Job]:
        """Return the admitted requests whose charge was made at the client's present weight."""
        return [job for job in self.jobs("running", "held") if job.id not in self.reweighed]

    @precondition(lambda self: self.oracle.jobs)
    @rule(client=st.sampled_from(CLIENTS), weight=st.integers(1, 4))
    def reweigh(self, client: str, weight: int) -> None:
        """A client's weight changes."""
        self.policy.reweigh(client, weight)
        self.oracle.reweigh(client, weight)
        self.reweighed |= {job.id for job in self.jobs("running", "held") if job.client == client}

    @rule(changes=CHANGES)
    def cache_changes(self, changes: list[tuple[bool, tuple[int, ...], int, int]]) -> None:
        """Runs of blocks become cached or are evicted, also out of the middle of longer chains."""
        for cached, path, start, salted in changes:
            namespace = NAMESPACES[salted]
            blocks = {(namespace, block) for block in path[start:]}
            if cached:
                self.index.cached(path, start=start, namespace=namespace)
                self.oracle.cache |= blocks
            else:
                self.index.evicted(path, start=start, namespace=namespace)
                self.oracle.cache -= blocks

    @precondition(lambda self: self.oracle.jobs)
    @rule(limit=st.integers(0, 6), carry_on=st.booleans())
    def restore(self, limit: int, *, carry_on: bool) -> None:
        """A copy that went through JSON is equal, and offers one after the other what was planned."""
        planned = [request.id for request in self.policy.plan(limit)]
        copy, index = self.restored()
        assert copy.canonical() == self.policy.canonical()
        assert copy.snapshot() == self.policy.snapshot()
        assert [request.id for request in copy.plan(limit)] == planned
        if carry_on:
            self.policy, self.index = copy, index
            copy, index = self.restored()
        for id in planned:
            offered = copy.peek()
            assert offered is not None
            assert offered.id == id
            job = self.oracle.jobs[id]
            copy.take(id, extend=self.fresh_extend(job), reserve=max(0, job.max_output - job.output))
        assert len(planned) == limit or copy.peek() is None

    # What must hold at any time.

    @invariant()
    def agrees_with_the_oracle(self) -> None:
        """Both offer the same request and keep the same accounts; looking leaves the policy as it was."""
        if not hasattr(self, "policy"):
            return
        self.policy.validate()
        self.index.validate()
        canonical, snapshot = self.policy.canonical(), self.policy.snapshot()
        offered, planned = self.policy.peek(), self.policy.plan(3)
        assert BasePolicy.plan(self.policy, 3) == planned, "foreseen and tried plans differ"
        assert self.policy.canonical() == canonical
        assert self.policy.snapshot() == snapshot
        self.policy.validate()
        expected = self.oracle.next()
        assert (offered and offered.id) == (expected and expected.id)
        assert (planned[0].id if planned else None) == (expected and expected.id)
        assert self.account_view(self.policy) == self.oracle_view()

    def teardown(self) -> None:
        """At the end everything finishes, and nothing stays outstanding."""
        if not hasattr(self, "policy"):
            return
        for job in list(self.oracle.jobs.values()):
            self.policy.finish(job.id, output=job.output)
        self.policy.validate()
        self.index.validate()
        assert not any(self.all_outstanding(self.policy))
        assert self.policy.peek() is None
