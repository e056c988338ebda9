"""`fairprefix calibrate`: fits a step-time model to an engine of yours."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from fairprefix.cli.files import check_target, replacing
from fairprefix.cli.options import name_of, whole
from fairprefix.cli.output import emit, text_table
from fairprefix.core.config import RESERVATIONS
from fairprefix.sim.calibrate import Fit, calibrate
from fairprefix.sim.engine import EngineConfig
from fairprefix.sim.reqlog import Measured, as_trace, read_log
from fairprefix.sim.trace import Trace, load_trace
from fairprefix.sim.validate import Comparison, with_prefixes

NAMES = {"ttft_s": "mean time to first token", "tpot_s": "mean time per output token", "latency_s": "mean latency"}
EPILOG = """\
examples:
  fairprefix calibrate requests.jsonl.gz --kv-tokens 41408 --out mine.json
      how fast is the engine that wrote this log? into a file, and how far off it is
  fairprefix tune trace.jsonl.gz --step-time mine.json
      which quantum suits that engine?

LOG holds one JSON object per line: input_tokens, output_tokens, and in seconds on one clock queued_ts (when the
engine got the request), first_token_ts and last_token_ts; or ttft_s and latency_s in place of the last two. The
more the load varied, the more the log says: one of an engine that was always full tells little."""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401  # argparse has no public name for it
    """Add this command to the command line."""
    parser = subparsers.add_parser(
        "calibrate",
        help="fit a step-time model to your own engine, from the times of its requests",
        description="Fit a step-time model to an engine, and say how wrong it is on requests that it was not "
        "fitted to.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("log", metavar="LOG", help="the engine's requests with their times (.gz is unpacked)")
    parser.add_argument(
        "--kv-tokens", type=whole(1), required=True, metavar="N", help="size of the engine's KV memory, in tokens"
    )
    parser.add_argument("--chunk", type=whole(1), default=2048, metavar="N", help="tokens a step (default: 2048)")
    parser.add_argument(
        "--max-batch", type=whole(1), default=256, metavar="N", help="requests at once (default: 256)"
    )
    parser.add_argument(
        "--reservation",
        type=name_of(RESERVATIONS),
        default="none",
        metavar="R",
        help="how the engine admits: none (vLLM, SGLang) or full (default: none)",
    )
    parser.add_argument(
        "--prefixes", metavar="TRACE", help="the same requests in the same order as a trace with their prefixes"
    )
    parser.add_argument("--out", metavar="FILE", help="write the model as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress, only results")


def run(args: argparse.Namespace) -> int:
    """Run the command; see `fairprefix calibrate --help`."""
    if args.out:
        check_target("--out", args.out, inputs=[path for path in (args.log, args.prefixes) if path])
    log = read_log(args.log)
    engine = EngineConfig(
        kv_tokens=args.kv_tokens, chunk=args.chunk, max_batch=args.max_batch, reservation=args.reservation
    )
    trace = _with_prefixes(log, args)
    fit = calibrate(log, engine, name="calibrated", trace=trace, on_trial=_shower(quiet=args.quiet))
    if args.out:
        with replacing(args.out) as path:
            path.write_text(f"{fit.model.dump()}\n", encoding="utf-8")
    emit(_report(fit, len(log)))
    return 0


def _with_prefixes(log: list[Measured], args: argparse.Namespace) -> Trace | None:
    if args.prefixes is None:
        return None
    return with_prefixes(as_trace(log, "log"), load_trace(args.prefixes))


def _shower(*, quiet: bool) -> Any:  # noqa: ANN401  # a function
    def show(count: int, loss: float) -> None:
        print(f"\r{count} simulations, loss {loss:.4f}", end="", file=sys.stderr, flush=True)

    return (lambda *_: None) if quiet or not sys.stderr.isatty() else show


def _report(fit: Fit, requests: int) -> str:
    rows = [["", "measured, ms", "simulated, ms", "error", "error where fitted"]]
    rows += [_row(held, seen) for held, seen in zip(fit.held_out, fit.fitted, strict=True)]
    parameters = fit.model.parameters
    return (
        f"{requests:,} requests, half of them fitted, by {fit.simulations} simulations; errors on the other "
        f"half:\n\n"
        f"{text_table(rows)}\n\n"
        f"step = max({parameters.step_ms:.3g} ms, {parameters.token_us:.3g} us a token) "
        f"+ {parameters.context_ns:.3g} ns a token of context"
    )


def _row(held: Comparison, seen: Comparison) -> list[str]:
    return [
        NAMES[held.metric],
        f"{held.measured_s * 1e3:,.1f}",
        f"{held.simulated_s * 1e3:,.1f}",
        f"{held.error:+.1%}",
        f"{seen.error:+.1%}",
    ]
