"""From a configuration to a policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairprefix.core.base import BasePolicy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.dlpm import DLPM
from fairprefix.core.errors import SnapshotError
from fairprefix.core.fcfs import FCFS
from fairprefix.core.lpm import LPM
from fairprefix.core.prefixes import Prefixes
from fairprefix.core.vtc import VTC

_CLASSES: Mapping[str, type[FCFS | LPM | VTC | DLPM]] = {cls.name: cls for cls in (FCFS, LPM, VTC, DLPM)}


def make_policy(config: PolicyConfig, prefixes: Prefixes | None = None) -> BasePolicy:
    """Return a new policy as configured; `prefixes` is its view of the cache."""
    return _CLASSES[config.policy](config, prefixes)


def restore_policy(snapshot: Mapping[str, Any], prefixes: Prefixes | None = None) -> BasePolicy:
    """Return the policy that a snapshot was taken of, in that state.

    Raises:
        SnapshotError: it is not a snapshot, or names a policy that does not exist.
    """
    name = str(snapshot.get("policy"))
    if name not in _CLASSES:
        raise SnapshotError(f"snapshot: policy = {name!r}, expected one of {', '.join(_CLASSES)}")
    return _CLASSES[name].restore(snapshot, prefixes)
