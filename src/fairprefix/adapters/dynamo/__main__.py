"""The command line of the component: `python -m fairprefix.adapters.dynamo`."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from fairprefix.adapters.dynamo.settings import Settings
from fairprefix.core.errors import FairprefixError
from fairprefix.hosting.settings import host_config

_EXIT_USAGE = 2
_SWITCH_S = 0.0005


def parser() -> argparse.ArgumentParser:
    """Return the parser."""
    made = argparse.ArgumentParser(
        prog="python -m fairprefix.adapters.dynamo",
        description="D2LPM between the workers of NVIDIA Dynamo, and DLPM in front of each of them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = made.add_argument
    add("--endpoint", default="dynamo.backend.generate", help="of the workers: namespace.component.endpoint")
    add("--own-endpoint", default="dynamo.fairprefix.generate", help="of this component")
    add("--model-path", required=True, help="directory of the model's configuration and tokenizer, or its name")
    add("--model-name", required=True, help="name under which frontends serve the model")
    add("--backend-model", required=True, help="name under which the workers registered it: another one")
    add("--config", default=None, help="policy: a file, or JSON; without it FAIRPREFIX_CONFIG")
    add("--window", type=int, default=16, help="requests in flight at each worker")
    add("--quantum", type=int, default=20_000, help="of the dispatcher, in service units")
    add("--block-size", type=int, default=16, help="tokens per block of the workers' KV memory")
    add("--longest-input", type=int, default=32_768, help="tokens, for the bound")
    add("--longest-output", type=int, default=4096, help="tokens, for the bound and as default limit")
    add("--discovery-backend", default="etcd", choices=("kubernetes", "etcd", "file", "mem"))
    add("--request-plane", default="tcp", choices=("tcp", "nats"))
    add("--event-plane", default="zmq", choices=("zmq", "nats"))
    add("--no-kv-events", action="store_true", help="the workers publish nothing of their caches")
    add("--metrics-port", type=int, default=None, help="serve figures to Prometheus there")
    add("--status-file", default=None, help="write all figures into this file, as JSON")
    return made


def checked(given: argparse.Namespace) -> Settings:
    """Return the settings.

    Raises:
        FairprefixError: they cannot work, or Dynamo is missing.
    """
    if given.model_name == given.backend_model:
        raise FairprefixError(
            f"--backend-model {given.backend_model!r} is the --model-name: expected another one, or frontends "
            "send requests past this component"
        )
    settings = Settings(
        policy=host_config(given.config),
        window=given.window,
        quantum=given.quantum,
        block_size=given.block_size,
        longest_input=given.longest_input,
        longest_output=given.longest_output,
    )
    if find_spec("dynamo") is None:
        raise FairprefixError("this needs Dynamo's runtime: pip install 'fairprefix[dynamo]'")
    return settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the component; return the exit code."""
    given = parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        settings = checked(given)
    except FairprefixError as problem:
        sys.stderr.write(f"fairprefix: {problem}\n")
        return _EXIT_USAGE
    import uvloop  # noqa: PLC0415 (comes with Dynamo; each chunk of an answer crosses the event loop several times)

    from fairprefix.adapters.dynamo.run import Place, run  # noqa: PLC0415 (an extra)

    # Dynamo's threads hand over each chunk of an answer: they must not wait for Python as long as they usually do.
    sys.setswitchinterval(_SWITCH_S)
    place = Place(
        workers=given.endpoint,
        own=given.own_endpoint,
        model_path=given.model_path,
        model_name=given.model_name,
        backend_model=given.backend_model,
        discovery=given.discovery_backend,
        request_plane=given.request_plane,
        event_plane=given.event_plane,
        use_kv_events=not given.no_kv_events,
        metrics_port=given.metrics_port,
        status_file=given.status_file,
    )
    try:
        uvloop.run(run(place, settings))
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
