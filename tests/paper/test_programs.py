"""Programs in closed loop through the virtual engine."""

from __future__ import annotations

from typing import Any, cast

import pytest

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.cost import Receipt
from fairprefix.core.errors import ConfigError
from fairprefix.core.ledger import Ledger
from fairprefix.core.policy import Policy
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.sim.engine import EngineConfig, OversizeError
from fairprefix.sim.fleet import Fleet, WorkerSpec
from fairprefix.sim.job import Job
from fairprefix.sim.programfigures import all_active, program_figures
from fairprefix.sim.programs import ProgramRecord, ProgramRequest, run_programs, static_trace
from fairprefix.workload import Call, Part, Program, Workload, WorkloadSize, make_workload
from tests.sim.test_engine import OneMillisecond

MS = 1_000_000
LPM = PolicyConfig(policy="lpm")


def fleet(workers: int = 1, **engine: int | str) -> Fleet:
    """Return workers whose every step takes a millisecond."""
    config = EngineConfig(**{"kv_tokens": 40_000, "chunk": 4096, **engine})  # type: ignore[arg-type]  # checked
    return Fleet(workers=(WorkerSpec(config, OneMillisecond()),) * workers, arrangement="rr")


def jobs_of(record: ProgramRecord) -> dict[tuple[int, int], Job]:
    """Return the finished calls by program and call."""
    found = {}
    for job in record.finished_jobs:
        assert isinstance(job.trace, ProgramRequest)
        found[job.trace.program, job.trace.call] = job
    return found


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("name", ["S1@ToT", "Judge", "Chat"])
def test_a_call_arrives_when_its_parents_are_done_and_not_before(name: str, workers: int) -> None:
    """Exactly at the last parent's end, plus the delay that the program asks for."""
    workload = make_workload(name, WorkloadSize(programs=2, rate=5.0))
    _, record = run_programs(workload, LPM, fleet(workers))
    jobs = jobs_of(record)
    assert len(jobs) == workload.calls
    for (number, place), job in jobs.items():
        program = workload.programs[number]
        call = program.calls[place]
        ready = max((jobs[number, earlier].finished_ns for earlier in call.after), default=program.arrival_ns)
        assert job.trace.arrival_ns == ready + call.delay_ns
        assert job.admitted_ns >= job.trace.arrival_ns


def test_a_follow_up_finds_the_answer_cached() -> None:
    """Blocks of prompt and answer are reused, but for the last token, which was produced and never computed."""
    question, answer = Part(1, 40), Part(2, 24)
    follow = Call((question, answer, Part(3, 10)), Part(4, 5), after=(0,))
    workload = Workload("w", [Program("c", 0, [Call((question,), answer), follow])], block_size=8)
    _, record = run_programs(workload, LPM, fleet())
    assert jobs_of(record)[0, 1].cached_tokens == 56  # of 64: the eighth block lacks its last token


def test_what_nobody_goes_on_from_is_not_kept() -> None:
    """Answers at the end of a program take no room in the cache."""
    workload = Workload("w", [Program("c", 0, [Call((Part(1, 40),), Part(2, 24))])], block_size=8)
    run, _ = run_programs(workload, LPM, fleet())
    assert run._caches[0].index.cached_blocks() == 5


def test_a_run_may_stop_when_the_well_behaved_are_done() -> None:
    """What is left of a flood concerns nobody: all programs of the others are finished, not all of its own."""
    workload = make_workload("S1@ToT", WorkloadSize(programs=3, rate=50.0))
    config = PolicyConfig(policy="vtc")
    _, record = run_programs(workload, config, fleet(max_batch=16), to_the_end=False)
    done = {workload.programs[number].client for number in record.finished_ns}
    assert sum(workload.programs[number].client != "c0" for number in record.finished_ns) == 6
    assert len(record.finished_ns) < len(workload.programs)
    assert {"c1", "c2"} <= done


def test_the_same_workload_gives_the_same_run() -> None:
    """Bit for bit."""
    workload = make_workload("Mix", WorkloadSize(programs=2, rate=5.0, clients=4))
    first, second = (run_programs(workload, LPM, fleet(2))[1] for _ in range(2))
    assert first.finished_ns == second.finished_ns
    assert first.client_view == second.client_view


