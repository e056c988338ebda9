"""Programs in closed loop: a call arrives in the virtual engine once the calls that it depends on are done."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.ledger import Ledger
from fairprefix.core.request import Client
from fairprefix.sim.chains import Chain
from fairprefix.sim.fleet import Fleet, FleetRun, MakePolicy
from fairprefix.sim.job import Job, OversizeError
from fairprefix.sim.record import RunRecord
from fairprefix.sim.trace import Trace, TraceRequest
from fairprefix.workload.program import Call, Workload


@frozen(eq=False)
class ProgramRequest(TraceRequest):
    """A call of a program as the virtual engine gets it."""

    program: int = 0
    """Number of the program."""
    call: int = 0
    """Number of the call within it."""


class ProgramSource:
    """Releases the calls of a workload as the calls before them finish.

    Args:
        workload: the programs.
    """

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self._successors = [program.successors() for program in workload.programs]
        self._missing = [[len(set(call.after)) for call in program.calls] for program in workload.programs]
        """Per program and call: how many calls it still waits for."""

    def opening(self) -> list[ProgramRequest]:
        """Return the calls that wait for nobody, with the times at which they arrive."""
        return [
            self._request(number, place, program.arrival_ns)
            for number, program in enumerate(self.workload.programs)
            for place, call in enumerate(program.calls)
            if not call.after
        ]

    def follow(self, job: Job) -> list[TraceRequest]:
        """Return the calls that waited for this one alone, with the times at which they arrive."""
        done = job.trace
        assert isinstance(done, ProgramRequest), "not a request of this workload"
        missing = self._missing[done.program]
        released: list[TraceRequest] = []
        for place in self._successors[done.program][done.call]:
            missing[place] -= 1
            if not missing[place]:
                released.append(self._request(done.program, place, job.finished_ns))
        return released

    def _request(self, number: int, place: int, at_ns: int) -> ProgramRequest:
        program = self.workload.programs[number]
        call = program.calls[place]
        blocks, output_blocks = self._blocks(call, continued=bool(self._successors[number][place]))
        return ProgramRequest(
            arrival_ns=at_ns + call.delay_ns,
            client=program.client,
            input_tokens=call.input_tokens,
            output_tokens=call.output.tokens,
            max_output_tokens=call.limit,
            blocks=blocks,
            output_blocks=output_blocks,
            program=number,
            call=place,
        )

    def _blocks(self, call: Call, *, continued: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
        chain = Chain(self.workload.block_size).grow(call.prompt)
        prompt = tuple(chain.blocks)
        if not continued:
            return prompt, ()
        return prompt, tuple(chain.grow((call.output,)).blocks[len(prompt) :])


def static_trace(workload: Workload) -> Trace:
    """Return all calls as a trace, each at the arrival of its program: for sizes, not for times or prefixes."""
    requests = (
        TraceRequest(
            arrival_ns=program.arrival_ns,
            client=program.client,
            input_tokens=call.input_tokens,
            output_tokens=call.output.tokens,
            max_output_tokens=call.limit,
        )
        for program in workload.programs
        for call in program.calls
    )
    return Trace(workload.name, requests, workload.block_size, has_clients=True, notes=workload.notes)


class ProgramRecord(RunRecord):
    """Takes down, beside everything else, when programs finish and what clients see of their service."""

    def __init__(self, ledger: Ledger, workload: Workload) -> None:
        super().__init__(ledger)
        self.client_view: dict[Client, list[tuple[int, int]]] = {client: [] for client in workload.clients}
        """Per client: (ns, cumulative service units as the client sees it) after each charge."""
        self.latencies_ns: dict[int, int] = {}
        """By program that is done: what the workload is judged by."""
        self.finished_ns: dict[int, int] = {}
        """By program that is done: when."""
        self._workload = workload
        self._open = [len(program.calls) for program in workload.programs]
        self._behaved = sum(program.client not in workload.greedy for program in workload.programs)

    @property
    def behaved_are_done(self) -> bool:
        """Whether every program of a well-behaved client is done."""
        return not self._behaved

    def admitted(self, job: Job, at: int, *, extend: int, charged: int, again: bool) -> None:
        """Count the whole prompt as what the client sees."""
        super().admitted(job, at, extend=extend, charged=charged, again=again)
        if not again:
            self._see(job.request.client, at, self.ledger.cost.service(job.request.input_tokens, 0))

    def produced(self, tokens: dict[Client, int], at: int) -> None:
        """Count output tokens."""
        super().produced(tokens, at)
        for client, count in tokens.items():
            self._see(client, at, self.ledger.cost.service(0, count))

    def finished(self, job: Job) -> None:
        """Note the end of a program."""
        super().finished(job)
        done = job.trace
        assert isinstance(done, ProgramRequest), "not a request of this workload"
        number = done.program
        program = self._workload.programs[number]
        self._open[number] -= 1
        first_token = self._workload.judged_by == "first_token"
        if first_token and done.call == len(program.calls) - 1:
            self.latencies_ns[number] = job.first_token_ns - program.arrival_ns
        if not self._open[number]:
            self.finished_ns[number] = job.finished_ns
            self._behaved -= program.client not in self._workload.greedy
            if not first_token:
                self.latencies_ns[number] = job.finished_ns - program.arrival_ns

    def _see(self, client: Client, at: int, units: int) -> None:
        points = self.client_view[client]
        total = units + (points[-1][1] if points else 0)
        if points and points[-1][0] == at:
            points[-1] = (at, total)
        else:
            points.append((at, total))


class _NoRecord(RunRecord):
    """Stands where the record of a single worker is not wanted: that of the cluster has everything."""

    def queued(self, client: Client, at: int, change: int) -> None:
        """Do nothing."""

    def admitted(self, job: Job, at: int, *, extend: int, charged: int, again: bool) -> None:
        """Do nothing."""

    def produced(self, tokens: dict[Client, int], at: int) -> None:
        """Do nothing."""

    def finished(self, job: Job) -> None:
        """Do nothing."""


def _refuse_oversized(run: FleetRun, trace: Trace) -> None:
    """Fail now, and not in the middle of the run."""
    fitting = sum(1 for _ in run.admissible(trace.requests))
    if fitting < len(trace.requests):
        raise OversizeError(
            f"{len(trace.requests) - fitting} calls of {trace.name} can never fit the KV memory, and a program "
            "cannot go on without them: give a larger pool (--kv-tokens)"
        )


def run_programs(
    workload: Workload,
    config: PolicyConfig,
    fleet: Fleet,
    *,
    to_the_end: bool = True,
    on_finish: Callable[[int], None] = lambda _count: None,
    make: MakePolicy = make_policy,
    detailed: bool = False,
) -> tuple[FleetRun, ProgramRecord]:
    """Run a workload in closed loop through one or several virtual workers.

    Args:
        workload: the programs.
        config: the policy of each worker.
        fleet: the workers; one is a fleet too.
        to_the_end: serve everything; False stops when all programs of well-behaved clients are done, since what
            is left of the others' concerns nobody.
        on_finish: hears how many calls are done.
        make: makes the policy of each worker.
        detailed: whether figures of single workers are wanted too.

    Raises:
        OversizeError: a call fits not every worker, and oversized ones are not rejected.
    """
    trace = static_trace(workload)
    record = ProgramRecord(Ledger(config.cost, config.weights, config.default_weight), workload)
    run = FleetRun(trace, config, fleet, record, own=RunRecord if detailed else _NoRecord, make=make)
    _refuse_oversized(run, trace)
    source = ProgramSource(workload)
    run.cluster.run(
        enumerate(source.opening()),
        fleet.faults,
        on_finish,
        follow=source.follow,
        until=(lambda: False) if to_the_end else (lambda: record.behaved_are_done),
    )
    return run, record
