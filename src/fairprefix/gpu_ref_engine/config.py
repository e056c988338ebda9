"""The engine's own parameters, and who wants to know what it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from attrs import frozen

from fairprefix.core.config import RESERVATIONS
from fairprefix.core.errors import FairprefixError, at_least, one_of, reject
from fairprefix.core.request import Client
from fairprefix.gpu_ref_engine.job import Job


class RequestError(FairprefixError, ValueError):
    """A request that this engine can never serve; the message says why, and what would be right."""


@frozen(kw_only=True)
class EngineConfig:
    """Parameters of the engine.

    Raises:
        ConfigError: a value is outside its range.
    """

    max_batch: int = 64
    """The most requests that run at once."""
    chunk: int = 512
    """The most tokens (prompt and output) that one step computes; at least `max_batch`."""
    reservation: str = "none"
    """`none`: a request starts by an estimate of what it will need; the youngest one is preempted when memory
    runs out, and computed again later. `full`: a request starts when its prompt and its longest output fit."""
    overlap: bool = False
    """Launch the next step before the results of this one are known: pays where a device works by itself."""
    prefix_cache: bool = True
    """False: nothing is ever reused."""
    pass_interval: int = 10
    """Steps after which waiting requests are looked at although nothing has happened."""
    lookahead: int = 8
    """Refusals for lack of room after which a scheduling pass ends."""
    profile_steps: int = 4096
    """Steps whose times are kept."""

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        for name in ("max_batch", "chunk", "pass_interval", "lookahead", "profile_steps"):
            at_least(name, getattr(self, name), 1)
        one_of("reservation", self.reservation, RESERVATIONS)
        if self.chunk < self.max_batch:
            raise reject("chunk", self.chunk, f"an integer >= max_batch = {self.max_batch}")


class Observer(Protocol):
    """Who wants to know what happens; times are nanoseconds of `time.perf_counter_ns`."""

    def queued(self, client: Client, at: int, change: int) -> None:
        """`change` (+1 or -1) requests of a client wait more than before."""
        ...

    def admitted(self, job: Job, at: int, *, extend: int, charged: int, again: bool) -> None:
        """A request starts (`again`: after a preemption) with `extend` tokens to compute."""
        ...

    def produced(self, tokens: Mapping[Client, int], at: int) -> None:
        """Output tokens are known; each will be in an `Output`."""
        ...

    def finished(self, job: Job) -> None:
        """A request is over; `job.over` says why."""
        ...


class Nobody:
    """Wants to know nothing."""

    def queued(self, client: Client, at: int, change: int) -> None:
        """Do nothing."""

    def admitted(self, job: Job, at: int, *, extend: int, charged: int, again: bool) -> None:
        """Do nothing."""

    def produced(self, tokens: Mapping[Client, int], at: int) -> None:
        """Do nothing."""

    def finished(self, job: Job) -> None:
        """Do nothing."""
