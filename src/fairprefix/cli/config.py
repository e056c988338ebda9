"""`fairprefix config`: check a configuration file, or print all settings there are."""

from __future__ import annotations

import argparse
import json
from typing import Any, NamedTuple

from fairprefix.cli.errors import UsageError
from fairprefix.cli.output import emit, text_table
from fairprefix.configfile import KNOWN, describe_problems, find_problems, read_settings
from fairprefix.core.config import (
    GATES,
    POLICIES,
    RECOMPUTATIONS,
    RESERVATIONS,
    VTC_CHARGES,
    PolicyConfig,
)
from fairprefix.core.errors import ConfigError

SCHEMA = 1
BAD_CONFIG = 2


class Doc(NamedTuple):
    """What the template says about a setting."""

    text: str
    example: object = None
    """Shown as a comment for a setting without a default."""


DOCS = {
    "policy": Doc(f"one of {', '.join(POLICIES)}"),
    "quantum": Doc("dlpm: service units that a client of weight 1 gets at each refill, >= 1"),
    "gate": Doc(f"dlpm, {' or '.join(GATES)}: what must be positive; credit sets outstanding output aside"),
    "slack": Doc("dlpm with gate credit: above this a client holds back the refill, >= 0"),
    "overdraft": Doc("dlpm with gate deficit: how far below 0 others go while credit finds no room, >= 0"),
    "bounded_wait": Doc("every so many admissions a client's oldest request is taken, >= 1; unset: never", 16),
    "weights": Doc("share of service by client; 2 gets twice what 1 gets", {"alice": 2, "bob": 1}),
    "default_weight": Doc("weight of a client that [weights] does not name, >= 1"),
    "vtc_charge": Doc(f"vtc, {' or '.join(VTC_CHARGES)}: charge whole prompts, or what the cache does not hold"),
    "reservation": Doc(f"the engine, {' or '.join(RESERVATIONS)}: does it reserve room for the longest output?"),
    "recompute": Doc(f"{' or '.join(RECOMPUTATIONS)}: what a preempted request computes again"),
    "cost_extend": Doc("service units per prompt token that is not cached, >= 0"),
    "cost_output": Doc("service units per output token, >= 0"),
    "max_clients": Doc("accounts that are kept, further names share one, >= 1"),
    "identity": Doc("where a host finds a client's name, the first match wins"),
}
"""One line for every setting (a test sees to it that none is missing)."""

EPILOG = """\
examples:
  fairprefix config show > fair.toml      all settings, with their defaults, as a file to start from
  fairprefix config check fair.toml       is it valid? .toml, .json, and .yaml with 'fairprefix[yaml]'
  fairprefix simulate --config fair.toml  what would it do?"""

CHECK_EPILOG = """\
examples:
  fairprefix config check fair.toml
  fairprefix config check fair.json --json

The exit code is 0 for a valid configuration. It is 2 otherwise, and every problem is named."""

SHOW_EPILOG = """\
example:
  fairprefix config show > fair.toml"""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401  # argparse has no public name for it
    """Add this command to the command line."""
    parser = subparsers.add_parser(
        "config",
        help="check a configuration file, or print all settings",
        description="Check a configuration, the same for every host, or print all settings there are.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(metavar="COMMAND", dest="config_command", required=True)
    check = commands.add_parser(
        "check",
        help="check a configuration file and print the effective settings",
        description="Check a configuration file and print the effective settings, or every problem in it.",
        epilog=CHECK_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    check.add_argument("file", metavar="FILE", help="a .toml, .json or .yaml file")
    check.add_argument("--json", action="store_true", help="print JSON: file, valid, problems, settings")
    check.set_defaults(run=run_check)
    show = commands.add_parser(
        "show",
        help="print all settings with their defaults, as a commented TOML file",
        description="Print all settings with their defaults, as a commented TOML file to start from.",
        epilog=SHOW_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    show.set_defaults(run=run_show)


def run_check(args: argparse.Namespace) -> int:
    """Check a file; see `fairprefix config check --help`."""
    try:
        given = read_settings(args.file)
        problems = find_problems(given)
    except ConfigError as problem:
        given, problems = {}, [str(problem).removeprefix(f"{args.file}: ")]
    if args.json:
        settings = None if problems else PolicyConfig.from_mapping(given).to_mapping()
        answer = {"schema": SCHEMA, "file": args.file, "valid": not problems}
        emit(json.dumps(answer | {"problems": problems, "settings": settings}, indent=2))
        return BAD_CONFIG if problems else 0
    if problems:
        raise UsageError(describe_problems(args.file, problems))
    emit(f"{args.file}: valid\n")
    emit(effective(given))
    return 0


def run_show(_args: argparse.Namespace) -> int:
    """Print the template; see `fairprefix config show --help`."""
    emit(template())
    return 0


def effective(given: dict[str, Any]) -> str:
    """Return a table of all settings, and where each comes from."""
    settings = PolicyConfig.from_mapping(given).to_mapping()
    rows = [
        (name, "unset" if value is None else _toml(value), "file" if name in given else "default")
        for name, value in settings.items()
    ]
    return text_table([("setting", "value", "from"), *rows], left=3)


def template() -> str:
    """Return a TOML file with every setting at its default, and what it means."""
    defaults = PolicyConfig().to_mapping()
    # A table ends the plain settings of a TOML file, so the weights come last.
    plain = [_entry(name, defaults[name]) for name in KNOWN if name != "weights"]
    weights = [f"# {name} = {weight}" for name, weight in _examples("weights").items()]
    head = "# fairprefix: all settings with their defaults. Leave out what you do not change."
    return "\n\n".join([head, *plain, "\n".join([f"# {DOCS['weights'].text}", "[weights]", *weights])])


def _entry(name: str, default: object) -> str:
    doc = DOCS[name]
    setting = f"# {name} = {_toml(doc.example)}" if default is None else f"{name} = {_toml(default)}"
    return f"# {doc.text}\n{setting}"


def _examples(name: str) -> dict[str, int]:
    example = DOCS[name].example
    assert isinstance(example, dict)
    return example


def _toml(value: object) -> str:
    """Return a value as TOML writes it, which for numbers, texts and lists of them is also JSON."""
    if isinstance(value, dict):
        entries = ", ".join(f"{json.dumps(name)} = {_toml(entry)}" for name, entry in value.items())
        return f"{{ {entries} }}" if entries else "{}"
    return json.dumps(value)
