"""`fairprefix replay`: re-execute a recorded history under a policy, and print each decision."""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

from fairprefix.cli.errors import UsageError
from fairprefix.cli.factory import BROKEN, BrokenPolicyError, OwnPolicy, load_factory
from fairprefix.cli.files import STDOUT, add_json, check_json, write_json
from fairprefix.cli.options import whole
from fairprefix.cli.output import client_name, emit, printable
from fairprefix.core.config import POLICIES, PolicyConfig
from fairprefix.core.errors import ConfigError, HostError, SnapshotError
from fairprefix.core.history import Decision, Replay
from fairprefix.core.policy import Policy
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.core.snapshot import SCHEMA

EPILOG = """\
examples:
  fairprefix simulate --policy dlpm --record run.jsonl       record a run
  fairprefix replay run.jsonl                                 the same decisions again
  fairprefix replay run.jsonl --policy lpm                    where would LPM have chosen otherwise?
  fairprefix replay run.jsonl --policy my_module:make_policy  where would yours?
  fairprefix replay run.jsonl.gz --json - | jq .differs       for machines

The history is followed as it was recorded: each admission is carried out whoever would have been chosen, and the
policy's own choice is shown beside it. A factory of your own is called with the recorded configuration; modules
are looked for in the current directory as well. Exit code 1: your policy or its factory raised."""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401 (argparse does not name this type)
    """Register the command."""
    parser = subparsers.add_parser(
        "replay",
        help="re-execute a recorded history",
        description="Re-execute a recorded history (JSON lines, plain or .gz) under a policy.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("log", metavar="LOG", help="the history")
    parser.add_argument(
        "--policy", metavar="P", help="to use instead of the recorded one: a name, or MODULE:FACTORY"
    )
    parser.add_argument("--limit", metavar="N", type=whole(0), help="print only the first N decisions")
    add_json(parser, "the decisions")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Re-execute the history; print each decision and how many differ from what was recorded."""
    check_json(args.json, inputs=[args.log])
    start = _starter(args.policy)
    try:
        replay, decisions = _replay(args.log, start)
        differs = sum(not decision.agrees for _line, decision in decisions)
        name = args.policy or replay.config.policy
        result = _as_json(replay, name, decisions, differs) if args.json else {}
    except BrokenPolicyError as broken:
        emit(printable(str(broken)), sys.stderr)
        return BROKEN
    write_json(args.json, result)
    if args.json != STDOUT:
        for line, decision in decisions[: args.limit]:
            emit(_describe(line, decision))
        emit(f"{len(decisions)} admissions under {name}, {differs} would have differed")
    return 0


def _replay(log: str, start: Callable[[dict[str, Any]], Replay]) -> tuple[Replay, list[tuple[int, Decision]]]:
    decisions: list[tuple[int, Decision]] = []
    events = _read(log)
    first = next(events, None)
    if first is None:
        raise UsageError(f"{log}: the file is empty, expected a history")
    replay = start(_located(log, *first))
    for line, event in events:
        try:
            decision = replay.step(event)
        except (SnapshotError, HostError, ConfigError) as problem:
            raise UsageError(f"{log}:{line}: {problem}") from None
        except BrokenPolicyError as broken:
            raise BrokenPolicyError(f"{log}:{line}: {broken}") from broken
        if decision:
            decisions.append((line, decision))
    return replay, decisions


def _starter(policy: str | None) -> Callable[[dict[str, Any]], Replay]:
    """Return what begins a replay: under the recorded policy, another one of this package, or the user's own."""
    if policy is None or policy in POLICIES:
        return lambda opening: Replay(opening, policy)
    factory = load_factory(policy)

    def make(config: PolicyConfig, prefixes: PrefixIndex) -> Policy:
        return cast("Policy", OwnPolicy(policy, factory, config, prefixes))

    return lambda opening: Replay(opening, make=make)


def _located(log: str, line: int, event: dict[str, Any]) -> dict[str, Any]:
    if event.get("event") != "open":
        raise UsageError(f"{log}:{line}: a history begins with an event 'open', found {event.get('event')!r}")
    return event


def _read(log: str) -> Iterator[tuple[int, dict[str, Any]]]:
    path = Path(log)
    try:
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as lines:
            for number, text in enumerate(lines, start=1):
                yield number, _parse(log, number, text)
    except (OSError, EOFError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise UsageError(f"{log}: cannot be read: {reason}") from None


def _parse(log: str, number: int, text: str) -> dict[str, Any]:
    try:
        event = json.loads(text)
    except ValueError as problem:
        raise UsageError(f"{log}:{number}: is not valid JSON: {problem}") from None
    if not isinstance(event, dict):
        raise UsageError(f"{log}:{number}: expected an object, found {text.strip()[:40]!r}")
    return event


def _describe(line: int, decision: Decision) -> str:
    verdict = "as recorded" if decision.agrees else f"would offer {printable(decision.offered or 'nobody')}"
    return (
        f"{line}: {printable(decision.taken)} of {client_name(decision.client)} "
        f"charged {decision.charged}: {verdict}"
    )


def _as_json(replay: Replay, policy: str, decisions: list[tuple[int, Decision]], differs: int) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "policy": policy,
        "admissions": len(decisions),
        "differs": differs,
        "decisions": [
            {
                "line": line,
                "taken": decision.taken,
                "client": decision.client,
                "offered": decision.offered,
                "charged": decision.charged,
            }
            for line, decision in decisions
        ],
        "state": replay.policy.snapshot(),
    }
