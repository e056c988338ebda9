"""What shapes the ledger, the routers and the gates of a deployment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs
from attrs import frozen

from fairprefix.core.errors import ConfigError, nearest
from fairprefix.core.router_config import RouterConfig
from fairprefix.hosting.fleet_settings import FleetSettings


def _router_config(given: RouterConfig | Mapping[str, Any]) -> RouterConfig:
    return given if isinstance(given, RouterConfig) else RouterConfig.from_mapping(given)


@frozen(kw_only=True)
class LedgerSettings(FleetSettings):
    """Everything that a deployment's fairness depends on, in one place.

    Raises:
        ConfigError: a value is outside its range; the message names it.
    """

    router: RouterConfig = attrs.field(
        factory=lambda: RouterConfig(output_charge="average"), converter=_router_config
    )
    """Of the dispatcher. Its weights and costs are the policy's."""
    cache_blocks: int = 32_768
    """Blocks that a replica's prefix cache holds, where the replica itself does not say what is cached."""
    sync_period_s: float = 2.0
    """How often routers fetch a checkpoint, from which a ledger that died is rebuilt."""
    timeout_s: float = 1.0
    """How long a router waits for the ledger's answer before it decides by itself."""
    grace_s: float = 2.0
    """How long an ended request waits for its replica's report."""
    silence_s: float = 30.0
    """After which a router that says nothing is taken to be dead."""

    counts: ClassVar[tuple[str, ...]] = (*FleetSettings.counts, "cache_blocks")
    seconds: ClassVar[tuple[str, ...]] = (
        *FleetSettings.seconds,
        "sync_period_s",
        "timeout_s",
        "grace_s",
        "silence_s",
    )

    def dispatcher(self) -> RouterConfig:
        """Return the router's settings, with weights and costs of the policy."""
        return attrs.evolve(self.counted_alike(self.router), worker_blocks=self.cache_blocks)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> LedgerSettings:
        """Build settings from parsed JSON.

        Raises:
            ConfigError: a key is unknown (the nearest name is suggested) or a value is not valid.
        """
        known = [attribute.name for attribute in attrs.fields(cls)]
        for key in values:
            if key not in known:
                raise ConfigError(f"unknown setting {key!r}{nearest(str(key), known)}; known: {', '.join(known)}")
        return cls(**values)

    def to_mapping(self) -> dict[str, Any]:
        """Return the settings as JSON-serialisable data that `from_mapping` reads."""
        values = {a.name: getattr(self, a.name) for a in attrs.fields(type(self))}
        return values | {"policy": self.policy.to_mapping(), "router": self.router.to_mapping()}
