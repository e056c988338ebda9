"""`fairprefix verify`: try to break a scheduling policy, and tell the story of whatever broke."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import attrs

from fairprefix.cli.errors import UsageError
from fairprefix.cli.factory import BROKEN, load_factory
from fairprefix.cli.files import (
    STDOUT,
    add_json,
    beside_json,
    check_folder,
    check_json,
    check_target,
    replacing,
    write_json,
)
from fairprefix.cli.options import either, positive, whole
from fairprefix.cli.output import emit
from fairprefix.configfile import make_config, read_settings
from fairprefix.core.config import POLICIES, PolicyConfig
from fairprefix.core.errors import nearest
from fairprefix.sim.plot import SUFFIXES, require_matplotlib

if TYPE_CHECKING:
    from fairprefix.testing import Claims, Report

SCHEMA = 1
SMALL = {"quantum": 10, "slack": 20}
"""Settings that make short histories, and so short stories, possible."""

EPILOG = """\
examples:
  fairprefix verify my_module:make_policy                      what every policy has to keep
  fairprefix verify my_module:make_policy --claim bound=dlpm --claim keeps_debt
      what yours promises besides: bound=dlpm|credit|vtc, weighted, locality_aware, keeps_debt, bounded_wait=K,
      reservation=full|none, recompute=free|charged, workers=N
  fairprefix verify dlpm --examples 1000 --seed 7              a policy of this package, with all that it claims
  fairprefix verify my_module:make_policy --only snapshots,termination --json verdicts.json --logs broken/
  fairprefix verify my_module:make_policy --plot broken.png    the stories of what broke, as a picture

make_policy is called with (config, prefixes) and returns a new policy (fairprefix.Policy). Modules are looked for
in the current directory as well. Exit code 0: nothing broke; 1: something did, or a check could not be run; 2: the
command line is wrong, or the module cannot be imported."""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 (argparse does not name this type)
    """Register the command."""
    parser = subparsers.add_parser(
        "verify",
        help="try to break a scheduling policy",
        description="Run the conformance kit on a policy: named checks, each with a shrunk story when it fails.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("policy", metavar="MODULE:FACTORY", help=f"your factory, or one of {', '.join(POLICIES)}")
    parser.add_argument(
        "--claim",
        metavar="NAME[=VALUE]",
        action="append",
        default=[],
        help="what the policy promises; may be given several times",
    )
    parser.add_argument(
        "--config", metavar="FILE", help="settings that the factory is given, from a .toml, .json or .yaml file"
    )
    parser.add_argument(
        "--examples", type=whole(1), default=100, metavar="N", help="histories per check (default: 100)"
    )
    parser.add_argument(
        "--seed", type=whole(0), default=0, metavar="S", help="of the random histories (default: 0)"
    )
    parser.add_argument("--only", metavar="CHECK,...", type=_names, default=(), help="run these checks alone")
    parser.add_argument("--skip", metavar="CHECK,...", type=_names, default=(), help="leave these checks out")
    parser.add_argument(
        "--time-limit", type=positive, default=60.0, metavar="S", help="seconds per check (default: 60)"
    )
    add_json(parser, "the verdicts")
    parser.add_argument("--plot", metavar="FILE", help=f"draw what failed: {either(SUFFIXES)}")
    parser.add_argument("--logs", metavar="DIR", help="write the history of each failure, for `fairprefix replay`")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; see `fairprefix verify --help`."""
    kit = _kit()
    check_json(args.json)
    if args.plot:
        require_matplotlib()
        check_target("--plot", args.plot, suffixes=SUFFIXES)
    if args.logs:
        check_folder("--logs", args.logs)
    settings = {} if args.config is None else read_settings(args.config)
    config = make_config(SMALL | settings, args.config or "the default settings")
    factory, config, claims = _subject(args.policy, config)
    claims = _claimed(claims, args.claim)
    _refuse_to_check_nothing(claims, config, args.only, args.skip)
    # What the policy prints does not belong among the verdicts.
    with contextlib.redirect_stdout(sys.stderr) if args.json == STDOUT else contextlib.nullcontext():
        report: Report = kit.check_policy(
            factory,
            claims=claims,
            config=config,
            examples=args.examples,
            only=args.only,
            skip=args.skip,
            seed=args.seed,
            time_limit_s=args.time_limit,
        )
    report = attrs.evolve(report, subject=args.policy)
    write_json(args.json, {"schema": SCHEMA, **report.to_mapping()})
    _show(report, beside_json(args.json), args.plot)
    if args.logs:
        _write_logs(Path(args.logs), report)
    return 0 if report.ok else BROKEN


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(","))


