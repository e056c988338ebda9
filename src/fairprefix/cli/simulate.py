"""`fairprefix simulate`: a trace through several policies, in virtual time, and what each does to its clients."""

from __future__ import annotations

import argparse
import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs

from fairprefix.cli.errors import UsageError
from fairprefix.cli.files import add_json, beside_json, check_json, check_target, replacing, write_json
from fairprefix.cli.fleet import add_worker_options, make_fleets, runs_of
from fairprefix.cli.options import add_settings, add_shares, either, name_of, names_of, whole
from fairprefix.cli.output import emit
from fairprefix.cli.progress import OnFinish, progress
from fairprefix.cli.report import report
from fairprefix.cli.task import Task
from fairprefix.cli.tracing import (
    CLIENTS,
    GPU,
    PROGRAMS,
    PROGRAMS_PER_S,
    SAMPLE_GPU,
    add_engine_options,
    add_trace_options,
    add_workload_options,
    make_trace,
)
from fairprefix.configfile import make_config, read_settings
from fairprefix.core.config import GATES, POLICIES, PolicyConfig
from fairprefix.core.errors import nearest
from fairprefix.core.history import Emit
from fairprefix.sim.engine import EngineConfig
from fairprefix.sim.fleet import Fleet, simulate_fleet
from fairprefix.sim.plot import SUFFIXES, plot_runs, require_matplotlib
from fairprefix.sim.programs import run_programs, static_trace
from fairprefix.sim.simulate import RunResult, simulate
from fairprefix.sim.steptime import step_time_model
from fairprefix.sim.trace import Trace
from fairprefix.workload import Workload, WorkloadSize, make_workload

SCHEMA = 1
"""Version of the JSON's shape."""

SHOWN = 8
"""So many clients of a trace are named where a weight is for none of them."""

POLICY_FLAGS = ("quantum", "gate", "slack", "overdraft", "bounded_wait", "reservation")
"""Options that set the field of the same name in `PolicyConfig`."""

