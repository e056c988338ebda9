"""From a configuration, or a snapshot, to a router."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairprefix.core.cache_aware import CacheAware
from fairprefix.core.consistent_hash import ConsistentHash, DualMap
from fairprefix.core.d2lpm import D2LPM
from fairprefix.core.errors import SnapshotError
from fairprefix.core.least_loaded import LeastLoaded, PowerOfTwo
from fairprefix.core.preble import Preble
from fairprefix.core.round_robin import ClientRoundRobin, RoundRobin
from fairprefix.core.router_base import BaseRouter
from fairprefix.core.router_config import RouterConfig
from fairprefix.core.worker_index import WorkerIndex

_CLASSES: Mapping[str, type[BaseRouter]] = {
    cls.name: cls
    for cls in (
        *(D2LPM, Preble, CacheAware, DualMap, ConsistentHash),
        *(LeastLoaded, PowerOfTwo, RoundRobin, ClientRoundRobin),
    )
}


def make_router(config: RouterConfig, index: WorkerIndex | None = None) -> BaseRouter:
    """Return a new router as configured, without workers; `index` is its view of their caches."""
    return _CLASSES[config.router](config, index)


def restore_router(snapshot: Mapping[str, Any], index: WorkerIndex | None = None) -> BaseRouter:
    """Return the router that a snapshot was taken of, in that state; see `BaseRouter.restore`.

    Raises:
        SnapshotError: it is not a snapshot, or names a router that does not exist.
    """
    name = str(snapshot.get("router"))
    if name not in _CLASSES:
        raise SnapshotError(f"snapshot: router = {name!r}, expected one of {', '.join(_CLASSES)}")
    return _CLASSES[name].restore(snapshot, index)
