"""`fairprefix serve`: a model behind an OpenAI-compatible server, shared out by a policy."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairprefix.cli.errors import UsageError
from fairprefix.cli.files import check_target, replacing
from fairprefix.cli.options import add_settings, add_shares, either, name_of, port, whole
from fairprefix.core.config import POLICIES, RESERVATIONS, PolicyConfig
from fairprefix.gpu_ref_engine.attention import BACKENDS
from fairprefix.gpu_ref_engine.errors import need
from fairprefix.hosting import host_config
from fairprefix.hosting.listen import listen
from fairprefix.hosting.settings import CONFIG_VARIABLE

if TYPE_CHECKING:
    from fairprefix.gpu_ref_engine.config import EngineConfig
    from fairprefix.gpu_ref_engine.server.service import Service
    from fairprefix.gpu_ref_engine.server.settings import ServerConfig

DTYPES = ("auto", "float32", "bfloat16", "float16")
DEVICES = ("auto", "cpu", "cuda")
SWITCH = ("auto", "on", "off")

EPILOG = """\
examples:
  fairprefix serve random
      a tiny random model: answers are noise, but everything works, with no download at all
  fairprefix serve smollm2 --policy dlpm --port 8000
      a small real model (fetch it once: fairprefix model get smollm2)
  fairprefix serve /models/llama --api-keys keys.txt --weight research=2 --config fair.toml
      clients are told apart by their API keys; research gets twice what the others get
  fairprefix serve smollm2 --trust 10.0.0.0/8
      behind a proxy that sets x-tenant-id: only from its addresses do headers say who a client is

then, with any client of OpenAI's API:
  curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json' \\
    -d '{"messages": [{"role": "user", "content": "Hello!"}], "stream": true}'

SIGTERM stops accepting requests and lets those under way finish. Endpoints, limits and metrics: docs/engine.md."""


def add_parser(subparsers: Any) -> None:  # noqa: ANN401  # argparse has no public name for it
    """Add this command to the command line."""
    parser = subparsers.add_parser(
        "serve",
        help="serve a model over OpenAI's API, shared out fairly between its clients",
        description="Serve a model over OpenAI's API with the reference engine, on a CPU or on one GPU.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    _add_model_options(parser)
    _add_policy_options(parser)
    _add_server_options(parser)
    _add_limit_options(parser)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        "model", metavar="MODEL", help="random, a name of `fairprefix model list`, a GGUF file, or a directory"
    )
    group.add_argument("--name", metavar="NAME", help="name under which it is served (default: MODEL)")
    group.add_argument("--device", type=name_of(DEVICES), default="auto", metavar="D", help="cpu, cuda or auto")
    group.add_argument(
        "--dtype", type=name_of(DTYPES), default="auto", metavar="T", help="float32, bfloat16, float16 or auto"
    )
    group.add_argument(
        "--backend",
        type=name_of(BACKENDS),
        default="auto",
        metavar="B",
        help=f"of attention: {either(BACKENDS)} (default: auto)",
    )
    group.add_argument(
        "--kv-tokens", type=whole(1), metavar="N", help="size of the KV memory (default: what there is room for)"
    )
    group.add_argument("--page-size", type=whole(1), default=16, metavar="N", help="tokens per page (default: 16)")
    group.add_argument(
        "--max-batch", type=whole(1), default=64, metavar="N", help="requests that run at once (default: 64)"
    )
    group.add_argument("--chunk", type=whole(1), default=512, metavar="N", help="tokens a step (default: 512)")
    group.add_argument(
        "--overlap",
        type=name_of(SWITCH),
        default="auto",
        metavar="O",
        help="schedule a step while the one before it runs: on, off, or auto for on a GPU (default: auto)",
    )
    group.add_argument("--no-prefix-cache", action="store_true", help="compute every prompt from its beginning")


def _add_policy_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("policy")
    group.add_argument(
        "--policy", type=name_of(POLICIES), metavar="P", help="fcfs, lpm, vtc or dlpm (default: dlpm)"
    )
    add_settings(group, variable=CONFIG_VARIABLE)
    add_shares(group, quantum=PolicyConfig().quantum)
    group.add_argument(
        "--reservation",
        type=name_of(RESERVATIONS),
        metavar="R",
        help="none: admit by estimate, preempt when memory runs out; full: reserve the longest output "
        "(default: none, or what the configuration says)",
    )


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("server")
    group.add_argument(
        "--host", default="127.0.0.1", metavar="H", help="address to listen on (default: 127.0.0.1)"
    )
    group.add_argument(
        "--port", type=port, default=8000, metavar="P", help="port; 0 for a free one (default: 8000)"
    )
    group.add_argument("--api-keys", metavar="FILE", help="lines of CLIENT KEY: only who shows a key is served")
    group.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="proxy, or network of proxies, whose headers may name clients; * for everybody (default: nobody)",
    )
    group.add_argument(
        "--drain", type=whole(1), default=30, metavar="S", help="seconds to finish requests in (default: 30)"
    )
    group.add_argument("--profile", metavar="FILE", help="write the latest steps as a Chrome trace when stopped")


def _add_limit_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("limits")
    for option, default, text in (
        ("--max-body", 4 << 20, "bytes of a request, else 413"),
        ("--max-output", 4096, "tokens of an answer, else 400"),
        ("--max-waiting", 1000, "requests that wait, else 429"),
    ):
        group.add_argument(
            option, type=whole(1), default=default, metavar="N", help=f"{text} (default: {default})"
        )
    group.add_argument("--max-prompt", type=whole(1), metavar="N", help="tokens of a prompt, else 400")
    group.add_argument(
        "--max-per-client", type=whole(1), metavar="N", help="requests of one client under way, else 429"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; see `fairprefix serve --help`."""
    # Read when torch is loaded: threads that spin while they wait take the processor from everybody else.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for module in ("torch", "starlette", "uvicorn"):
        need(module, "engine,server")
    if args.profile:
        check_target("--profile", args.profile)
    policy, keys = _policy(args), _keys(args.api_keys)
    from fairprefix.gpu_ref_engine.server.run import serve  # noqa: PLC0415  # an extra

    server = _server_config(args, keys)
    with listen(server.host, server.port) as listening:  # a port that is taken is told before a model is loaded
        service = _service(args, policy, server)
        serve(service, listening, lambda address: _announce(address, service))
    if args.profile:
        with replacing(args.profile) as path:
            path.write_text(json.dumps(service.worker.engine.profile.chrome_trace()), encoding="utf-8")
    return 0


