"""What a deployment has to be told, so that its routing and its replicas are fair."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

from fairprefix.adapters.ray.settings import LedgerSettings
from fairprefix.core.errors import FairprefixError

_OLDEST = (2, 56)
LEDGER = "fairprefix"
"""Name of the deployment actor."""


class MissingRayError(FairprefixError, ImportError):
    """Ray Serve is not installed."""


def need_ray() -> None:
    """Raise one clear sentence where Ray Serve is missing.

    Raises:
        MissingRayError: it is.
    """
    needs = "this needs Ray Serve 2.56 or later: pip install 'fairprefix[ray]'"
    if find_spec("ray") is None or find_spec("starlette") is None:
        raise MissingRayError(needs)
    found = version("ray")
    if tuple(int(part) for part in found.split(".")[:2]) < _OLDEST:
        raise MissingRayError(f"{needs} (found Ray {found})")


def fair_options(
    settings: LedgerSettings | Mapping[str, Any] | None = None,
    *,
    ledger: str = LEDGER,
    actor_options: Mapping[str, Any] | None = None,
    **options: Any,  # noqa: ANN401 (whatever serve.deployment takes)
) -> dict[str, Any]:
    """Return options for `serve.deployment`: the router, and the ledger as an actor of the deployment.

    Args:
        settings: of everything; see `LedgerSettings`.
        ledger: name of the actor.
        actor_options: of the actor, for Ray; it needs little.
        options: further options of the deployment, passed on. `max_ongoing_requests` is made large unless given:
            requests are to wait in the replicas' gates, where they are admitted fairly, and not in routers.

    Raises:
        ConfigError: a setting is not valid.
        MissingRayError: Ray Serve is not installed.
    """
    need_ray()
    import ray  # noqa: PLC0415 (an extra)
    from ray.serve.config import DeploymentActorConfig, RequestRouterConfig  # noqa: PLC0415 (an extra)

    from fairprefix.adapters.ray.ledger import Ledger  # noqa: PLC0415 (only where Ray is)

    made = settings if isinstance(settings, LedgerSettings) else LedgerSettings.from_mapping(settings or {})
    return {
        "max_ongoing_requests": 10_000,
        "request_router_config": RequestRouterConfig(
            request_router_class="fairprefix.adapters.ray.router:D2LPMRouter",
            request_router_kwargs={
                "ledger": ledger,
                "timeout_s": made.timeout_s,
                "sync_period_s": made.sync_period_s,
                "identity": list(made.policy.identity),
                "block_size": made.router.block_size,
            },
        ),
        "deployment_actors": [
            DeploymentActorConfig(
                name=ledger,
                actor_class=ray.remote(max_concurrency=1000)(Ledger),
                init_kwargs={"settings": made.to_mapping(), "gauges": True},
                actor_options={"num_cpus": 0, **(actor_options or {})},
            )
        ],
        **options,
    }
