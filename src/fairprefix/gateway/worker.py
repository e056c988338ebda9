"""A worker as the gateway sees it: its queue, whether it is alive, and what it has done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic

import attrs
from attrs import define

from fairprefix.core.config import PolicyConfig
from fairprefix.core.policy import Policy
from fairprefix.core.prefixes import AskedPrefixes, Prefixes
from fairprefix.core.request import Client, Request
from fairprefix.gateway.cacheview import CacheView
from fairprefix.gateway.config import WorkerConfig
from fairprefix.gateway.queue import WorkerQueue
from fairprefix.gateway.turn import Turn
from fairprefix.hosting import Figures, HostedPolicy

MakePolicy = Callable[[WorkerConfig, PolicyConfig, Prefixes], Policy]
"""Makes the policy of a worker's queue: where a saved one, or one that is shared, comes in."""


@define(eq=False)
class WorkerCounts:
    """What a worker has done."""

    requests: int = 0
    failures: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0

    @property
    def hit_rate(self) -> float:
        """Cached tokens as a share of prompt tokens."""
        return self.cached_tokens / self.input_tokens if self.input_tokens else 0.0


class Uncounted(Figures):
    """Counts nothing: a gateway counts over all its queues (`fairprefix.gateway.tally`)."""

    def arrived(self, client: Client) -> None:
        """Do nothing."""

    def queued(self, client: Client, change: int) -> None:
        """Do nothing."""

    def admitted(self, client: Client, **figures: int) -> None:
        """Do nothing."""

    def produced(self, tokens: Mapping[Client, int]) -> None:
        """Do nothing."""

    def picked(self, nanoseconds: int) -> None:
        """Do nothing."""


class Worker:
    """See above.

    Args:
        config: the operator's.
        policy: that of the gateway's queues.
        make: makes this queue's policy.
        view: what it has cached.
        let_in: told of each request that gets inside.
        window: to begin with, where none is configured.
        on_error: told when the policy fails.
    """

    def __init__(
        self,
        config: WorkerConfig,
        policy: PolicyConfig,
        make: MakePolicy,
        view: CacheView,
        *,
        let_in: Callable[[Worker, Turn], None],
        window: int,
        on_error: Callable[[Exception], None],
    ) -> None:
        self.config = config
        self.name: str = config.name
        self.view = view
        self.counts: WorkerCounts = WorkerCounts()
        self.alive = True
        """Whether it is sent anything; a worker is taken to be alive until it proves otherwise."""
        self.why = ""
        """Why it is not."""
        self.failures_in_a_row = 0
        self.rests_until: float = 0.0
        """Before this instant of the monotonic clock nothing brings it back."""
        self.learns_window: bool = config.window is None and not config.fairprefix
        if config.fairprefix:
            policy = attrs.evolve(policy, policy="fcfs")
        asked = AskedPrefixes(self.cached)
        hosted = HostedPolicy(
            policy,
            asked,
            make=lambda config_, view_: make(config, config_, view_ or asked),
            figures=Uncounted(policy),
            on_error=on_error,
        )
        self.queue: WorkerQueue = WorkerQueue(
            hosted,
            None if config.fairprefix else config.window or window,
            self.cached,
            lambda turn: let_in(self, turn),
            prefixes=asked,
        )

    def cached(self, request: Request) -> int:
        """Return how much of a prompt is cached here."""
        return self.view.cached(request)

    @property
    def resting(self) -> bool:
        """Whether it is too early to use it again."""
        return monotonic() < self.rests_until
