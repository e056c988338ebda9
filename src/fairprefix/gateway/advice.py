"""Whether the quantum suits the requests that come: told in the log, once."""

from __future__ import annotations

from fairprefix.core.config import PolicyConfig
from fairprefix.gateway.tally import Tally

_ENOUGH = 200
"""Requests before anything is said."""
_TOO_MUCH = 8
"""Usual requests in a quantum."""


def quantum_advice(config: PolicyConfig, tally: Tally) -> str | None:
    """Return what to say about the quantum; None while it suits, or too little is known."""
    usual = tally.usual_cost
    if config.policy != "dlpm" or tally.answered < _ENOUGH or not usual or config.quantum <= _TOO_MUCH * usual:
        return None
    times = config.quantum // usual
    return (
        f"quantum = {config.quantum} is what {times} usual requests cost ({usual} service units each): up to "
        f"twice as many of one client go before the first one of another. Set it near {usual}, unless the "
        "workers' caches are too small for all clients' prefixes"
    )
