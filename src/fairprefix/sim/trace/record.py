"""What a trace is: requests in order of arrival, as loaded, composed or generated."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

from attrs import Factory, evolve, field, frozen

from fairprefix.core.errors import FairprefixError, at_least, reject

NS_PER_SECOND = 1_000_000_000
NS_PER_MS = 1_000_000

ANONYMOUS = "anonymous"
"""The client of every request of a trace that does not say who asked."""

DEFAULT_BLOCK_SIZE = 16
"""Block size of a trace without prefix information, where it has no meaning."""


class TraceError(FairprefixError, ValueError):
    """A trace cannot be read; the message names file, line, field, value and what is expected."""


@frozen
class TraceRequest:
    """One request of a trace."""

    arrival_ns: int
    """When it arrives, nanoseconds since the trace began."""
    client: str
    input_tokens: int
    """Length of the prompt in tokens, at least 1."""
    output_tokens: int
    """Tokens that it generates before it stops, at least 1."""
    max_output_tokens: int = field(default=Factory(lambda self: self.output_tokens, takes_self=True))
    """The most that it was allowed to generate, at least `output_tokens`."""
    blocks: tuple[int, ...] = ()
    """Cumulative hashes of the prompt's FULL blocks, first block first; empty where the trace knows none."""
    output_blocks: tuple[int, ...] = ()
    """Cumulative hashes of the further full blocks that prompt and output make up together: what a later prompt
    that goes on from this answer finds cached. Empty where nothing goes on from it."""

    def __attrs_post_init__(self) -> None:
        """Refuse figures that no engine can replay."""
        at_least("arrival_ns", self.arrival_ns, 0)
        at_least("input_tokens", self.input_tokens, 1)
        at_least("output_tokens", self.output_tokens, 1)
        at_least("max_output_tokens", self.max_output_tokens, self.output_tokens)


def _by_arrival(requests: Iterable[TraceRequest]) -> tuple[TraceRequest, ...]:
    return tuple(sorted(requests, key=lambda request: request.arrival_ns))


@frozen
class Trace:
    """Requests in order of arrival; those that arrive together keep the order in which they were given."""

    name: str
    requests: tuple[TraceRequest, ...] = field(converter=_by_arrival, repr=False)
    block_size: int
    """Tokens per block of every request's `blocks`."""
    has_clients: bool
    """Whether the requests' clients mean anything."""
    notes: tuple[str, ...] = ()
    """What was composed, assumed or changed: belongs beside every result."""

    def noted(self, note: str, requests: Iterable[TraceRequest] | None = None) -> Trace:
        """Return the trace with one more note and, unless None, other requests."""
        return evolve(self, notes=(*self.notes, note), requests=self.requests if requests is None else requests)


def limit(trace: Trace, n: int) -> Trace:
    """Return the first `n` requests of a trace, by arrival.

    Raises:
        ConfigError: `n` is not an integer of at least 1.
    """
    if at_least("limit", n, 1) >= len(trace.requests):
        return trace
    return trace.noted(f"first {n} of {len(trace.requests)} requests", trace.requests[:n])


def scale_time(trace: Trace, factor: Fraction | float) -> Trace:
    """Return the trace with every arrival time multiplied by `factor`: below 1 the requests arrive faster.

    Raises:
        ConfigError: `factor` is not a finite number above 0.
    """
    if isinstance(factor, bool) or not 0 < factor < math.inf:
        raise reject("time scale", factor, "a finite number > 0")
    exact = Fraction(str(factor))  # what the user wrote: 0.1 means one tenth
    if exact == 1:
        return trace
    scaled = [evolve(request, arrival_ns=round(request.arrival_ns * exact)) for request in trace.requests]
    return trace.noted(f"arrival times multiplied by {factor}", scaled)
