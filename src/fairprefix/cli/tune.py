"""`fairprefix tune`: which quantum suits a trace."""

from __future__ import annotations

import argparse
from typing import Any

from fairprefix.cli.errors import UsageError
from fairprefix.cli.files import add_json, beside_json, check_json, write_json
from fairprefix.cli.options import positive
from fairprefix.cli.output import NOTHING, emit, text_table
from fairprefix.cli.progress import progress
from fairprefix.cli.tracing import GPU, SAMPLE_GPU, add_engine_options, add_trace_options, make_trace
from fairprefix.core.config import PolicyConfig
from fairprefix.sim.affine import load_affine
from fairprefix.sim.engine import EngineConfig
from fairprefix.sim.simulate import RunResult
from fairprefix.sim.steptime import StepTimeModel, step_time_model
from fairprefix.sim.tune import Advice, quanta, reuse, rule_for, tune

SCHEMA = 1
EPILOG = """\
examples:
  fairprefix tune trace.jsonl.gz                      on an A100 with Llama-3.1-8B
  fairprefix tune trace.jsonl.gz --step-time mine.json
      on your own engine, as `fairprefix calibrate` found it

A turn of a client whose prefix has left the cache begins with computing it again: P tokens. A quantum of Q service
units makes that a share of about w_e P / Q of all service. The rule is Q = w_e P / overhead; a sixteenth, a
quarter and four times as much are tried too, and the smallest quantum is recommended that costs no more throughput
than --overhead against the best of all runs, LPM among them."""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401  # argparse has no public name for it
    """Add this command to the command line."""
    parser = subparsers.add_parser(
        "tune",
        help="recommend a quantum for a trace",
        description="Recommend DLPM's quantum for a trace: by a rule, and by simulations around it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    add_trace_options(parser)
    add_engine_options(parser)
    parser.add_argument("--step-time", metavar="FILE", help="step times that `fairprefix calibrate` wrote")
    parser.add_argument(
        "--overhead",
        type=positive,
        default=0.05,
        metavar="X",
        help="share of throughput that fairness may cost, below 1 (default: 0.05)",
    )
    add_json(parser)
    parser.add_argument("--quiet", action="store_true", help="no progress, only results")


def run(args: argparse.Namespace) -> int:
    """Run the command; see `fairprefix tune --help`."""
    if args.overhead >= 1:
        raise UsageError(f"--overhead {args.overhead:g}: expected a number below 1")
    check_json(args.json, inputs=[args.trace, args.step_time])
    trace = make_trace(args)
    step_time = _step_time(args)
    config = PolicyConfig(reservation=args.reservation or "full")
    engine = EngineConfig(
        kv_tokens=args.kv_tokens or step_time.kv_tokens,
        max_batch=args.max_batch,
        chunk=args.chunk,
        reservation=config.reservation,
        oversize=args.oversize,
    )
    rule = rule_for(reuse(trace), config, args.overhead)
    names = ("lpm", *(f"Q {quantum}" for quantum in quanta(rule)))
    with progress(names, len(trace.requests), quiet=args.quiet) as begin:
        advice = tune(trace, config, engine, step_time, overhead=args.overhead, begin=begin)
    write_json(args.json, _document(advice, args.overhead))
    notes = "".join(f"\nnote: {note}" for note in trace.notes)
    text = f"{trace.name} on {step_time.name}{notes}\n\n{_table(advice)}\n\n{_advice(advice, args.overhead)}"
    emit(text, beside_json(args.json))
    return 0


def _step_time(args: argparse.Namespace) -> StepTimeModel:
    if args.step_time is None:
        return step_time_model(args.model, args.gpu or (SAMPLE_GPU if args.trace is None else GPU))
    if args.gpu is not None:
        raise UsageError(
            f"--gpu {args.gpu}: --step-time {args.step_time} says how fast the engine is; leave one out"
        )
    return load_affine(args.step_time)


def _table(advice: Advice) -> str:
    rows = [["", "tokens/s", "largest gap", "bound", "Jain", "cache hits"], _row("LPM", advice.lpm)]
    for trial in advice.trials:
        chosen = " (recommended)" if trial.quantum == advice.quantum else ""
        rows.append(_row(f"DLPM, Q = {trial.quantum:,}{chosen}", trial.result))
    return text_table(rows)


def _row(name: str, result: RunResult) -> list[str]:
    figures = result.figures
    bound = f"{figures['bound']:,}" if figures["bound_is_claimed"] else NOTHING
    jain = figures["jain_index"]
    return [
        name,
        f"{figures['total_token_throughput']:,.0f}",
        f"{figures['max_gap']:,}",
        bound,
        NOTHING if jain is None else f"{jain:.3f}",
        f"{figures['prefix_hit_rate']:.1%}",
    ]


def _advice(advice: Advice, overhead: float) -> str:
    found = advice.reuse
    if not found.prefix:
        return (
            f"No client's prompts begin alike (or the trace does not say): any quantum is as fast as any other.\n"
            f"recommended: --quantum {advice.quantum}"
        )
    return (
        f"{found.share:.0%} of all prompt tokens were asked before by the same client, {found.prefix:,} at a "
        f"time.\n"
        f"The rule for {overhead:.0%}: {found.prefix:,} / {overhead:g} = {advice.rule:,}.\n"
        f"recommended: --quantum {advice.quantum}"
    )


def _document(advice: Advice, overhead: float) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "overhead": overhead,
        "prefix": advice.reuse.prefix,
        "reused_share": advice.reuse.share,
        "rule": advice.rule,
        "quantum": advice.quantum,
        "lpm": advice.lpm.to_mapping(),
        "trials": [{"quantum": trial.quantum, **trial.result.to_mapping()} for trial in advice.trials],
    }
