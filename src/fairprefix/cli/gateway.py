"""`fairprefix gateway`: makes any OpenAI-compatible engine fair, by standing in front of it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any

import attrs

from fairprefix.cli.errors import UsageError
from fairprefix.cli.gateway_parts import parts_of
from fairprefix.cli.options import add_settings, add_shares, either, name_of, port
from fairprefix.configfile import read_settings
from fairprefix.core.config import POLICIES
from fairprefix.core.errors import ConfigError
from fairprefix.core.router_config import ROUTERS
from fairprefix.gateway.config import QUANTUM, Settings, WorkerConfig, make_settings
from fairprefix.hosting.extras import need
from fairprefix.hosting.settings import CONFIG_VARIABLE

EXTRA = "gateway"
LIBRARIES = ("uvicorn", "httptools", "aiohttp", "orjson", "xxhash", "prometheus_client")

EPILOG = """\
examples:
  fairprefix gateway --worker http://10.0.0.5:8000 --worker http://10.0.0.6:8000
      two engines of any kind; how many requests each bears at once is learnt
  fairprefix gateway --worker http://10.0.0.5:8000,window=64 --trust 10.1.0.0/16
      64 requests at the worker at most; a proxy in 10.1.0.0/16 says in x-tenant-id who a client is
  fairprefix gateway --worker http://10.0.0.5:8000,fairprefix=vllm
      a worker that is fair itself: requests do not queue here, their clients' names are passed on
  fairprefix gateway --config gateway.toml
      everything in one file: docs/integrate/gateway.md
  printf %s "$KEY" | fairprefix gateway --hash-key
      what to write into the file instead of an API key

Figures and state are shown on a listener of their own: curl http://127.0.0.1:8081/admin/state
SIGTERM stops accepting requests and lets those under way finish."""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401  # argparse has no public name for it
    """Add this command to the command line."""
    parser = subparsers.add_parser(
        "gateway",
        help="stand in front of OpenAI-compatible servers, and share them out fairly",
        description="Route requests to workers, with a fair queue in front of each of them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "--worker",
        action="append",
        default=[],
        metavar="URL",
        help="a worker, http://HOST:PORT; with ,window=N and ,fairprefix=KIND; may be given several times",
    )
    add_settings(parser, variable=CONFIG_VARIABLE)
    parser.add_argument(
        "--policy", type=name_of(POLICIES), metavar="P", help=f"of the queues: {either(POLICIES)} (default: dlpm)"
    )
    parser.add_argument(
        "--router", type=name_of(ROUTERS), metavar="R", help=f"of the workers: {either(ROUTERS)} (default: d2lpm)"
    )
    add_shares(parser, quantum=QUANTUM)
    parser.add_argument("--host", metavar="H", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=port, metavar="P", help="port; 0 for a free one (default: 8080)")
    parser.add_argument("--admin-host", metavar="H", help="address of figures and state (default: 127.0.0.1)")
    parser.add_argument("--admin-port", type=port, metavar="P", help="its port (default: 8081)")
    parser.add_argument(
        "--trust", action="append", default=[], metavar="ADDRESS",
        help="proxy, or network of proxies, whose headers may name clients; * for everybody (default: nobody)",
    )  # fmt: skip
    parser.add_argument("--state", metavar="FILE", help="deficits are kept there over restarts")
    parser.add_argument("--hash-key", action="store_true", help="print the hash of the key on standard input")


def run(args: argparse.Namespace) -> int:
    """Run the command; see `fairprefix gateway --help`."""
    if args.hash_key:
        return _hash_key()
    settings = read_all(args)
    for module in LIBRARIES:
        need(module, EXTRA)
    from fairprefix.gateway.gateway import Gateway  # noqa: PLC0415  # an extra
    from fairprefix.gateway.run import serve  # noqa: PLC0415

    serve(Gateway(settings, **parts_of(settings)), lambda public, admin: _announce(settings, public, admin))
    return 0


def read_all(args: argparse.Namespace) -> Settings:
    """Return the settings of the file (or the environment), of which the options override some."""
    path = args.config or os.environ.get(CONFIG_VARIABLE, "").strip()
    values: dict[str, Any] = read_settings(path) if path else {}
    for name in ("policy", "quantum"):
        if getattr(args, name) is not None:
            values[name] = getattr(args, name)
    if args.weight:
        values["weights"] = {**_table(values, "weights"), **dict(args.weight)}
    if args.router is not None:
        values["router"] = {**_table(values, "router"), "router": args.router}
    values["gateway"] = {**_table(values, "gateway"), **_given(args)}
    return make_settings(values, path or "fairprefix gateway", [read_worker(text) for text in args.worker])


def read_worker(text: str) -> WorkerConfig:
    """Return the worker that an option describes: URL,window=N,fairprefix=KIND."""
    url, *options = text.split(",")
    worker: dict[str, Any] = {"url": url}
    known = [attribute.name for attribute in attrs.fields(WorkerConfig) if attribute.name != "url"]
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or name not in known:
            raise UsageError(
                f"--worker {text}: {option!r} is not valid: expected NAME=VALUE, of {', '.join(known)}"
            )
        worker[name] = int(value) if value.isdecimal() else value
    try:
        return WorkerConfig(**worker)
    except ConfigError as problem:
        raise UsageError(f"--worker {text}: {problem}") from None


def _given(args: argparse.Namespace) -> dict[str, Any]:
    names = ("host", "port", "admin_host", "admin_port", "state")
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return given | ({"trusted": args.trust} if args.trust else {})


def _table(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = values.get(name) or {}
    if not isinstance(table, Mapping):
        raise UsageError(f"{name} = {table!r} is not valid: expected a table of settings")
    return table


def _hash_key() -> int:
    from fairprefix.gateway.keys import hash_key  # noqa: PLC0415  # keeps the start of other commands fast

    key = sys.stdin.readline().strip()
    if not key:
        raise UsageError('--hash-key: expected a key on standard input: printf %s "$KEY" | fairprefix gateway ...')
    print(hash_key(key))
    return 0


def _announce(settings: Settings, public: str, admin: str) -> None:
    gateway, workers = settings.gateway, settings.workers
    told = []
    if settings.keys:
        told.append(f"{len(settings.keys)} API keys")
    if gateway.trusted:
        sources = ", ".join(source for source in settings.policy.identity if ":" in source) or "no header"
        told.append(f"{sources} from {', '.join(gateway.trusted)}")
    fair = sum(bool(worker.fairprefix) for worker in workers)
    inside = f", {fair} of them fair themselves" if fair else ""
    print(
        f"fairprefix: gateway at {public}/v1 to {len(workers)} workers{inside}, "
        f"{settings.router.router} over queues under {settings.policy.policy}\n"
        f"fairprefix: figures at {admin}/metrics, state at {admin}/admin/state, live at {admin}/ui\n"
        "fairprefix: clients are told apart by "
        f"{' and '.join(told) or 'nothing: all requests count as one (see --trust, [[keys]])'}",
        flush=True,
    )
