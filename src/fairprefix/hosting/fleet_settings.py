"""What a fleet's fairness depends on, whatever runs it: settings that every adapter to a fleet has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import attrs
from attrs import frozen

from fairprefix.core.bounds import Engine
from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import at_least, reject
from fairprefix.core.router_config import RouterConfig
from fairprefix.hosting.settings import host_config


def _policy_config(given: PolicyConfig | Mapping[str, Any] | str | None) -> PolicyConfig:
    return given if isinstance(given, PolicyConfig) else host_config(given)


@frozen(kw_only=True)
class FleetSettings:
    """A dispatcher, and a gate with a window in front of each worker.

    Raises:
        ConfigError: a value is outside its range; the message names it.
    """

    policy: PolicyConfig = attrs.field(factory=host_config, converter=_policy_config)
    """Of every worker's gate. Weights and costs are the dispatcher's as well."""
    window: int = 16
    """Requests in flight at a worker, about as many as it runs at once; all others wait in its gate."""
    longest_input: int = 32_768
    """Tokens of the longest prompt, for the bound."""
    longest_output: int = 4096
    """Tokens of the longest answer, for the bound; and where a request names no limit."""
    report_period_s: float = 0.5
    """How often gates report: what they did since is what is not known yet."""

    counts: ClassVar[tuple[str, ...]] = ("window", "longest_input", "longest_output")
    """Fields that are whole numbers from 1."""
    seconds: ClassVar[tuple[str, ...]] = ("report_period_s",)
    """Fields that are times."""

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        for name in self.counts:
            at_least(name, getattr(self, name), 1)
        for name in self.seconds:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise reject(name, value, "a number of seconds above 0")

    def counted_alike(self, router: RouterConfig) -> RouterConfig:
        """Return a dispatcher's settings with weights and costs of the policy."""
        return attrs.evolve(
            router,
            weights=self.policy.weights,
            default_weight=self.policy.default_weight,
            cost_extend=self.policy.cost_extend,
            cost_output=self.policy.cost_output,
        )

    def limits(self) -> Engine:
        """Return a worker as a bound has to know it: no more than `window` requests of any size at once."""
        return Engine(
            reservation="none",
            resume="held",
            kv_tokens=self.window * (self.longest_input + self.longest_output) + 1,
            max_running=self.window,
            longest_input=self.longest_input,
            longest_output=self.longest_output,
        )
