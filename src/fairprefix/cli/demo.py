"""`fairprefix demo`: a real model, three clients, LPM, VTC and DLPM one after the other."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairprefix.cli.files import check_target, replacing
from fairprefix.cli.options import names_of, whole
from fairprefix.cli.output import emit, numbers, text_table
from fairprefix.cli.report import report
from fairprefix.core.config import POLICIES
from fairprefix.core.errors import FairprefixError
from fairprefix.gpu_ref_engine.errors import need
from fairprefix.gpu_ref_engine.library import fetch
from fairprefix.sim.plot import SUFFIXES, plot_runs, require_matplotlib

if TYPE_CHECKING:
    from fairprefix.demo.run import Answered, Outcome
    from fairprefix.demo.workload import Question
    from fairprefix.gpu_ref_engine.batch import Runner
    from fairprefix.gpu_ref_engine.tokenizer import Tokenizer
    from fairprefix.sim.simulate import RunResult

MODEL, FALLBACK = "smollm2", "random"
SHOWN = ("lpm", "vtc", "dlpm")
BUDGET_S = 100
"""Seconds that the three runs may take together; on a slow machine less is asked."""
FELL_BACK = 1

EPILOG = """\
examples:
  fairprefix demo
      fetches SmolLM2-135M-Instruct (94 MiB, once) and runs everything, in two to four minutes on two cores
  fairprefix demo --plot out/engine.png --policy lpm,dlpm
      two policies, and the picture elsewhere

Where the model cannot be fetched, a tiny random one stands in: everything works, but the answers are noise.
The same figures without a model, in virtual time: fairprefix simulate."""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401  # argparse has no public name for it
    """Add this command to the command line."""
    parser = subparsers.add_parser(
        "demo",
        help="three clients on a real model, under LPM, VTC and DLPM",
        description="Three clients share a small real model on this machine, in real time: one floods it with "
        "questions about a long document, one asks about another document, one chats.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--policy", type=names_of(POLICIES), default=SHOWN, metavar="P,P...",
                        help=f"which to compare (default: {','.join(SHOWN)})")  # fmt: skip
    parser.add_argument("--model", metavar="MODEL", help=f"as in `fairprefix serve` (default: {MODEL}, fetched)")
    parser.add_argument("--budget", type=whole(1), default=BUDGET_S, metavar="S",
                        help=f"seconds that the runs may take together (default: {BUDGET_S})")  # fmt: skip
    parser.add_argument("--plot", metavar="FILE", default="demo-engine.png",
                        help="the picture (default: demo-engine.png)")  # fmt: skip
    parser.add_argument("--quiet", action="store_true", help="no progress, only results")


def run(args: argparse.Namespace) -> int:
    """Run the command; see `fairprefix demo --help`."""
    # Read when torch is loaded: threads that spin while they wait take the processor from everybody else.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    need("torch", "engine,report")
    require_matplotlib()
    check_target("--plot", args.plot, suffixes=SUFFIXES)
    model, fell_back = _model(args.model)
    runner, tokenizer, asked = _prepare(model, args.budget, quiet=args.quiet)
    outcomes = _run(args.policy, runner, tokenizer, asked, quiet=args.quiet)
    results = [outcome.result for outcome in outcomes]
    title = f"{Path(model).name.partition('.')[0]}: {len(asked)} questions of 3 clients, in real time"
    with replacing(args.plot) as path:
        plot_runs(results, path, title)
    emit(_answers(outcomes[-1].answers))
    emit("")
    emit(report(results, _headings(title, runner, outcomes, fell_back=fell_back)))
    emit(f"\nin short:\n{in_short(results)}\n\npicture: {Path(args.plot).resolve()}")
    if fell_back and os.environ.get("CI", "").lower() == "true":
        print("fairprefix: error: the real model could not be fetched, and CI=true asks for it", file=sys.stderr)
        return FELL_BACK
    return 0


def _model(name: str | None) -> tuple[str, bool]:
    """Return the model to load, and whether it is not the one that was wanted."""
    if name is not None:
        return name, False
    try:
        return str(fetch(MODEL)), False
    except FairprefixError as problem:
        note = "a tiny random model stands in for it: everything works, but the answers are noise"
        print(f"fairprefix: {MODEL} cannot be fetched ({problem}); {note}", file=sys.stderr)
        return FALLBACK, True


def _prepare(model: str, budget_s: int, *, quiet: bool) -> tuple[Runner, Tokenizer, list[Question]]:
    """Load the model, and ask as much as this machine answers in time."""
    from fairprefix.demo.run import seconds_needed  # noqa: PLC0415  # an extra
    from fairprefix.demo.workload import kv_tokens, questions  # noqa: PLC0415
    from fairprefix.gpu_ref_engine.load import find_model, load_model  # noqa: PLC0415

    if not quiet:
        print(f"loading {Path(model).name} ...", file=sys.stderr, flush=True)
    torch = need("torch", "engine")
    asked = questions(find_model(model, device=torch.device("cpu")).tokenizer, 1)
    runner, tokenizer = load_model(model, device="cpu", kv_tokens=kv_tokens(asked, 16), page_size=16)
    share = min(budget_s / seconds_needed(runner, asked), 1)
    return runner, tokenizer, questions(tokenizer, share)


def _run(
    policies: Sequence[str], runner: Runner, tokenizer: Tokenizer, asked: Sequence[Question], *, quiet: bool
) -> list[Outcome]:
    from fairprefix.demo.live import live  # noqa: PLC0415  # an extra
    from fairprefix.demo.run import run_policy  # noqa: PLC0415

    outcomes = []
    for policy in policies:
        with live(policy, quiet=quiet) as show:
            outcomes.append(run_policy(policy, runner, tokenizer, asked, show))
    return outcomes


def _headings(title: str, runner: Runner, outcomes: Sequence[Outcome], *, fell_back: bool) -> list[str]:
    memory = runner.pages * runner.page_size
    overhead = max(1 - outcome.profile["launch"] - outcome.profile["sync"] for outcome in outcomes)
    lines = [
        title,
        f"KV memory of {memory:,} tokens: one client's document fits in, two do not",
        f"policy and scheduling: at most {overhead:.1%} of a step",
    ]
    return [*lines, "note: a random model stood in for the real one"] if fell_back else lines


def in_short(results: Sequence[RunResult]) -> str:
    """Return the figures that matter most: is the cache hot, is everybody served, how long did it take?"""
    rows = [["", "cache hits", "fairness (Jain's index)", "done after"]]
    for result in results:
        figures = result.figures
        fair = numbers([figures["jain_index"]], 2)[0]
        rows.append([result.policy, f"{figures['prefix_hit_rate']:.0%}", fair, f"{figures['duration']:.0f} s"])
    return text_table(rows)


def _answers(answers: Sequence[Answered]) -> str:
    """Return the first answer to each client, with what it asked."""
    lines = ["what the model says:"]
    for client in dict.fromkeys(answer.question.client for answer in answers):
        for one in [answer for answer in answers if answer.question.client == client][:2]:
            text = " ".join(one.text.split())
            lines.append(f"  {client}: {one.question.question}\n    {text or '(nothing)'}")
    return "\n".join(lines)
