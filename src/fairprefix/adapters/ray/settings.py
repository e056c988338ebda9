"""What shapes the ledger, the routers and the gates of a deployment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from attrs import frozen

from fairprefix.core.bounds import Engine
from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import ConfigError, at_least, nearest, reject
from fairprefix.core.router_config import RouterConfig
from fairprefix.hosting.settings import host_config


def _router_config(given: RouterConfig | Mapping[str, Any]) -> RouterConfig:
    return given if isinstance(given, RouterConfig) else RouterConfig.from_mapping(given)


def _policy_config(given: PolicyConfig | Mapping[str, Any] | str | None) -> PolicyConfig:
    return given if isinstance(given, PolicyConfig) else host_config(given)


@frozen(kw_only=True)
class LedgerSettings:
    """Everything that a deployment's fairness depends on, in one place.

    Raises:
        ConfigError: a value is outside its range; the message names it.
    """

    policy: PolicyConfig = attrs.field(factory=host_config, converter=_policy_config)
    """Of every replica's gate. Weights and cost are the router's as well."""
    router: RouterConfig = attrs.field(
        factory=lambda: RouterConfig(output_charge="average"), converter=_router_config
    )
    """Of the dispatcher. Its weights and costs are the policy's."""
    window: int = 16
    """Requests that a replica works on at once; all others wait in its gate."""
    longest_input: int = 32_768
    """Tokens of the longest prompt, for the bound."""
    longest_output: int = 4096
    """Tokens of the longest answer, for the bound."""
    cache_blocks: int = 32_768
    """Blocks that a replica's prefix cache holds, where the replica itself does not say what is cached."""
    report_period_s: float = 0.5
    """How often replicas report: what they did since is what the ledger does not know yet."""
    sync_period_s: float = 2.0
    """How often routers fetch a checkpoint, from which a ledger that died is rebuilt."""
    timeout_s: float = 1.0
    """How long a router waits for the ledger's answer before it decides by itself."""
    grace_s: float = 2.0
    """How long an ended request waits for its replica's report."""
    silence_s: float = 30.0
    """After which a router that says nothing is taken to be dead."""

    def __attrs_post_init__(self) -> None:
        """Check every field, and let the dispatcher count as the gates do."""
        for name in ("window", "longest_input", "longest_output", "cache_blocks"):
            at_least(name, getattr(self, name), 1)
        for name in ("report_period_s", "sync_period_s", "timeout_s", "grace_s", "silence_s"):
            if not getattr(self, name) > 0:
                raise reject(name, getattr(self, name), "a number of seconds above 0")

    def dispatcher(self) -> RouterConfig:
        """Return the router's settings, with weights and costs of the policy."""
        return attrs.evolve(
            self.router,
            weights=self.policy.weights,
            default_weight=self.policy.default_weight,
            cost_extend=self.policy.cost_extend,
            cost_output=self.policy.cost_output,
            worker_blocks=self.cache_blocks,
        )

    def limits(self) -> Engine:
        """Return a replica as a bound has to know it: no more than `window` requests of any size at once."""
        return Engine(
            reservation="none",
            resume="held",
            kv_tokens=self.window * (self.longest_input + self.longest_output) + 1,
            max_running=self.window,
            longest_input=self.longest_input,
            longest_output=self.longest_output,
        )

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
