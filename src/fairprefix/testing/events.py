"""What can happen to a policy in a test: a handful of host events, an engine's limits, and a history of both.

All of them are small frozen values whose `repr` is the Python that makes them, so that a failing history can be
pasted into a test of its own. Lengths are tokens, times are engine steps. Requests are meant by position: `which`
counts the candidates at that moment, modulo their number, so that an event never becomes impossible when another
one is removed from the history; with no candidate it does nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field, frozen

from fairprefix.core.config import RESERVATIONS
from fairprefix.core.errors import at_least, one_of, reject
from fairprefix.core.request import Client


@frozen
class Arrive:
    """`count` requests of one kind arrive, one every `every` steps (0: all at once)."""

    client: Client
    input: int = 1
    """Prompt tokens; at least one beyond the shared prefix (see `tokens`)."""
    output: int = 1
    """Tokens that it will produce, unless something ends it before."""
    prefix: tuple[int, ...] = ()
    """The chain of blocks that its prompt begins with."""
    count: int = 1
    every: int = 0
    spare: int = 0
    """By how much the longest output that it declares exceeds the true one."""

    def tokens(self, block: int) -> int:
        """Return the length of the prompt: at least one token is its own."""
        return max(self.input, len(self.prefix) * block + 1)

    def longest(self) -> int:
        """Return the longest output that it declares."""
        return self.output + self.spare

    def __str__(self) -> str:
        times = f"{self.count} requests" if self.count > 1 else "a request"
        spaced = f", one every {self.every} steps" if self.count > 1 and self.every else ""
        behind = f", prefix {'/'.join(map(str, self.prefix))}" if self.prefix else ""
        return f"{self.client} sends {times} ({self.input} in, {self.output} out{behind}){spaced}"


@frozen
class Step:
    """The engine runs some steps: a scheduling pass each, then everything that runs produces."""

    steps: int = 1

    def __str__(self) -> str:
        return f"the engine runs {self.steps} step{'s' if self.steps > 1 else ''}"


@frozen
class Abort:
    """A request that is not finished is aborted, wherever it stands."""

    which: int = 0

    def __str__(self) -> str:
        return f"request number {self.which} of those alive is aborted"


@frozen
class Leave:
    """A client goes away: all its requests are aborted."""

    client: Client

    def __str__(self) -> str:
        return f"{self.client} goes away, its requests are aborted"


@frozen
class Block:
    """A waiting request is blocked for a reason other than room."""

    which: int = 0

    def __str__(self) -> str:
        return f"request number {self.which} of those waiting is blocked"


@frozen
class Unblock:
    """What blocked a request is gone."""

    which: int = 0

    def __str__(self) -> str:
        return f"request number {self.which} of those blocked is unblocked"


@frozen
class Preempt:
    """A running request loses its memory; `hold`: the engine resumes it by itself."""

    which: int = 0
    hold: bool = False

    def __str__(self) -> str:
        after = "held by the engine" if self.hold else "queued again"
        return f"running request number {self.which} is preempted and {after}"


@frozen
class Refund:
    """The next admission turns out not to have happened."""

    def __str__(self) -> str:
        return "the next admission fails and is taken back"


@frozen
class Evict:
    """All cached blocks of a chain from place `start` on, and what continues them, are evicted."""

    prefix: tuple[int, ...]
    start: int = 0

    def __str__(self) -> str:
        return f"the cache loses {'/'.join(map(str, self.prefix[self.start :]))}"


@frozen
class Reweigh:
    """A client's weight changes."""

    client: Client
    weight: int = 1

    def __str__(self) -> str:
        return f"{self.client} gets weight {self.weight}"


HostEvent = Arrive | Step | Abort | Leave | Block | Unblock | Preempt | Refund | Evict | Reweigh


@frozen(kw_only=True)
class EngineLimits:
    """What the engine of a test can do.

    Raises:
        ConfigError: a value is outside its range.
    """

    kv_tokens: int = 16
    """M: prompt and output of everything that runs, cached prefixes included."""
    max_running: int = 4
    """N: running and held requests."""
    reservation: str = "full"
    """`full`: prompt and longest output are reserved. `none`: the youngest is preempted when memory runs out."""
    decode: int = 1
    """Output tokens that a running request produces in a step."""
    chunk: int = 0
    """Prompt tokens that a step computes; 0: as many as there are."""
    cache_blocks: int = 64
    """Blocks of shared prefixes that stay cached."""
    block: int = 1
    """Tokens a block."""
    lookahead: int = 4
    """Refusals for lack of room after which a pass ends."""

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        for name in ("kv_tokens", "max_running", "decode", "block", "lookahead"):
            at_least(name, getattr(self, name), 1)
        for name in ("chunk", "cache_blocks"):
            at_least(name, getattr(self, name), 0)
        one_of("reservation", self.reservation, RESERVATIONS)

    def needs(self, arrival: Arrive) -> int:
        """Return the memory that a request needs to run alone to its end."""
        return arrival.tokens(self.block) + arrival.longest()


def _in_order(events: Iterable[HostEvent]) -> tuple[HostEvent, ...]:
    return tuple(events)


@frozen
class History:
    """An engine, and what happens to it; afterwards it runs until nothing is left to do.

    Raises:
        ConfigError: a request does not fit into the engine's memory on its own.
    """

    limits: EngineLimits
    events: tuple[HostEvent, ...] = field(converter=_in_order)
    weights: tuple[tuple[Client, int], ...] = ()
    """Weights of the clients, where they differ from the configuration."""

    def __attrs_post_init__(self) -> None:
        """Refuse what no engine can serve."""
        for arrival in self.arrivals():
            if self.limits.needs(arrival) > self.limits.kv_tokens:
                raise reject("arrival", arrival, f"at most {self.limits.kv_tokens} tokens in all")

    def arrivals(self) -> list[Arrive]:
        """Return the arrivals."""
        return [event for event in self.events if isinstance(event, Arrive)]

    def clients(self) -> list[Client]:
        """Return the clients that send anything, in the order of appearance."""
        return list(dict.fromkeys(arrival.client for arrival in self.arrivals()))

    def has(self, kind: type[HostEvent]) -> bool:
        """Return whether an event of that kind is part of it."""
        return any(isinstance(event, kind) for event in self.events)
