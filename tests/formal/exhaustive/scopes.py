"""The configurations that are searched completely: small enough to end, large enough to go wrong.

Names of clients: f and g are compared, z is somebody else. Unless a scope says otherwise a token costs 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairprefix.core.bounds import Engine
from fairprefix.core.config import PolicyConfig
from tests.formal.exhaustive.world import Kind, Scope

BIG, SMALL = Kind(1, 3), Kind(1, 1)
TWO = Kind(1, 2)


def _full(memory: int, longest_output: int, *, longest_input: int = 1, running: int = 2) -> Engine:
    return Engine(
        reservation="full",
        kv_tokens=memory,
        max_running=running,
        longest_input=longest_input,
        longest_output=longest_output,
    )


def _none(memory: int, longest_output: int, *, resume: str = "gated") -> Engine:
    return Engine(
        reservation="none",
        kv_tokens=memory,
        max_running=2,
        longest_input=1,
        longest_output=longest_output,
        resume=resume,
    )


def _scope(
    name: str,
    engine: Engine,
    kinds: Mapping[str, tuple[Kind, ...]],
    *extras: str,
    waiting: int = 1,
    live: int = 3,
    **settings: Any,  # noqa: ANN401 (any field of the configuration)
) -> Scope:
    config = PolicyConfig(**{"cost_output": 1, **settings})
    return Scope(
        name=name,
        config=config,
        engine=engine,
        kinds=kinds,
        extras=frozenset(extras),
        waiting=waiting,
        live=live,
    )


def _alike(*kinds: Kind, others: Mapping[str, tuple[Kind, ...]] | None = None) -> Mapping[str, tuple[Kind, ...]]:
    return {"f": kinds, "g": kinds, **(others or {})}


HOT = {"f": (Kind(2, 2, (1,)), SMALL), "g": (Kind(2, 2, (2,)),)}

DLPM = (
    _scope("full", _full(4, 3), _alike(BIG, SMALL), "end", "abort", quantum=3),
    _scope("full, w=1,2", _full(5, 4), _alike(Kind(1, 4), SMALL), "end", quantum=4, cost_output=2),
    _scope("full, blocked", _full(3, 2), _alike(TWO), "end", "block", quantum=2, waiting=2, live=2),
    _scope("full, cached and evicted", _full(4, 2, longest_input=2), HOT, "end", "evict", quantum=2),
    _scope("full, weights 1:3", _full(4, 3), _alike(BIG, SMALL), "end", quantum=1, weights={"f": 1, "g": 3}),
    _scope("full, overdraft 2", _full(4, 3), _alike(BIG, SMALL), "end", quantum=2, overdraft=2),
    _scope(
        *("full, bounded wait", _full(4, 2, longest_input=2), {"f": (Kind(2, 2), SMALL), "g": (TWO,)}, "end"),
        quantum=1,
        waiting=2,
        live=3,
        bounded_wait=2,
    ),
    _scope("full, three clients", _full(3, 2), _alike(TWO, others={"z": (SMALL,)}), "end", quantum=2),
    _scope("full, refunded", _full(6, 1, longest_input=2), _alike(Kind(2, 1)), "end", "refund", quantum=3),
    _scope("none, O=2", _none(4, 2), _alike(TWO), "end", quantum=1, live=2),
    _scope("none, O=3", _none(4, 3), _alike(BIG), quantum=2, live=2),
    _scope("none, held", _none(3, 2, resume="held"), _alike(TWO), "end", quantum=1, live=2),
    _scope("none, charged", _none(3, 2), {"f": (TWO,), "g": (SMALL,)}, quantum=1, live=2, recompute="charged"),
)

CREDIT = (
    _scope("credit, full", _full(4, 3), _alike(BIG, SMALL), "end", "abort", quantum=2, gate="credit", slack=1),
    _scope("credit, none", _none(3, 2), _alike(TWO), "end", quantum=2, live=2, gate="credit", slack=0),
    _scope(
        *("credit, held, S=1", _none(3, 2, resume="held"), _alike(TWO), "end"),
        quantum=1,
        live=2,
        gate="credit",
        slack=1,
    ),
)

VTC = (
    _scope("VTC, full", _full(4, 3), _alike(BIG, SMALL), "end", waiting=2, policy="vtc"),
    _scope(
        *("VTC, blocked, w=1,2", _full(3, 2), _alike(TWO), "abort", "block"),
        waiting=2,
        cost_output=2,
        policy="vtc",
    ),
    _scope(
        *("VTC, dear prompts", _full(4, 1, longest_input=2), _alike(Kind(2, 1), SMALL), "end"),
        waiting=2,
        cost_extend=3,
        policy="vtc",
    ),
    _scope(
        *("VTC, three clients", _full(3, 2), _alike(TWO, others={"z": (SMALL,)})),
        waiting=2,
        live=2,
        policy="vtc",
    ),
    _scope("VTC, none", _none(3, 2), _alike(TWO), waiting=2, live=2, policy="vtc"),
    _scope("VTC, weights 1:2", _full(3, 2), _alike(TWO), "end", waiting=2, weights={"f": 1, "g": 2}, policy="vtc"),
)

EVEN = _scope("full, all even", _full(3, 2), _alike(TWO, SMALL), "end", quantum=4, cost_extend=2, cost_output=2)
FORGIVEN = _scope("full, debt forgiven", _full(3, 2), _alike(TWO), "end", "abort", quantum=1)
SHORT = _scope("full, short outputs", _full(4, 1), _alike(SMALL), "end", quantum=2)
