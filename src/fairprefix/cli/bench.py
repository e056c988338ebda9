"""`fairprefix bench`: the paper's workloads against a real engine, in real time."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from fairprefix.bench.remote import Endpoint
from fairprefix.bench.run import drive
from fairprefix.bench.texts import FromFiles, Invented, Texts
from fairprefix.cli.errors import UsageError
from fairprefix.cli.files import add_json, beside_json, check_json, write_json
from fairprefix.cli.options import name_of, positive, whole
from fairprefix.cli.output import emit, text_table
from fairprefix.cli.progress import progress
from fairprefix.core.config import POLICIES, PolicyConfig
from fairprefix.gpu_ref_engine.errors import need
from fairprefix.workload import WORKLOADS, Workload, WorkloadSize, make_workload, scaled

SCHEMA = 1
KEY_ENV, TIMEOUT_S = "OPENAI_API_KEY", 600
POLICY, KV_TOKENS = "dlpm", 16_384
EPILOG = """\
examples:
  fairprefix bench --url http://localhost:8000 --workload S1@ToT --programs 4 --rate 0.5
      trees of thoughts, one of three clients with much larger ones, against your own deployment
  fairprefix bench --url http://localhost:8000 --workload Chat --json bench.json
  fairprefix bench --engine random --policy dlpm,lpm --workload Judge --scale 0.05
      the reference engine in this process, with texts a twentieth as long

A call is sent once the calls that it depends on have been answered. Every client's name goes into the header
x-llm-d-inference-fairness-id and into OpenAI's `user` field. With --data DIR texts come from gsm8k*.jsonl and
loogle*.jsonl in that folder; without, they are invented."""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401  # argparse has no public name for it
    """Add this command to the command line."""
    parser = subparsers.add_parser(
        "bench",
        help="run the paper's workloads against an OpenAI endpoint, or the reference engine",
        description="Run programs with data dependencies of several clients against a real engine, in real "
        "time, and "
        "show what each client got.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    where = parser.add_argument_group("engine").add_mutually_exclusive_group(required=True)
    where.add_argument("--url", metavar="URL", help="an endpoint that speaks OpenAI's completions API")
    where.add_argument("--engine", metavar="MODEL", help="the reference engine in this process, with this model")
    parser.add_argument("--model", metavar="NAME", help="with --url: the model's name (default: the first listed)")
    parser.add_argument(
        "--key-env",
        metavar="NAME",
        help=f"with --url: variable that holds the API key (default: {KEY_ENV}, if it is set)",
    )
    parser.add_argument(
        "--timeout",
        type=positive,
        metavar="S",
        help=f"with --url: seconds for a call (default: {TIMEOUT_S})",
    )
    parser.add_argument(
        "--policy",
        type=name_of(POLICIES),
        metavar="P",
        help=f"with --engine: fcfs, lpm, vtc or dlpm (default: {POLICY})",
    )
    parser.add_argument(
        "--kv-tokens",
        type=whole(1),
        metavar="N",
        help=f"with --engine: size of the KV memory (default: {KV_TOKENS})",
    )
    _add_workload_options(parser)
    add_json(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress, only results")


def _add_workload_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("workload")
    group.add_argument("--workload", type=name_of(WORKLOADS), default="S1@ToT", metavar="W",
                       help=f"{', '.join(WORKLOADS)} (default: S1@ToT)")  # fmt: skip
    group.add_argument("--programs", type=whole(1), default=4, metavar="N", help="of each client (default: 4)")
    group.add_argument(
        "--rate", type=positive, default=0.5, metavar="R", help="programs per second of each client (default: 0.5)"
    )
    group.add_argument("--clients", type=whole(1), default=3, metavar="N", help="how many (default: 3)")
    group.add_argument(
        "--scale",
        type=positive,
        default=1.0,
        metavar="X",
        help="multiply all lengths by this, at most 1 (default: 1)",
    )
    group.add_argument(
        "--seed", type=whole(0), default=0, metavar="S", help="of lengths and arrivals (default: 0)"
    )
    group.add_argument("--data", metavar="DIR", help="folder with gsm8k*.jsonl and loogle*.jsonl")
    group.add_argument(
        "--concurrency", type=whole(1), default=256, metavar="N", help="calls that are out at once (default: 256)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; see `fairprefix bench --help`."""
    _refuse_idle_options(args)
    check_json(args.json)
    if args.data is not None and not Path(args.data).is_dir():
        raise UsageError(f"--data {args.data}: is not a folder")
    texts: Texts = Invented() if args.data is None else FromFiles(Path(args.data))
    size = WorkloadSize(programs=args.programs, rate=args.rate, clients=args.clients)
    workload = scaled(make_workload(args.workload, size, seed=args.seed), args.scale)
    need(*(("httpx", "bench") if args.url else ("torch", "engine")))  # before anything is announced
    figures = asyncio.run(_bench(args, workload, texts))
    write_json(args.json, _document(args, workload, figures))
    emit(_table(workload, figures), beside_json(args.json))
    if figures["failed"]:
        print(f"fairprefix: error: {figures['failed']} programs failed: {figures['failures'][0]}", file=sys.stderr)
        return 1
    return 0


