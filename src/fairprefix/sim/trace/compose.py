"""Give clients to a trace that has none."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from hashlib import sha256
from heapq import heapreplace

from attrs import evolve

from fairprefix.core.errors import ConfigError, at_least, reject
from fairprefix.sim.trace.record import Trace, TraceRequest

SESSION_BLOCKS = 2
"""Requests that agree in so many first blocks form a session; one block alone is often a common preamble."""

Session = tuple[int, ...]


def compose_clients(trace: Trace, clients: int, seed: int, heavy_share: Fraction | None = Fraction(1, 2)) -> Trace:
    """Assign the sessions of a trace without identity to clients c0, c1, ...

    Client c0 sends about `heavy_share` of all requests, the others share the rest evenly. Sessions stay whole, so
    that the prefixes of a conversation stay with one client. The seed alone decides which session goes to whom.

    Args:
        trace: a trace without clients.
        clients: how many there shall be, at least 1.
        seed: another seed gives another assignment.
        heavy_share: c0's share of the requests, between 0 and 1; None gives every client the same share.

    Raises:
        ConfigError: an argument is out of range, or the trace has clients already.
    """
    at_least("clients", clients, 1)
    at_least("seed", seed, 0)
    if trace.has_clients:
        raise ConfigError(f"trace {trace.name!r} has clients already: they cannot be composed")
    shares = _shares(clients, heavy_share)
    sessions = [_session(place, request) for place, request in enumerate(trace.requests)]
    client_of = _assign(sessions, shares, seed)
    requests = [
        evolve(request, client=client_of[session])
        for request, session in zip(trace.requests, sessions, strict=True)
    ]
    return evolve(trace.noted(_note(requests, shares, len(client_of), seed), requests), has_clients=True)


def _shares(clients: int, heavy_share: Fraction | None) -> dict[str, Fraction]:
    names = [f"c{number}" for number in range(clients)]
    if heavy_share is None or clients == 1:
        return dict.fromkeys(names, Fraction(1, clients))
    heavy = Fraction(heavy_share)
    if not 0 < heavy < 1:
        raise reject("heavy_share", heavy_share, "a fraction between 0 and 1, both excluded")
    return {name: heavy if name == "c0" else (1 - heavy) / (clients - 1) for name in names}


def _session(place: int, request: TraceRequest) -> Session:
    """Return what identifies a request's session; with too few blocks it is a session of its own."""
    first = request.blocks[:SESSION_BLOCKS]
    return first if len(first) == SESSION_BLOCKS else (place,)


def _assign(sessions: list[Session], shares: Mapping[str, Fraction], seed: int) -> dict[Session, str]:
    """Give each session, in an order drawn by the seed, to the client that is furthest below its share."""
    sizes: dict[Session, int] = {}
    for session in sessions:
        sizes[session] = sizes.get(session, 0) + 1
    furthest_below = [(Fraction(0), name) for name in sorted(shares)]
    client_of: dict[Session, str] = {}
    for session in sorted(sizes, key=lambda session: _drawn(seed, session)):
        received, client = furthest_below[0]
        client_of[session] = client
        heapreplace(furthest_below, (received + sizes[session] / shares[client], client))
    return client_of


def _drawn(seed: int, session: Session) -> bytes:
    return sha256(f"{seed}/{session}".encode()).digest()


def _note(requests: list[TraceRequest], shares: Mapping[str, Fraction], sessions: int, seed: int) -> str:
    heavy = sum(request.client == "c0" for request in requests)
    return (
        f"clients are composed, not recorded: {sessions} sessions (requests with the same first {SESSION_BLOCKS} "
        f"blocks) assigned to {len(shares)} clients by seed {seed}; c0 sends {heavy} of {len(requests)} requests"
    )
