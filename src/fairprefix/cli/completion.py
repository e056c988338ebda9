"""`fairprefix completion`: what makes a shell complete commands, options and their values."""

from __future__ import annotations

import argparse
from typing import Any

from fairprefix.cli.output import emit
from fairprefix.core.errors import one_of
from fairprefix.hosting.extras import need

SHELLS = ("bash", "zsh", "tcsh")
EXAMPLES = """\
examples:
  eval "$(fairprefix completion bash)"                                          in this shell
  fairprefix completion bash > ~/.local/share/bash-completion/completions/fairprefix   from the next one on
  fairprefix completion zsh > ~/.zfunc/_fairprefix                              a folder of your $fpath"""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 (argparse does not name this type)
    """Register the command."""
    parser = subparsers.add_parser(
        "completion",
        help="let your shell complete commands and options",
        description="Print a script that makes a shell complete the commands and options of fairprefix.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", metavar="SHELL", help=f"one of {', '.join(SHELLS)}")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; see `fairprefix completion --help`."""
    shell = one_of("SHELL", args.shell, SHELLS)
    shtab = need("shtab", "completion")
    from fairprefix.cli.main import make_parser  # noqa: PLC0415 (which imports this module)

    emit(shtab.complete(make_parser(), shell=shell))
    return 0
