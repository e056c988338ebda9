"""The virtual engine keeps the host contract, counts every token and jumps over decode steps exactly."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import POLICIES, PolicyConfig
from fairprefix.core.contract import HostContract
from fairprefix.core.ledger import Ledger
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.sim.decoderun import DecodeCurve, DecodeRun
from fairprefix.sim.engine import EngineConfig, OversizeError, StalledError, VirtualEngine
from fairprefix.sim.kvcache import KVCache
from fairprefix.sim.record import RunRecord
from fairprefix.sim.steptime import step_time_model
from fairprefix.sim.trace import TraceRequest

MS = 1_000_000


class OneMillisecond:
    """A step takes 1 ms and 1 us per prefilled token; decode steps grow by 1 ns per token of context."""

    name = "test"
    kv_tokens = 100

    def step_ps(self, *, prefills: Sequence[tuple[int, int]], decodes: int, context: int) -> int:
        """Return the time of one step."""
        new = sum(tokens for tokens, _past in prefills)
        return 1_000_000_000 + 1_000_000 * new + (1000 * context if decodes else 0)

    def decode_run(self, decodes: int, context: int) -> DecodeRun:
        """Return the same for a run of decode steps."""
        return DecodeRun(DecodeCurve((0,), (1_000_000_000,), (1000,)), decodes, context)


def requests(*rows: tuple[int, str, int, int, tuple[int, ...]]) -> list[TraceRequest]:
    """Return trace requests from (arrival in ms, client, input, output, blocks)."""
    return [
        TraceRequest(at * MS, client, tokens, output, blocks=blocks) for at, client, tokens, output, blocks in rows
    ]


def run(
    rows: Sequence[TraceRequest],
    *,
    policy: PolicyConfig | None = None,
    config: EngineConfig | None = None,
    ready_ns: int = 0,
) -> tuple[VirtualEngine, RunRecord]:
    """Run requests under a policy whose host contract is checked."""
    config = config or EngineConfig(kv_tokens=200, chunk=16, max_batch=4)
    policy = policy or PolicyConfig(quantum=10, reservation=config.reservation)
    cache = KVCache(config.kv_tokens, PrefixIndex(4))
    checked = HostContract(make_policy(policy, cache.index))
    record = RunRecord(Ledger(policy.cost))
    engine = VirtualEngine(config, OneMillisecond(), cache, checked, record, lambda _request: ready_ns)
    engine.run(rows)
    checked.close()
    checked.validate()
    cache.check_integrity([])
    assert cache.room == config.kv_tokens
    return engine, record


def test_one_request_takes_the_time_of_its_steps() -> None:
    """A lone request prefills in chunks, yields its first token with the last chunk, then decodes."""
    engine, record = run(requests((5, "a", 40, 3, ())))
    job = record.finished_jobs[0]
    # Chunks of 16, 16 and 8 tokens: 1 ms each and 1 us per token; then two decode steps over 41 and 42 tokens.
    first = 5 * MS + 3 * MS + 40_000
    assert job.first_token_ns == first
    assert job.finished_ns == first + 2 * MS + 41 + 42
    assert engine.steps == 5


def test_a_cached_prefix_is_not_computed_again() -> None:
    """The second request of a document computes only what is not cached, and at least one token."""
    blocks = (1, 2, 3)
    _engine, record = run(requests((0, "a", 14, 2, blocks), (100, "a", 14, 2, blocks), (200, "a", 12, 2, blocks)))
    assert [job.cached_tokens for job in record.finished_jobs] == [0, 12, 11]
    assert record.ledger.service("a").extend == 14 + 2 + 1


def test_requests_of_one_pass_share_what_an_earlier_step_computed() -> None:
    """Blocks count as cached from the step that computes them, also while their request still runs."""
    _engine, record = run(requests((0, "a", 16, 50, (1, 2, 3, 4)), (1, "b", 16, 50, (1, 2, 3, 4))))
    assert [job.cached_tokens for job in record.finished_jobs] == [0, 15]


def test_full_reservation_never_preempts() -> None:
    """With full reservation a request waits until its longest output fits."""
    rows = [TraceRequest(0, "a", 10, 40, 80) for _ in range(4)]
    engine, _record = run(rows, config=EngineConfig(kv_tokens=200, chunk=64, max_batch=4))
    assert engine.preemptions == 0
    admitted = sorted(job.admitted_ns for job in _record.finished_jobs)
    assert admitted[1] == 0 < admitted[2]


def test_occupancy_admission_preempts_and_computes_again() -> None:
    """Without reservation more requests start, some lose their memory, and all still finish."""
    rows = [TraceRequest(0, "a", 10, 80) for _ in range(4)]
    config = EngineConfig(kv_tokens=200, chunk=64, max_batch=4, reservation="none")
    engine, record = run(rows, config=config)
    assert engine.preemptions > 0
    assert record.recomputed_tokens > 0
    assert record.ledger.service("a").extend == 40
    assert record.ledger.service("a").output == 320


def test_blocked_requests_wait_until_they_are_ready() -> None:
    """A request that is blocked for a reason other than room starts when that reason is gone."""
    _engine, record = run(requests((0, "a", 8, 2, ()), (3, "b", 8, 2, ())), ready_ns=50 * MS)
    assert [job.admitted_ns for job in record.finished_jobs] == [50 * MS, 50 * MS]


def test_a_request_that_can_never_fit_is_an_error_that_says_what_to_do() -> None:
    """An oversized request is refused with its size, the pool's size and the way out."""
    with pytest.raises(OversizeError, match=r"request 0 needs 201 tokens .* holds 200: .*--oversize reject"):
        run(requests((0, "a", 190, 10, ())))