def _policy(args: argparse.Namespace) -> PolicyConfig:
    """Return the settings of the file (or the environment), of which the options override some."""
    base = host_config(args.config)
    settings = base.to_mapping() | {"weights": {**base.weights, **dict(args.weight)}}
    if args.config is None and not os.environ.get(CONFIG_VARIABLE):
        settings["reservation"] = "none"
    for name in ("policy", "quantum", "reservation"):
        if getattr(args, name) is not None:
            settings[name] = getattr(args, name)
    return PolicyConfig.from_mapping(settings)


def _keys(file: str | None) -> Mapping[str, str]:
    """Return client names by API key."""
    if file is None:
        return {}
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or problem
        raise UsageError(f"--api-keys {file}: cannot be read: {reason}") from problem
    keys: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or words[1] in keys:  # noqa: PLR2004  # a client and a key
            raise UsageError(f"--api-keys {file}:{number}: expected CLIENT KEY, each key once")
        keys[words[1]] = words[0]
    if not keys:
        raise UsageError(f"--api-keys {file}: expected at least one line CLIENT KEY")
    return keys


def _service(args: argparse.Namespace, policy: PolicyConfig, server: ServerConfig) -> Service:
    from fairprefix.gpu_ref_engine.load import load_model  # noqa: PLC0415  # extras
    from fairprefix.gpu_ref_engine.server.assemble import make_service  # noqa: PLC0415

    engine = _engine_config(args, policy)
    print(f"loading {args.model} ...", file=sys.stderr, flush=True)
    runner, tokenizer = load_model(
        args.model,
        device=args.device,
        dtype=args.dtype,
        kv_tokens=args.kv_tokens,
        page_size=args.page_size,
        backend=args.backend,
    )
    return make_service(runner, tokenizer, policy, engine, server)


def _engine_config(args: argparse.Namespace, policy: PolicyConfig) -> EngineConfig:
    from fairprefix.gpu_ref_engine.config import EngineConfig  # noqa: PLC0415  # an extra

    return EngineConfig(
        max_batch=args.max_batch,
        chunk=args.chunk,
        reservation=policy.reservation,
        overlap=args.overlap == "on" or (args.overlap == "auto" and _on_gpu(args.device)),
        prefix_cache=not args.no_prefix_cache,
    )


def _on_gpu(device: str) -> bool:
    return device != "cpu" and bool(need("torch", "engine").cuda.is_available())


def _server_config(args: argparse.Namespace, keys: Mapping[str, str]) -> ServerConfig:
    from fairprefix.gpu_ref_engine.server.settings import ServerConfig  # noqa: PLC0415  # an extra

    return ServerConfig(
        model=args.name or args.model,
        host=args.host,
        port=args.port,
        api_keys=keys,
        trusted=tuple(args.trust),
        max_body=args.max_body,
        max_prompt=args.max_prompt,
        max_output=args.max_output,
        max_waiting=args.max_waiting,
        max_per_client=args.max_per_client,
        drain_s=args.drain,
    )


def _announce(address: str, service: Service) -> None:
    engine, config = service.worker.engine, service.config
    memory = engine.cache.pages * engine.cache.page_size
    who = []
    if config.api_keys:
        who.append(f"the API keys of {len(config.api_keys)} clients")
    if config.trusted:
        sources = ", ".join(source for source in engine.policy_config.identity if ":" in source) or "no header"
        who.append(f"{sources} from {', '.join(config.trusted)}")
    told = " and ".join(who) or "nothing: all requests count as one client's (see --api-keys, --trust)"
    print(
        f"fairprefix: serving {config.model} at {address}/v1 under {engine.policy_config.policy}; "
        f"KV memory of {memory:,} tokens, reservation {engine.config.reservation}\n"
        f"fairprefix: clients are told apart by {told}",
        flush=True,
    )
