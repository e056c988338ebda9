"""The program `fairprefix`: reads the command line, hands over to a command, and turns errors into messages."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import NoReturn

from fairprefix.cli import (
    bench,
    calibrate,
    completion,
    config,
    demo,
    doctor,
    gateway,
    model,
    paper,
    replay,
    serve,
    simulate,
    tune,
    verify,
)
from fairprefix.cli.errors import UsageError
from fairprefix.cli.output import printable
from fairprefix.core.errors import FairprefixError, nearest

COMMANDS = (
    simulate,
    replay,
    verify,
    config,
    model,
    serve,
    gateway,
    demo,
    paper,
    bench,
    tune,
    calibrate,
    doctor,
    completion,
)
"""Modules with a function add_parser(subparsers), which sets `run=`: from the arguments to the exit code."""

BAD_INPUT = 2
INTERRUPTED = 130
BROKEN_PIPE = 141
AGAIN_S = 0.5
"""Until an interrupt that Python dropped is told again: by then the collector is through."""

EPILOG = """\
examples:
  fairprefix demo                                  three clients on a small real model, under three policies
  fairprefix simulate                              four policies on the packaged trace
  fairprefix simulate trace.jsonl --plot out.png   the same on your own trace, with a picture
  fairprefix replay run.jsonl --policy lpm         where would LPM have decided otherwise?
  fairprefix verify my_module:make_policy          does your own policy keep its promises?
  fairprefix serve random                          a model behind OpenAI's API, on this machine
  fairprefix gateway --worker http://HOST:8000     any engine, shared out fairly from in front of it
  fairprefix paper --quick                         the paper's evaluation, ours beside the published figures
  fairprefix bench --url http://localhost:8000     its workloads against an endpoint of yours
  fairprefix tune trace.jsonl                      which quantum suits your trace?
  fairprefix calibrate requests.jsonl --kv-tokens 41408   how fast is your own engine?
  fairprefix config show > fair.toml               a configuration to start from
  fairprefix config check fair.toml                is it valid?
  fairprefix model get smollm2                     a small model for the engine to serve
  fairprefix doctor                                what is installed, and what can this machine run?
  eval "$(fairprefix completion bash)"             let the shell complete all of this

`fairprefix COMMAND --help` tells more about each command. Exit code 0: done; 1: a check or a run has failed;
2: wrong input, and a message says what would be right; 130: interrupted (Ctrl-C)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code: 0, 2 for bad input, 130 when interrupted."""
    try:
        with _no_interrupt_is_lost():
            code = _run(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
    except FairprefixError as problem:
        print(f"fairprefix: error: {printable(str(problem))}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("fairprefix: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        _forget_stdout()
        return BROKEN_PIPE
    except OSError as problem:  # standard output takes no more, say; files have errors of their own
        print(f"fairprefix: error: {problem}", file=sys.stderr)
        _forget_stdout()
        return BAD_INPUT
    return code


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one message instead of a usage text, and which guesses at no abbreviations."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**{"allow_abbrev": False, **settings})  # type: ignore[arg-type]  # passed on as they come

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = _Parser(
        prog="fairprefix",
        description="Scheduling for LLM serving that is fair between clients and keeps the prefix cache hot.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fairprefix {version('fairprefix')}")
    subparsers = parser.add_subparsers(metavar="COMMAND", dest="command", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


def _run(argv: list[str]) -> int:
    parser = make_parser()
    _refuse_unknown_command(argv, parser)
    try:
        args, unknown = parser.parse_known_args(argv)
    except SystemExit as done:  # --help and --version end like this
        return int(done.code or 0)
    if unknown:
        known = _options(argv, parser)
        raise UsageError(f"unknown argument {unknown[0]!r}{nearest(unknown[0].partition('=')[0], known)}")
    code: int = args.run(args)
    return code


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the sub-commands of a parser by name."""
    for action in parser._actions:  # noqa: SLF001  # argparse offers no other way to list them
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            return dict(action.choices)
    return {}


def _refuse_unknown_command(argv: list[str], parser: argparse.ArgumentParser) -> None:
    """Say it better than argparse does: with the nearest name."""
    words = iter(argv)
    while commands := _commands(parser):
        word = next(words, None)
        expected = f"expected one of {', '.join(commands)}"
        if word is None:
            raise UsageError(f"a command is missing: {expected} (see {parser.prog} --help)")
        if word.startswith("-"):
            return
        if word not in commands:
            raise UsageError(f"unknown command {word!r}{nearest(word, commands)}: {expected}")
        parser = commands[word]


def _options(argv: list[str], parser: argparse.ArgumentParser) -> list[str]:
    """Return the options of the command that `argv` names."""
    for word in argv:
        parser = _commands(parser).get(word, parser)
    return [option for action in parser._actions for option in action.option_strings]  # noqa: SLF001


@contextmanager
def _no_interrupt_is_lost() -> Iterator[None]:
    """Deliver Ctrl-C once more where Python drops it, which it does in callbacks of its garbage collector."""
    before = sys.unraisablehook

    def hear(dropped: sys.UnraisableHookArgs) -> None:
        if not isinstance(dropped.exc_value, KeyboardInterrupt):
            before(dropped)
            return
        again = threading.Timer(AGAIN_S, os.kill, [os.getpid(), signal.SIGINT])
        again.daemon = True
        again.start()

    sys.unraisablehook = hear
    try:
        yield
    finally:
        sys.unraisablehook = before


def _forget_stdout() -> None:
    """Let Python's own flush at exit write nowhere: the reader of our output has gone."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):  # not a real file: nothing to flush
        return
