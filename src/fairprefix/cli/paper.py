"""`fairprefix paper`: the evaluation of DLPM and D2LPM, reproduced in virtual time."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from fairprefix.cli.errors import UsageError
from fairprefix.cli.options import names_of, whole
from fairprefix.cli.output import emit
from fairprefix.cli.progress import task_bar
from fairprefix.paper.figures.catalog import FIGURES
from fairprefix.paper.report import summary
from fairprefix.paper.reproduce import reproduce, scale_of
from fairprefix.sim.plot import require_matplotlib

OUT = "out/paper"

EPILOG = f"""\
figures:
{chr(10).join(f"  {name:<12}{figure.title}" for name, figure in FIGURES.items())}

examples:
  fairprefix paper --quick                      everything, D = 1 and 2, one seed
  fairprefix paper                              everything, D up to 8, three seeds
  fairprefix paper --figure 7                   one figure alone
  fairprefix paper --quick --data traces/       with the recorded run that the time model is validated against

Results are kept in DIR/results: a run that was interrupted goes on where it stopped, and figures that need the
same simulations share them. What the paper does not state comes from one set of rules, printed in the report."""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401  # argparse has no public name for it
    """Add this command to the command line."""
    parser = subparsers.add_parser(
        "paper",
        help="reproduce the evaluation of DLPM and D2LPM in virtual time",
        description="Reproduce the evaluation of the DLPM paper (arXiv 2501.14312) in virtual time, without a "
        "GPU, "
        "and write a report in which our figures stand beside the published ones.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--figure", type=names_of(FIGURES), metavar="F,F...", help="only these figures (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help="D = 1 and 2, one seed: minutes instead of an hour")
    parser.add_argument("--out", default=OUT, metavar="DIR", help=f"folder of the report (default: {OUT})")
    parser.add_argument(
        "--data", metavar="DIR", help="folder with recorded runs and traces, for the figures that need them"
    )
    parser.add_argument(
        "--jobs",
        type=whole(1),
        default=os.cpu_count() or 1,
        metavar="N",
        help="simulations that run at once (default: one per core)",
    )
    parser.add_argument("--scale", type=names_of(("tiny",)), help=argparse.SUPPRESS)
    parser.add_argument("--quiet", action="store_true", help="no progress, only results")


def run(args: argparse.Namespace) -> int:
    """Run the command; see `fairprefix paper --help`."""
    require_matplotlib()
    if args.data is not None and not Path(args.data).is_dir():
        raise UsageError(f"--data {args.data}: is not a folder")
    scale = scale_of("tiny" if args.scale else "quick" if args.quick else "full", args.data)
    names = args.figure or tuple(FIGURES)
    with task_bar(quiet=args.quiet) as bar:
        sections, files = reproduce(names, scale, Path(args.out), jobs=args.jobs, begin=bar)
    emit(summary(sections))
    for what, path in files.items():
        print(f"{what}: {path}", file=sys.stderr)
    return 0
