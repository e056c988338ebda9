"""`fairprefix doctor`: what is installed, what works, and what this machine can run."""

from __future__ import annotations

import argparse
import json
from itertools import groupby
from typing import Any

import attrs

from fairprefix.cli.findings import WRONG, Finding, findings
from fairprefix.cli.output import emit, printable, text_table

EXAMPLES = """\
examples:
  fairprefix doctor             look at everything
  fairprefix doctor --json      the same for programs, and for bug reports

Exit code 0: nothing is wrong (something may be missing); 1: something installed or configured will not work."""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 (argparse does not name this type)
    """Register the command."""
    parser = subparsers.add_parser(
        "doctor",
        help="what is installed, and what can this machine run?",
        description="Look at this environment: the package, its extras, engines, the configuration, the machine.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; see `fairprefix doctor --help`."""
    found = list(findings())
    emit(json.dumps([attrs.asdict(each) for each in found], indent=2) if args.json else _table(found))
    return 1 if any(each.status == WRONG for each in found) else 0


def _table(found: list[Finding]) -> str:
    rows: list[tuple[str, ...]] = []
    for topic, group in groupby(found, key=lambda each: each.topic):
        rows += [(), (topic,)] if rows else [(topic,)]
        rows += [(f"  {each.subject}", each.status, printable(each.detail)) for each in group]
    return text_table(rows, left=3)
