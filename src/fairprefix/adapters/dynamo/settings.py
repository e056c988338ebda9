"""What an operator decides about the component."""

from __future__ import annotations

from attrs import frozen

from fairprefix.core.bounds import Engine
from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import at_least, reject
from fairprefix.core.router_config import RouterConfig


@frozen(kw_only=True)
class Settings:
    """Everything that the component's fairness depends on.

    Raises:
        ConfigError: a value is outside its range.
    """

    policy: PolicyConfig
    """Of the gate in front of each worker; weights and costs are the dispatcher's as well."""
    window: int = 16
    """Requests in flight at a worker: about as many as it runs at once."""
    quantum: int = 20_000
    """Q^w of the dispatcher, in service units; the larger, the longer a client stays where its prefix is."""
    block_size: int = 16
    """Tokens per block of the workers' KV memory."""
    longest_input: int = 32_768
    """Tokens of the longest prompt, for the bound."""
    longest_output: int = 4096
    """Tokens of the longest answer; for the bound, and where a request names no limit."""
    report_period_s: float = 0.5
    """How often the gates' counters are added up."""
    suspend_s: float = 2.0
    """How long a worker that failed is left alone, at first; each further failure doubles it."""

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        for name in ("window", "quantum", "block_size", "longest_input", "longest_output"):
            at_least(name, getattr(self, name), 1)
        for name in ("report_period_s", "suspend_s"):
            if not getattr(self, name) > 0:
                raise reject(name, getattr(self, name), "a number of seconds above 0")

    def dispatcher(self) -> RouterConfig:
        """Return the dispatcher's settings. Output is charged as is usual for a client, settled at the end."""
        policy = self.policy
        return RouterConfig(
            quantum=self.quantum,
            output_charge="average",
            block_size=self.block_size,
            weights=policy.weights,
            default_weight=policy.default_weight,
            cost_extend=policy.cost_extend,
            cost_output=policy.cost_output,
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
