"""`fairprefix simulate`: a trace through several policies, in virtual time, and what each does to its clients."""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from fairprefix.cli.errors import UsageError
from fairprefix.cli.files import STDOUT, check_target, replacing
from fairprefix.cli.fleet import add_worker_options, make_fleets, runs_of
from fairprefix.cli.options import name_of, names_of, positive, weight, whole
from fairprefix.cli.output import emit
from fairprefix.cli.progress import progress
from fairprefix.cli.report import report
from fairprefix.cli.task import Task
from fairprefix.configfile import make_config, read_settings
from fairprefix.core.config import GATES, POLICIES, RESERVATIONS, PolicyConfig
from fairprefix.core.errors import nearest
from fairprefix.core.history import Emit
from fairprefix.sim.engine import EngineConfig
from fairprefix.sim.fleet import simulate_fleet
from fairprefix.sim.hardware import GPUS, MODELS
from fairprefix.sim.plot import SUFFIXES, plot_runs, require_matplotlib
from fairprefix.sim.simulate import RunResult, simulate
from fairprefix.sim.steptime import step_time_model
from fairprefix.sim.trace import FORMATS, Trace, compose_clients, limit, load_sample, load_trace, scale_time

SCHEMA = 1
"""Version of the JSON's shape."""
GPU = "a100"
SAMPLE_GPU = "a10g"
"""The packaged sample asks more than this GPU can give."""
CLIENTS = 8
"""How many clients are composed onto a trace without any."""

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
    _add_trace_options(parser)
    _add_policy_options(parser)
    _add_engine_options(parser)
    add_worker_options(parser)
    _add_output_options(parser)


def _add_trace_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("trace")
    group.add_argument(
        "trace", nargs="?", metavar="TRACE", help="trace file; without one the packaged sample runs"
    )
    group.add_argument(
        "--format", type=name_of(FORMATS), metavar="NAME", help=f"{_either(FORMATS)}; recognised unless given"
    )
    group.add_argument("--limit", type=whole(1), metavar="N", help="only the first N requests")
    group.add_argument(
        "--time-scale", type=positive, default=1.0, metavar="X", help="multiply arrival times; below 1: more load"
    )
    group.add_argument(
        "--clients",
        type=whole(1),
        metavar="N",
        help=f"compose a trace without clients onto N of them (default: {CLIENTS}), c0 sending half of them all",
    )
    group.add_argument(
        "--seed", type=whole(0), default=0, metavar="S", help="decides which client sends what (default: 0)"
    )