def test_a_call_that_can_never_fit_is_told_before_the_run() -> None:
    """Its program could not go on."""
    workload = make_workload("LongQA", WorkloadSize(programs=2, rate=1.0))
    with pytest.raises(OversizeError, match=r"can never fit|needs"):
        run_programs(workload, LPM, fleet(kv_tokens=5000))
    with pytest.raises(OversizeError, match="a program cannot go on"):
        run_programs(workload, LPM, fleet(kv_tokens=5000, oversize="reject"))


def test_the_static_trace_has_every_call() -> None:
    """With its sizes, at the arrival of its program."""
    workload = make_workload("Judge", WorkloadSize(programs=2, rate=1.0))
    trace = static_trace(workload)
    assert len(trace.requests) == workload.calls
    assert sum(r.input_tokens for r in trace.requests) == sum(
        c.input_tokens for p in workload.programs for c in p.calls
    )


class Told:
    """Passes everything on to a policy, and notes what it is told to expect."""

    def __init__(self, policy: Policy, seen: list[int]) -> None:
        self._policy, self._seen = policy, seen

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  # whatever the policy has
        return getattr(self._policy, name)

    def take(self, id: str, *, extend: int, reserve: int) -> Receipt:
        """Note it."""
        self._seen.append(reserve)
        return self._policy.take(id, extend=extend, reserve=reserve)


def test_predictions_replace_the_limit_once_something_is_known() -> None:
    """With `predict="average"` a policy is told what requests of the client have produced on average."""
    seen: list[int] = []
    limit = [
        Program("c", at * 1000 * MS, [Call((Part(at, 10),), Part(100 + at, 8), max_output=50)]) for at in (1, 2)
    ]
    workload = Workload("w", limit)

    def watching(config: PolicyConfig, index: PrefixIndex) -> Policy:
        return cast("Policy", Told(make_policy(config, index), seen))

    run_programs(workload, LPM, fleet(predict="average"), make=watching)
    assert seen == [50, 8]
    with pytest.raises(ConfigError, match="predict"):
        EngineConfig(kv_tokens=10, predict="oracle")


# Figures.


def record_of(
    workload: Workload, finished: dict[int, int], seen: dict[str, list[tuple[int, int]]]
) -> ProgramRecord:
    """Return a record of what is given."""
    record = ProgramRecord(Ledger(), workload)
    record.finished_ns.update(finished)
    record.latencies_ns.update({n: at - workload.programs[n].arrival_ns for n, at in finished.items()})
    record.client_view.update(seen)
    return record


def simple(client: str, at_s: int) -> Program:
    """Return a program of one call."""
    return Program(client, at_s * 1_000_000_000, [Call((Part(1, 5),), Part(2, 5))])


def test_only_the_time_in_which_all_are_active_counts() -> None:
    """Service before, between and after the common intervals is left out of rate and index."""
    s = 1_000_000_000
    workload = Workload("w", [simple("a", 0), simple("b", 2), simple("a", 8)], greedy=frozenset({"b"}))
    seen = {
        "a": [(s, 100), (3 * s, 160), (9 * s, 200)],
        "b": [(3 * s, 60), (6 * s, 90), (9 * s, 130)],
    }
    record = record_of(workload, {0: 4 * s, 1: 10 * s, 2: 12 * s}, seen)
    assert all_active(workload, record, 12 * s) == [(2 * s, 4 * s), (8 * s, 10 * s)]
    figures = program_figures(workload, record, 12 * s)
    assert figures["seen"] == {"a": 100, "b": 100}
    assert figures["jain"] == 1.0
    assert figures["service_rate"] == 50.0
    assert figures["p50_s"] == 4.0  # the programs of a alone: b misbehaves
    assert figures["clients"]["b"]["makespan_s"] == 10.0


def test_without_a_common_interval_there_is_no_rate() -> None:
    """And no index: nobody competes."""
    s = 1_000_000_000
    workload = Workload("w", [simple("a", 0), simple("b", 5)])
    figures = program_figures(workload, record_of(workload, {0: s, 1: 6 * s}, {}), 6 * s)
    assert (figures["service_rate"], figures["jain"], figures["all_active_s"]) == (None, None, 0.0)