def test_oversized_requests_can_be_rejected_and_counted() -> None:
    """With oversize=reject the others are served, and the rejected ones are kept."""
    config = EngineConfig(kv_tokens=200, oversize="reject")
    _engine, record = run(requests((0, "a", 190, 10, ()), (0, "a", 189, 10, ())), config=config)
    assert len(record.rejected_requests) == len(record.finished_jobs) == 1


def test_a_policy_that_offers_nobody_is_reported() -> None:
    """A policy that leaves an empty engine idle for ever is an error, not an endless loop."""
    cache = KVCache(200, PrefixIndex(4))
    policy = make_policy(PolicyConfig(), cache.index)
    policy.peek = lambda: None  # type: ignore[method-assign]  # the broken policy
    engine = VirtualEngine(EngineConfig(kv_tokens=200), OneMillisecond(), cache, policy, RunRecord(Ledger()))
    with pytest.raises(StalledError, match="1 requests wait in an empty engine"):
        engine.run(requests((0, "a", 8, 2, ())))


class OneStepAtATime(OneMillisecond):
    """The same model, but runs of decode steps cannot be jumped over."""

    def decode_run(self, decodes: int, context: int) -> DecodeRun:
        """Return a run that never fits more than one step."""
        run = super().decode_run(decodes, context)
        return _Short(run)  # type: ignore[return-value]  # quacks like one


class _Short:
    def __init__(self, run: DecodeRun) -> None:
        self._run = run

    def total_ps(self, steps: int) -> int:
        return self._run.total_ps(steps)

    def steps_within(self, _budget: int) -> int:
        return 0


workloads = st.lists(
    st.tuples(
        st.integers(0, 400),
        st.sampled_from(["a", "b", "c"]),
        st.integers(1, 60),
        st.integers(1, 40),
        st.integers(0, 3),
        st.integers(0, 10),
    ),
    min_size=1,
    max_size=25,
)


def trace_of(rows: Sequence[tuple[int, str, int, int, int, int]]) -> list[TraceRequest]:
    """Return a workload whose prompts share beginnings within a family."""
    return sorted(
        (
            TraceRequest(
                at * MS // 4,
                client,
                tokens,
                output,
                output + extra,
                tuple(100 * family + place for place in range(tokens // 4)),
            )
            for at, client, tokens, output, family, extra in rows
        ),
        key=lambda request: request.arrival_ns,
    )


@settings(max_examples=60)
@given(
    workloads,
    st.sampled_from(POLICIES),
    st.sampled_from(["full", "none"]),
    st.sampled_from(["deficit", "credit"]),
    st.sampled_from([None, 1, 3]),
)
def test_every_request_is_served_whole(
    rows: list[tuple[int, str, int, int, int, int]], policy: str, reservation: str, gate: str, wait: int | None
) -> None:
    """Under every policy, gate and reservation mode all requests finish, and all tokens are accounted for."""
    config = EngineConfig(kv_tokens=130, chunk=24, max_batch=5, reservation=reservation, lookahead=3)
    settings_of_policy = PolicyConfig(
        policy=policy, quantum=20, gate=gate, slack=30, reservation=reservation, bounded_wait=wait
    )
    trace = trace_of(rows)
    _engine, record = run(trace, policy=settings_of_policy, config=config)
    assert len(record.finished_jobs) == len(trace)
    for client in record.ledger.clients():
        mine = [job for job in record.finished_jobs if job.request.client == client]
        service = record.ledger.service(client)
        assert service.output == sum(job.trace.output_tokens for job in mine)
        assert service.extend == sum(job.trace.input_tokens - job.cached_tokens for job in mine)


@settings(max_examples=40)
@given(workloads, st.sampled_from(["full", "none"]))
def test_jumping_over_decode_steps_changes_nothing(
    rows: list[tuple[int, str, int, int, int, int]], reservation: str
) -> None:
    """A run of decode steps taken at once ends at the same picosecond, step count and service as step by step."""
    # A last request, far away, keeps an event ahead: the short run then really takes one step at a time.
    trace = [*trace_of(rows), TraceRequest(3600 * 1000 * MS, "a", 1, 1)]
    outcomes = []
    for model in (OneMillisecond(), OneStepAtATime()):
        config = EngineConfig(kv_tokens=130, chunk=24, max_batch=5, reservation=reservation, pass_interval=1)
        cache = KVCache(130, PrefixIndex(4))
        record = RunRecord(Ledger())
        policy = make_policy(PolicyConfig(quantum=20, reservation=reservation), cache.index)
        engine = VirtualEngine(config, model, cache, policy, record)
        engine.run(trace)
        outcomes.append(
            (
                engine.clock_ps,
                engine.steps,
                sorted((job.request.id, job.first_token_ns, job.finished_ns) for job in record.finished_jobs),
            )
        )
    assert outcomes[0] == outcomes[1]


def test_the_shipped_models_drive_the_engine() -> None:
    """The engine runs with a roofline model as shipped."""
    cache = KVCache(1000, PrefixIndex(4))
    record = RunRecord(Ledger())
    engine = VirtualEngine(
        EngineConfig(kv_tokens=1000),
        step_time_model("llama-3.1-8b", "a10g"),
        cache,
        make_policy(PolicyConfig(), cache.index),
        record,
    )
    engine.run(requests((0, "a", 100, 20, ())))
    assert 0.5e9 < engine.clock_ns < 1.5e9