def _add_policy_options(parser: argparse.ArgumentParser) -> None:
    defaults = PolicyConfig()
    group = parser.add_argument_group("policy")
    group.add_argument(
        "--policy",
        type=names_of(POLICIES),
        metavar="P,P...",
        help=f"which to compare (default: {','.join(POLICIES)}, or the one that --config names)",
    )
    group.add_argument("--config", metavar="FILE", help="settings from a .toml, .json or .yaml file")
    group.add_argument(
        "--quantum", type=whole(1), metavar="N", help=f"dlpm: service units a refill (default: {defaults.quantum})"
    )
    group.add_argument(
        "--gate", type=name_of(GATES), metavar="G", help=f"dlpm: {_either(GATES)} (default: {defaults.gate})"
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
    group.add_argument(
        "--weight",
        type=weight,
        action="append",
        default=[],
        metavar="NAME=W",
        help="a client's share of service, an integer (default: 1); may be given several times",
    )


def _add_engine_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("engine")
    group.add_argument(
        "--model",
        type=name_of(MODELS),
        default="llama-3.1-8b",
        metavar="M",
        help=f"{_either(MODELS)} (default: llama-3.1-8b)",
    )
    group.add_argument(
        "--gpu",
        type=name_of(GPUS),
        metavar="G",
        help=f"{_either(GPUS)} (default: {GPU}; {SAMPLE_GPU} for the packaged sample, made to overload that)",
    )
    group.add_argument(
        "--reservation",
        type=name_of(RESERVATIONS),
        metavar="R",
        help="full: room for the longest output is reserved; none: requests may be preempted (default: full)",
    )
    group.add_argument("--chunk", type=whole(1), default=2048, metavar="N", help="tokens a step (default: 2048)")
    group.add_argument(
        "--max-batch", type=whole(1), default=256, metavar="N", help="requests that run at once (default: 256)"
    )
    group.add_argument(
        "--kv-tokens", type=whole(1), metavar="N", help="size of the KV memory (default: what the GPU has left)"
    )
    group.add_argument(
        "--oversize",
        type=name_of(("error", "reject")),
        default="error",
        metavar="O",
        help="a request that can never fit: error, or reject and count it (default: error)",
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--json", metavar="FILE", help="write all figures as JSON; - is standard output")
    group.add_argument("--plot", metavar="FILE", help=f"draw the runs: {_either(SUFFIXES)}")
    group.add_argument(
        "--record",
        metavar="FILE",
        help="write the policy's history, for `fairprefix replay` (one policy; .gz is packed)",
    )
    group.add_argument("--quiet", action="store_true", help="no progress, only results")


def _either(names: Sequence[str] | dict[str, Any]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}"


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
    if args.json:
        _write_json(args.json, results, task)
    emit(text, sys.stderr if args.json == STDOUT else None)
    return 0


def _check_outputs(args: argparse.Namespace) -> None:
    """Fail now, and not after the simulation."""
    inputs = [path for path in (args.trace, args.config) if path is not None]
    if args.plot:
        require_matplotlib()
        check_target("--plot", args.plot, suffixes=SUFFIXES, inputs=inputs)
    if args.json and args.json != STDOUT:
        check_target("--json", args.json, inputs=inputs)
    if args.record:
        check_target("--record", args.record, inputs=inputs)


def _prepare(args: argparse.Namespace) -> Task:
    settings = {} if args.config is None else read_settings(args.config)
    config = _config(args, settings)
    trace = _trace(args)
    _check_weights(dict(args.weight), trace)
    gpu = args.gpu or (SAMPLE_GPU if args.trace is None else GPU)
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
    )


def _config(args: argparse.Namespace, settings: dict[str, Any]) -> PolicyConfig:
    """Return the file's settings, of which the options that were given override some."""
    config = make_config(settings, str(args.config))
    given = {name: getattr(args, name) for name in POLICY_FLAGS if getattr(args, name) is not None}
    return attrs.evolve(config, weights={**config.weights, **dict(args.weight)}, **given)


def _trace(args: argparse.Namespace) -> Trace:
    """Return the trace: loaded, cut, scaled and, where it has no clients, composed."""
    if args.trace is None and args.format is not None:
        raise UsageError(f"--format {args.format}: is for a trace file, and none is given")
    trace = load_sample() if args.trace is None else load_trace(args.trace, format=args.format)
    if trace.has_clients and args.clients is not None:
        raise UsageError(
            f"--clients {args.clients}: trace {trace.name} has clients of its own; leave --clients out"
        )
    if args.limit is not None:
        trace = limit(trace, args.limit)
    trace = scale_time(trace, args.time_scale)
    return trace if trace.has_clients else compose_clients(trace, args.clients or CLIENTS, args.seed)


def _sample_notes(args: argparse.Namespace) -> list[str]:
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
            raise UsageError(
                f"--weight {name}={value}: trace {trace.name} has no such client{nearest(name, clients)}"
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
            simulate_fleet(task.trace, attrs.evolve(task.config, policy=policy), fleet, begin(name))
            for name, (policy, fleet) in zip(names, runs, strict=True)
        ]


def _write_json(target: str, results: Sequence[RunResult], task: Task) -> None:
    answer = {"schema": SCHEMA, "runs": [result.to_mapping() for result in results], "config": task.to_mapping()}
    text = json.dumps(answer, indent=2, allow_nan=False)
    if target == STDOUT:
        emit(text)
        return
    with replacing(target) as path:
        path.write_text(f"{text}\n", encoding="utf-8")
