"""Finds the ledger of a deployment among Ray's named actors."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import ray
from ray.serve._private.constants import SERVE_DEPLOYMENT_ACTOR_PREFIX, SERVE_NAMESPACE

from fairprefix.adapters.ray.key import RouteKey
from fairprefix.adapters.ray.link import Question


class RemoteLedger:
    """The ledger's methods as coroutines, over an actor's handle."""

    def __init__(self, actor: Any) -> None:  # noqa: ANN401 (Ray's handles are not typed)
        self._actor = actor

    def exchange(
        self,
        epoch: str,
        router: str,
        events: list[tuple[Any, ...]],
        asks: list[Question] = [],  # noqa: B006 (nobody changes it)
        want_checkpoint: bool = False,  # noqa: FBT001, FBT002 (positional arguments are cheaper in Ray)
    ) -> Awaitable[tuple[str, Any]]:
        """Call the actor."""
        found: Awaitable[tuple[str, Any]] = self._actor.exchange.remote(
            epoch, router, events, asks, want_checkpoint
        )
        return found

    def hello(
        self,
        router: str,
        members: list[str],
        sent: list[tuple[str, RouteKey, str]],
        checkpoint: Any,  # noqa: ANN401 (JSON-serialisable data)
    ) -> Awaitable[str]:
        """Call the actor."""
        found: Awaitable[str] = self._actor.hello.remote(router, members, sent, checkpoint)
        return found


def ledger_actor(app: str, deployment: str, name: str) -> Any:  # noqa: ANN401 (Ray's handles are not typed)
    """Return the handle of a deployment's ledger. Blocks for a round trip to Ray's control store.

    The name that Serve gives to a deployment's actor has the version of the code in it, which a router does not
    know: hence a search.

    Raises:
        LookupError: there is none, or not yet.
    """
    if not ray.is_initialized():  # or Ray would start itself anew
        raise LookupError("Ray is not running in this process")
    prefix, suffix = f"{SERVE_DEPLOYMENT_ACTOR_PREFIX}{app}::{deployment}::", f"::{name}"
    for actor in ray.util.list_named_actors(all_namespaces=True):
        full = actor["name"]
        if actor["namespace"] == SERVE_NAMESPACE and full.startswith(prefix) and full.endswith(suffix):
            return ray.get_actor(full, namespace=SERVE_NAMESPACE)
    raise LookupError(
        f"deployment {deployment!r} of application {app!r} has no actor {name!r}: "
        "give it deployment_actors (fair_options does)"
    )


def find_ledger(app: str, deployment: str, name: str) -> RemoteLedger:
    """Return a deployment's ledger; see `ledger_actor`."""
    return RemoteLedger(ledger_actor(app, deployment, name))
