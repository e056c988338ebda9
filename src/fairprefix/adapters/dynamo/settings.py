"""What an operator decides about the component."""

from __future__ import annotations

from typing import ClassVar

import attrs
from attrs import frozen

from fairprefix.core.bounds import Engine
from fairprefix.core.router_config import RouterConfig
from fairprefix.hosting.fleet_settings import FleetSettings


@frozen(kw_only=True)
class Settings(FleetSettings):
    """Everything that the component's fairness depends on.

    Raises:
        ConfigError: a value is outside its range.
    """

    quantum: int = 20_000
    """Q^w of the dispatcher, in service units; the larger, the longer a client stays where its prefix is."""
    block_size: int = 16
    """Tokens per block of the workers' KV memory."""
    suspend_s: float = 2.0
    """How long a worker that failed is left alone, at first; each further failure doubles it."""

    counts: ClassVar[tuple[str, ...]] = (*FleetSettings.counts, "quantum", "block_size")
    seconds: ClassVar[tuple[str, ...]] = (*FleetSettings.seconds, "suspend_s")

    def limits(self) -> Engine:
        """Return a worker as a bound has to know it: whoever has one token left may be beside a full window."""
        limits = super().limits()
        return attrs.evolve(limits, kv_tokens=2 * limits.kv_tokens, max_running=2 * self.window)

    def dispatcher(self) -> RouterConfig:
        """Return the dispatcher's settings. Output is charged as is usual for a client, settled at the end."""
        mine = RouterConfig(quantum=self.quantum, output_charge="average", block_size=self.block_size)
        return self.counted_alike(mine)
