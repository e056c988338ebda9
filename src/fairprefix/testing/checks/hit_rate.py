"""Where prompts share long prefixes, at least as much is found in the cache as under VTC."""

from __future__ import annotations

from typing import Any

import attrs

from fairprefix.core.vtc import VTC
from fairprefix.testing import events as ev
from fairprefix.testing.checks.registry import Check
from fairprefix.testing.lab import Lab
from fairprefix.testing.trace import Trace

_DEPTH = 6
"""Blocks of each shared prefix."""


def check(lab: Lab, _data: Any) -> None:  # noqa: ANN401 (nothing is drawn)
    """Compare the cached tokens over a fixed set of histories in which clients take turns between documents."""
    histories = [_documents(lab, clients, documents) for clients in (1, 2, 3) for documents in (2, 3, 4)]
    vtc = Lab(attrs.evolve(lab.subject, make_policy=VTC), lab.deadline, lab.call_limit_s)
    own = sum(cached_tokens(lab.run(history)) for history in histories)
    other = sum(cached_tokens(vtc.run(history)) for history in histories)
    prompts = sum(_prompt_tokens(history) for history in histories)
    assert own >= other, (
        f"of {prompts} prompt tokens over {len(histories)} histories {own} were found in the cache, "
        f"and {other} under VTC"
    )


def cached_tokens(trace: Trace) -> int:
    """Return the prompt tokens that were found in the cache."""
    return sum(taken.matched for taken in trace.taken())


def _prompt_tokens(history: ev.History) -> int:
    return sum(arrival.count * arrival.tokens(history.limits.block) for arrival in history.arrivals())


def _documents(lab: Lab, clients: int, documents: int) -> ev.History:
    """Return a history in which every client asks about every document in turn, and the cache holds one."""
    unit = lab.subject.unit()
    limits = ev.EngineLimits(
        kv_tokens=12 * unit, max_running=1, decode=unit, block=unit, cache_blocks=_DEPTH, lookahead=4
    )
    prompt = (_DEPTH + 1) * unit
    arrivals = [
        ev.Arrive(f"c{client}", prompt, unit, tuple(10 * document + depth for depth in range(1, _DEPTH + 1)))
        for _ in range(4)
        for client in range(clients)
        for document in range(1, documents + 1)
    ]
    return ev.History(limits, tuple(arrivals))


CHECK = Check(
    name="hit_rate",
    claim="on histories with long shared prefixes, no less is found in the cache than under VTC",
    run=check,
    data=None,
    enabled_by="locality_aware",
    applies=lambda claims, _config: claims.locality_aware,
)
