"""The options of `fairprefix simulate` that concern several workers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import attrs
from attrs import frozen

from fairprefix.cli.errors import UsageError
from fairprefix.cli.options import names_of, positive, whole
from fairprefix.core.config import PolicyConfig
from fairprefix.core.router_config import RouterConfig
from fairprefix.sim.cluster import Fault
from fairprefix.sim.engine import EngineConfig
from fairprefix.sim.fleet import ARRANGEMENTS, Fleet, WorkerSpec
from fairprefix.sim.hardware import GPUS
from fairprefix.sim.steptime import step_time_model

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
ROUTER = "d2lpm"
STALENESS_MS = 100


@frozen
class Failure:
    """A worker that fails, and perhaps recovers."""

    worker: int
    at_ns: int
    back_ns: int | None


def add_worker_options(parser: argparse.ArgumentParser) -> None:
    """Add the options to the command."""
    group = parser.add_argument_group("several workers")
    group.add_argument(
        "--workers", type=whole(1), metavar="D", help="how many workers serve the trace (default: 1)"
    )
    group.add_argument(
        "--router",
        type=names_of(ARRANGEMENTS),
        metavar="R,R...",
        help=f"how requests come to them: {', '.join(ARRANGEMENTS)} (default: {ROUTER})",
    )
    group.add_argument(
        "--router-option",
        type=_setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the router, such as quantum=40000 or index=exact; may be given several times",
    )
    group.add_argument(
        "--worker-gpu",
        type=_gpus,
        metavar="G,G...",
        help="the GPU of each worker, from the first one on, in turn if there are more workers (default: --gpu)",
    )
    group.add_argument(
        "--fail",
        type=_failure,
        action="append",
        default=[],
        metavar="WORKER@SECONDS[:RECOVER]",
        help="a worker (0, 1...) fails at that time of the trace, with all that it has cached, and is back at the "
        "time RECOVER; may be given several times",
    )
    group.add_argument(
        "--staleness",
        type=positive,
        metavar="MS",
        help=f"shared_ledger: how long a worker keeps its charges to itself (default: {STALENESS_MS})",
    )


def make_fleets(
    args: argparse.Namespace, config: PolicyConfig, engine: EngineConfig, gpu: str
) -> tuple[Fleet, ...]:
    """Return a fleet per router, or none where one worker is simulated by itself.

    Raises:
        UsageError: an option for several workers, and there is one.
        ConfigError: a setting of the router is unknown or invalid.
    """
    if args.workers is None:
        _refuse_lone_options(args)
        return ()
    if args.staleness is not None and "shared_ledger" not in (args.router or ()):
        raise UsageError(f"--staleness {args.staleness:g}: is of --router shared_ledger, which is not asked for")
    gpus = args.worker_gpu or (gpu,)
    if len(gpus) > args.workers:
        raise UsageError(f"--worker-gpu names {len(gpus)} GPUs for --workers {args.workers}")
    workers = tuple(_worker(args, engine, gpus[place % len(gpus)]) for place in range(args.workers))
    faults = _faults(args.fail, args.workers)
    fleets = tuple(
        Fleet(
            workers=workers,
            arrangement=arrangement,
            router=RouterConfig.from_mapping(dict(args.router_option)),
            faults=faults,
            staleness_ns=round((args.staleness or STALENESS_MS) * NS_PER_MS),
        )
        for arrangement in args.router or (ROUTER,)
    )
    if config.gate != "deficit" and any(fleet.arrangement == "shared_ledger" for fleet in fleets):
        raise UsageError("--router shared_ledger: needs --gate deficit")
    return fleets


def runs_of(policies: Sequence[str], fleets: Sequence[Fleet]) -> list[tuple[str, Fleet]]:
    """Return which policy is run on which fleet: the shared ledger brings a policy of its own, DLPM."""
    return [
        (policy, fleet)
        for policy in policies
        for fleet in fleets
        if fleet.arrangement != "shared_ledger" or policy == "dlpm"
    ]


def describe_fleet(fleet: Fleet) -> dict[str, Any]:
    """Return what is needed to repeat the runs, as JSON-serialisable data."""
    return {
        "step_time": [spec.step_time.name for spec in fleet.workers],
        "kv_tokens": [spec.engine.kv_tokens for spec in fleet.workers],
        "router_settings": fleet.router.to_mapping(),
        "faults": [attrs.asdict(fault) for fault in fleet.faults],
        "staleness_ms": fleet.staleness_ns / NS_PER_MS,
    }


def _worker(args: argparse.Namespace, engine: EngineConfig, gpu: str) -> WorkerSpec:
    step_time = step_time_model(args.model, gpu)
    return WorkerSpec(attrs.evolve(engine, kv_tokens=args.kv_tokens or step_time.kv_tokens), step_time)


def _refuse_lone_options(args: argparse.Namespace) -> None:
    given = {
        "--router": args.router,
        "--router-option": args.router_option,
        "--worker-gpu": args.worker_gpu,
        "--fail": args.fail,
        "--staleness": args.staleness,
    }
    for name, value in given.items():
        if value:
            raise UsageError(f"{name} is for several workers: give their number with --workers")


def _faults(failures: Sequence[Failure], workers: int) -> tuple[Fault, ...]:
    down: dict[int, int | None] = {}
    for failure in sorted(failures, key=lambda one: one.at_ns):
        if failure.worker >= workers:
            raise UsageError(f"--fail {failure.worker}@...: the workers are 0 to {workers - 1}")
        if failure.worker in down and (down[failure.worker] is None or down[failure.worker] > failure.at_ns):  # type: ignore[operator]
            raise UsageError(f"--fail {failure.worker}@...: worker {failure.worker} is down already at that time")
        down[failure.worker] = failure.back_ns
    faults = [Fault(failure.at_ns, failure.worker) for failure in failures]
    faults += [Fault(one.back_ns, one.worker, recovers=True) for one in failures if one.back_ns is not None]
    return tuple(sorted(faults, key=lambda fault: fault.at_ns))


def _setting(text: str) -> tuple[str, int | str]:
    name, equals, value = text.partition("=")
    if not equals or not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid: expected NAME=VALUE")
    return name, int(value) if value.lstrip("-").isdigit() else value


def _gpus(text: str) -> tuple[str, ...]:
    return tuple(names_of(GPUS)(part.strip())[0] for part in text.split(","))


def _failure(text: str) -> Failure:
    worker, at, when = text.partition("@")
    fails, colon, back = when.partition(":")
    try:
        number = int(worker)
        at_ns = _nanoseconds(fails)
        back_ns = _nanoseconds(back) if colon else None
    except (ValueError, InvalidOperation):
        number = at_ns = -1
        back_ns = None
    if not at or number < 0 or at_ns < 0 or (back_ns is not None and back_ns <= at_ns):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not valid: expected WORKER@SECONDS or WORKER@SECONDS:RECOVER, with a worker from 0 on "
            "and RECOVER later than SECONDS, such as 2@60:90"
        )
    return Failure(number, at_ns, back_ns)


def _nanoseconds(text: str) -> int:
    return int(Decimal(text) * NS_PER_S)