def _kit() -> Any:  # noqa: ANN401 (a module that may be missing)
    try:
        return importlib.import_module("fairprefix.testing")
    except ImportError as missing:
        raise UsageError(str(missing)) from None


def _subject(name: str, config: PolicyConfig) -> tuple[Any, PolicyConfig, Claims]:
    """Return factory, configuration and claims of what is to be verified."""
    from fairprefix.core.catalog import make_policy  # noqa: PLC0415 (after the kit is known to be there)
    from fairprefix.testing import Claims  # noqa: PLC0415

    if name in POLICIES:
        config = attrs.evolve(config, policy=name)
        return make_policy, config, Claims.of(config)
    factory = load_factory(name)
    if not callable(factory):
        raise UsageError(f"{name} is {factory!r}, expected a function (config, prefixes) that returns a policy")
    return factory, config, Claims()


def _claimed(claims: Claims, given: list[str]) -> Claims:
    """Return the claims with those of the command line."""
    kinds = {field.name: field.default for field in attrs.fields(type(claims))}
    values: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if name not in kinds:
            raise UsageError(
                f"--claim {text}: there is no claim {name!r}{nearest(name, kinds)}; known: {', '.join(kinds)}"
            )
        if isinstance(kinds[name], bool):
            if equals and value not in ("true", "false"):
                raise UsageError(f"--claim {text}: expected true or false")
            values[name] = value != "false"
        elif not equals:
            raise UsageError(f"--claim {text}: a value is missing, expected {name}=VALUE")
        else:
            values[name] = int(value) if value.isdigit() else value
    return attrs.evolve(claims, **values)


def _refuse_to_check_nothing(
    claims: Claims, config: PolicyConfig, only: Collection[str], skip: Collection[str]
) -> None:
    """Refuse checks that are asked for by name and would be skipped: exit code 0 would say that they passed."""
    from fairprefix.testing.checks import CHECKS  # noqa: PLC0415 (after the kit is known to be there)

    for check in CHECKS:
        if check.name in only and check.name in skip:
            raise UsageError(f"--skip {check.name}: --only asks for it")
        if check.name in only and not check.applies(claims, config):
            raise UsageError(f"--only {check.name}: it needs the claim {check.enabled_by} (see --claim)")


def _show(report: Report, stream: TextIO, plot: str | None) -> None:
    """Print the report, each story with its timeline in letters unless it is drawn."""
    from fairprefix.cli.storyplot import drawable, plot_stories  # noqa: PLC0415 (needs the kit)
    from fairprefix.cli.timeline import text_timeline  # noqa: PLC0415

    if not plot:
        emit(report.to_text(lambda story: text_timeline(story, stream)), stream)
        return
    emit(report.to_text(), stream)
    drawn, left_out = drawable(report)
    if drawn:
        with replacing(plot) as path:
            plot_stories(drawn, report.subject, path)
    what = f"{plot}: {', '.join(verdict.check for verdict in drawn)}" if drawn else f"{plot}: nothing to draw"
    emit(f"\n{what}{f' ({left_out} more left out)' if left_out else ''}", stream)


def _write_logs(folder: Path, report: Report) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for verdict in report.failed:
        if verdict.story and verdict.story.log:
            with replacing(str(folder / f"{verdict.check}.jsonl")) as path:
                lines = "".join(f"{json.dumps(dict(event))}\n" for event in verdict.story.log)
                path.write_text(lines, encoding="utf-8")