def _refuse_idle_options(args: argparse.Namespace) -> None:
    """Refuse what would be ignored: somebody expects something of it."""
    of_url = {"--model": args.model, "--key-env": args.key_env, "--timeout": args.timeout}
    of_engine = {"--policy": args.policy, "--kv-tokens": args.kv_tokens}
    used, idle = ("--url", of_engine) if args.url else ("--engine", of_url)
    for name, value in idle.items():
        if value is not None:
            raise UsageError(f"{name} {value}: says nothing to {used}; leave it out (see fairprefix bench --help)")
    if args.key_env and not os.environ.get(args.key_env):
        raise UsageError(f"--key-env {args.key_env}: there is no such variable in the environment")
    if args.url and not args.url.startswith(("http://", "https://")):
        raise UsageError(f"--url {args.url}: expected http://HOST:PORT or https://HOST")


async def _bench(args: argparse.Namespace, workload: Workload, texts: Texts) -> dict[str, Any]:
    with progress((workload.name,), workload.calls, quiet=args.quiet) as begin:
        heard = begin(workload.name)
        if args.url:
            key, timeout = os.environ.get(args.key_env or KEY_ENV), args.timeout or TIMEOUT_S
            async with Endpoint(args.url, model=args.model, key=key, timeout_s=timeout) as endpoint:
                return await drive(workload, endpoint, texts, concurrency=args.concurrency, on_reply=heard)
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from fairprefix.bench.local import LocalEngine  # noqa: PLC0415  # an extra
        from fairprefix.gpu_ref_engine.config import EngineConfig  # noqa: PLC0415
        from fairprefix.gpu_ref_engine.load import load_model  # noqa: PLC0415

        runner, tokenizer = load_model(args.engine, kv_tokens=args.kv_tokens or KV_TOKENS)
        config = PolicyConfig(policy=args.policy or POLICY, reservation="full")
        async with LocalEngine(runner, tokenizer, config, EngineConfig(reservation="full")) as engine:
            return await drive(workload, engine, texts, concurrency=args.concurrency, on_reply=heard)


def _document(args: argparse.Namespace, workload: Workload, figures: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "workload": workload.name,
        "seed": args.seed,
        "scale": args.scale,
        "notes": list(workload.notes),
        **figures,
    }


def _table(workload: Workload, figures: dict[str, Any]) -> str:
    jain = "-" if figures["jain"] is None else f"{figures['jain']:.3f}"
    rate = "-" if figures["service_rate"] is None else f"{figures['service_rate']:,.0f}"
    head = [
        (
            f"{workload.name}: {figures['requests']:,} calls of {figures['programs_done']:,} programs in "
            f"{figures['virtual_s']:,.1f} s, {figures['failed']} programs failed"
        ),
        (
            f"while all clients are active ({figures['all_active_s']:,.1f} s): {rate} tokens/s as clients see it, "
            f"Jain {jain}"
        ),
        (
            f"cache hits {figures['hit_rate']:.1%}, mean TTFT {figures['mean_ttft_ms']:,.0f} ms, "
            f"mean TPOT {figures['mean_tpot_ms']:,.1f} ms"
        ),
    ]
    rows = [["client", "programs", "P50, s", "P99, s", "service in that time"]]
    for client, found in figures["clients"].items():
        name = f"{client} (misbehaves)" if client in workload.greedy else client
        served = f"{figures['seen'][client]:,}"
        rows.append([name, str(found["programs"]), f"{found['p50_s']:.2f}", f"{found['p99_s']:.2f}", served])
    return "\n".join([*head, "", text_table(rows)])
