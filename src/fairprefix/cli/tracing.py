"""What to simulate, and on what: the options of every command that runs a trace through a virtual engine."""

from __future__ import annotations

import argparse

from fairprefix.cli.errors import UsageError
from fairprefix.cli.options import either, name_of, positive, whole
from fairprefix.core.config import RESERVATIONS
from fairprefix.sim.hardware import GPUS, MODELS
from fairprefix.sim.trace import FORMATS, Trace, compose_clients, limit, load_sample, load_trace, scale_time
from fairprefix.workload import WORKLOADS

GPU = "a100"
SAMPLE_GPU = "a10g"
"""The packaged sample asks more than this GPU can give."""
CLIENTS = 8
"""How many clients are composed onto a trace without any."""
PROGRAMS, PROGRAMS_PER_S = 20, 0.5
"""Of each client of a workload."""


def add_trace_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a trace."""
    group = parser.add_argument_group("trace")
    group.add_argument(
        "trace", nargs="?", metavar="TRACE", help="trace file; without one the packaged sample runs"
    )
    group.add_argument(
        "--format", type=name_of(FORMATS), metavar="NAME", help=f"{either(FORMATS)}; recognised unless given"
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


def add_workload_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that name a workload in place of a trace."""
    group = parser.add_argument_group("workload, in place of a trace")
    group.add_argument(
        "--workload",
        type=name_of(WORKLOADS),
        metavar="W",
        help=f"programs whose calls wait for each other: {', '.join(WORKLOADS)}",
    )
    group.add_argument("--programs", type=whole(1), metavar="N", help=f"of each client (default: {PROGRAMS})")
    group.add_argument(
        "--rate",
        type=positive,
        metavar="R",
        help=f"programs per second of each client (default: {PROGRAMS_PER_S})",
    )


def add_engine_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the engine and of what it runs on."""
    group = parser.add_argument_group("engine")
    group.add_argument(
        "--model",
        type=name_of(MODELS),
        default="llama-3.1-8b",
        metavar="M",
        help=f"{either(MODELS)} (default: llama-3.1-8b)",
    )
    group.add_argument(
        "--gpu",
        type=name_of(GPUS),
        metavar="G",
        help=f"{either(GPUS)} (default: {GPU}; {SAMPLE_GPU} for the packaged sample, made to overload that)",
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


def make_trace(args: argparse.Namespace) -> Trace:
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