EPILOG = f"""\
examples:
  fairprefix simulate
      the packaged trace, which overloads an A10G, through four policies
  fairprefix simulate trace.jsonl.gz --limit 2000 --plot runs.png --json runs.json
      your own trace; without clients in it, {CLIENTS} are composed, one of whom sends half of all requests
  fairprefix simulate --policy dlpm --gate credit --slack 16384 --reservation none
      one policy, with the gate whose bound holds for engines that do not reserve memory
  fairprefix simulate --time-scale 0.3 --workers 3 --router d2lpm,cache_aware,rr --policy dlpm,lpm
      three workers, every policy with every router
  fairprefix simulate --workload S1@ToT --gpu a10g --model llama-3.2-3b --workers 2 --router d2lpm,rr
      trees of thoughts in closed loop, where one client's trees are eleven times as large
  fairprefix simulate --config fair.toml --policy vtc,dlpm --weight chat=2 --json - | jq .runs[0]
      settings from a file, of which options have the last word; the table goes to standard error

The same trace, options and seed give the same result, bit for bit. Trace formats: docs/trace-format.md."""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401  # argparse has no public name for it
    """Add this command to the command line."""
    parser = subparsers.add_parser(
        "simulate",
        help="run a trace through several policies in virtual time and compare them",
        description="Run a trace through several policies in virtual time, without a GPU, and show what each "
        "does to throughput, cache hits and fairness.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    add_trace_options(parser)
    add_workload_options(parser)
    _add_policy_options(parser)
    add_engine_options(parser)
    add_worker_options(parser)
    _add_output_options(parser)


def _add_policy_options(parser: argparse.ArgumentParser) -> None:
    defaults = PolicyConfig()
    group = parser.add_argument_group("policy")
    group.add_argument(
        "--policy",
        type=names_of(POLICIES),
        metavar="P,P...",
        help=f"which to compare (default: {','.join(POLICIES)}, or the one that --config names)",
    )
    add_settings(group)
    add_shares(group, quantum=defaults.quantum)
    group.add_argument(
        "--gate", type=name_of(GATES), metavar="G", help=f"dlpm: {either(GATES)} (default: {defaults.gate})"
    )
    group.add_argument(
        "--slack", type=whole(0), metavar="N", help=f"dlpm, gate credit: its slack (default: {defaults.slack})"
    )
    group.add_argument(
        "--overdraft", type=whole(0), metavar="N", help=f"dlpm, gate deficit (default: {defaults.overdraft})"
    )
    group.add_argument(
        "--bounded-wait",
        type=whole(1),
        metavar="K",
        help="lpm, dlpm: every K-th admission takes the oldest request (default: never)",
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    add_json(group)
    group.add_argument("--plot", metavar="FILE", help=f"draw the runs: {either(SUFFIXES)}")
    group.add_argument(
        "--record",
        metavar="FILE",
        help="write the policy's history, for `fairprefix replay` (one policy; .gz is packed)",
    )
    group.add_argument("--quiet", action="store_true", help="no progress, only results")


def run(args: argparse.Namespace) -> int:
    """Run the command; see `fairprefix simulate --help`."""
    _check_outputs(args)
    task = _prepare(args)
    with _recording(args.record) as record:
        results = _simulate(task, quiet=args.quiet, record=record)
    text = report(results, task.headings())
    # Files first: they are there even when nobody reads the table to its end.
    if args.plot:
        with replacing(args.plot) as path:
            plot_runs(results, path, task.title)
    figures = {"runs": [result.to_mapping() for result in results], "config": task.to_mapping()}
    write_json(args.json, {"schema": SCHEMA, **figures})
    emit(text, beside_json(args.json))
    return 0


def _check_outputs(args: argparse.Namespace) -> None:
    """Fail now, and not after the simulation."""
    inputs = [path for path in (args.trace, args.config) if path is not None]
    if args.plot:
        require_matplotlib()
        check_target("--plot", args.plot, suffixes=SUFFIXES, inputs=inputs)
    check_json(args.json, inputs=inputs)
    if args.record:
        check_target("--record", args.record, inputs=inputs)


def _prepare(args: argparse.Namespace) -> Task:
    settings = {} if args.config is None else read_settings(args.config)
    config = _config(args, settings)
    workload = _workload(args)
    trace = make_trace(args) if workload is None else static_trace(workload)
    _check_weights(dict(args.weight), trace)
    gpu = args.gpu or (SAMPLE_GPU if args.trace is None and workload is None else GPU)
    if args.worker_gpu:
        gpu = args.worker_gpu[0]
    step_time = step_time_model(args.model, gpu)
    engine = EngineConfig(
        kv_tokens=args.kv_tokens or step_time.kv_tokens,
        max_batch=args.max_batch,
        chunk=args.chunk,
        reservation=config.reservation,
        oversize=args.oversize,
    )
    policies = args.policy or ((config.policy,) if "policy" in settings else POLICIES)
    if workload is not None and args.workers is None:
        args.workers = 1
    fleets = make_fleets(args, config, engine, gpu)
    if fleets and not runs_of(policies, fleets):
        raise UsageError("--router shared_ledger: needs --policy dlpm")
    if args.record and fleets:
        raise UsageError("--record takes the history of one worker: leave --workers out")
    if args.record and len(policies) != 1:
        raise UsageError(
            f"--record takes the history of one policy, not of {len(policies)}: name it with --policy"
        )
    return Task(
        trace=trace,
        notes=(*trace.notes, *_sample_notes(args)),
        policies=policies,
        config=config,
        engine=engine,
        step_time=step_time,
        model=args.model,
        gpu=" and ".join(dict.fromkeys(args.worker_gpu or (gpu,))),
        seed=args.seed,
        fleets=fleets,
        workload=workload,
    )


def _workload(args: argparse.Namespace) -> Workload | None:
    """Return the workload that stands in place of a trace, if one is named."""
    if args.workload is None:
        for name, value in (("--programs", args.programs), ("--rate", args.rate)):
            if value is not None:
                raise UsageError(f"{name} {value}: is for programs, and none are named: give --workload")
        return None
    for name, value in (("TRACE", args.trace), ("--format", args.format), ("--limit", args.limit)):
        if value is not None:
            raise UsageError(f"--workload {args.workload}: stands in place of a trace; leave {name} out")
    clients = args.clients or (4 if args.workload in ("Mix", "Phases") else 3)
    rate = args.rate or PROGRAMS_PER_S
    size = WorkloadSize(programs=args.programs or PROGRAMS, rate=rate / args.time_scale, clients=clients)
    return make_workload(args.workload, size, seed=args.seed)


def _config(args: argparse.Namespace, settings: dict[str, Any]) -> PolicyConfig:
    """Return the file's settings, of which the options that were given override some."""
    config = make_config(settings, str(args.config))
    given = {name: getattr(args, name) for name in POLICY_FLAGS if getattr(args, name) is not None}
    config = attrs.evolve(config, weights={**config.weights, **dict(args.weight)}, **given)
    if args.slack is not None and config.gate != "credit":
        raise UsageError(f"--slack {args.slack}: has no meaning with the gate {config.gate}: give --gate credit")
    return config


def _sample_notes(args: argparse.Namespace) -> list[str]:
    if args.workload is not None:
        return ["closed loop: a call arrives when those that it depends on are done"]
    if args.trace is not None:
        return []
    if args.gpu is None:
        return [
            f"no trace is given, so the packaged sample runs, on the GPU that it is made to overload: {SAMPLE_GPU}"
        ]
    return (
        [] if args.gpu == SAMPLE_GPU else [f"the packaged sample is made to overload {SAMPLE_GPU}, not {args.gpu}"]
    )


def _check_weights(weights: dict[str, int], trace: Trace) -> None:
    """Refuse a weight for nobody: more likely a misspelt name (a file may well name clients that stay away)."""
    clients = sorted({request.client for request in trace.requests})
    for name, value in weights.items():
        if name not in clients:
            some = ", ".join(clients[:SHOWN]) + (", ..." if len(clients) > SHOWN else "")
            raise UsageError(
                f"--weight {name}={value}: trace {trace.name} has no such client{nearest(name, clients)}; "
                f"it has {some}"
            )


@contextmanager
def _recording(target: str | None) -> Iterator[Emit | None]:
    """Give the function that writes an event to the file, or None where there is no file to write."""
    if target is None:
        yield None
        return
    opener = gzip.open if target.endswith(".gz") else open
    with replacing(target) as path, opener(path, "wt", encoding="utf-8") as file:
        yield lambda event: print(json.dumps(event, separators=(",", ":")), file=file)


def _simulate(task: Task, *, quiet: bool, record: Emit | None) -> list[RunResult]:
    if task.fleets:
        return _simulate_fleets(task, quiet=quiet)
    with progress(task.policies, len(task.trace.requests), quiet=quiet) as begin:
        return [
            simulate(
                task.trace,
                attrs.evolve(task.config, policy=policy),
                task.engine,
                task.step_time,
                begin(policy),
                record=record,
            )
            for policy in task.policies
        ]


def _simulate_fleets(task: Task, *, quiet: bool) -> list[RunResult]:
    runs = runs_of(task.policies, task.fleets)
    names = tuple(f"{policy}+{fleet.arrangement}" for policy, fleet in runs)
    with progress(names, len(task.trace.requests), quiet=quiet) as begin:
        return [
            _simulate_fleet(task, attrs.evolve(task.config, policy=policy), fleet, begin(name))
            for name, (policy, fleet) in zip(names, runs, strict=True)
        ]


def _simulate_fleet(task: Task, config: PolicyConfig, fleet: Fleet, heard: OnFinish) -> RunResult:
    if task.workload is None:
        return simulate_fleet(task.trace, config, fleet, heard)
    served, _ = run_programs(task.workload, config, fleet, on_finish=heard, detailed=True)
    return served.result()
