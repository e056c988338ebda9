"""Files that a command writes: checked before the work begins, and never left half written."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from fairprefix.cli.errors import UsageError
from fairprefix.cli.options import Options
from fairprefix.cli.output import emit

STDOUT = "-"
"""Stands for standard output in place of a file name."""


def add_json(options: Options, what: str = "all figures") -> None:
    """Add --json FILE; `what` is what is written."""
    options.add_argument("--json", metavar="FILE", help=f"write {what} as JSON; {STDOUT} is standard output")


def check_json(target: str | None, *, inputs: Sequence[str | None] = ()) -> None:
    """Refuse a --json FILE that could not be written in the end; None was not given."""
    if target and target != STDOUT:
        check_target("--json", target, inputs=[path for path in inputs if path])


def write_json(target: str | None, document: Mapping[str, Any]) -> None:
    """Write a document to the file that --json names, whole or not at all, or to standard output."""
    if not target:
        return
    text = json.dumps(document, indent=2, allow_nan=False)
    if target == STDOUT:
        emit(text)
        return
    with replacing(target) as path:
        path.write_text(f"{text}\n", encoding="utf-8")


def beside_json(target: str | None) -> TextIO:
    """Return where the text for people goes: standard error, where standard output is the JSON's."""
    return sys.stderr if target == STDOUT else sys.stdout


def check_target(option: str, target: str, *, suffixes: Sequence[str] = (), inputs: Sequence[str] = ()) -> None:
    """Refuse a file that could not be written in the end, or that is one of the command's inputs.

    Args:
        option: the option that names the file, for the message.
        target: the file.
        suffixes: those that its name may have; none stands for any.
        inputs: files that must not be overwritten.

    Raises:
        UsageError: it cannot be written; the message says why.
    """
    path = Path(target)
    if suffixes and path.suffix.lower() not in suffixes:
        raise UsageError(f"{option} {target}: expected a name that ends in {', '.join(suffixes)}")
    folder = path.resolve().parent
    if not folder.is_dir():
        raise UsageError(f"{option} {target}: there is no directory {folder}")
    if path.is_dir():
        raise UsageError(f"{option} {target}: is a directory, expected a file")
    # An existing file is replaced, which takes leave to write the folder, and not the file.
    if not os.access(folder if _is_replaced(path) else path, os.W_OK):
        raise UsageError(f"{option} {target}: may not be written")
    if any(Path(given).resolve() == path.resolve() for given in inputs):
        raise UsageError(f"{option} {target}: is an input of this command, and would be overwritten")


def check_folder(option: str, target: str) -> None:
    """Refuse a folder that could not be written into in the end; it is made if it is not there.

    Raises:
        UsageError: it cannot be written into; the message says why.
    """
    path = Path(target).resolve()
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    if not there.is_dir():
        raise UsageError(f"{option} {target}: {there} is a file, expected a directory")
    if not os.access(there, os.W_OK):
        raise UsageError(f"{option} {target}: may not be written")


@contextmanager
def replacing(target: str) -> Iterator[Path]:
    """Give a path to write to, which takes the target's name once everything is written.

    Raises:
        UsageError: writing has failed; the target is as it was.
    """
    final = Path(target).resolve()
    # The suffix stays, since matplotlib tells the format by it.
    part = final.with_name(f".{final.stem}.{os.getpid()}{final.suffix}") if _is_replaced(final) else final
    try:
        yield part
        if part != final:
            part.replace(final)
    except OSError as problem:
        raise UsageError(f"{target}: cannot be written: {problem.strerror or problem}") from problem
    finally:
        if part != final:
            part.unlink(missing_ok=True)


def _is_replaced(path: Path) -> bool:
    """Return whether a path is a plain file or nothing yet; a device such as /dev/null is written in place."""
    return path.is_file() or not path.exists()
