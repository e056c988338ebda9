"""Hypothesis strategies for what a scheduling policy meets: clients, prefix trees, requests, engines, histories.

    from hypothesis import given
    from fairprefix.testing import strategies as fst

    @given(fst.histories(names=("alice", "bob"), max_events=5))
    def test_mine(history): ...

They follow Hypothesis's own style: arguments describe valid values and are checked at once, whatever has a default
is keyword-only, and simpler values come first when an example shrinks. Wrong arguments raise
`hypothesis.errors.InvalidArgument`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import hypothesis.strategies as st
from hypothesis.errors import InvalidArgument

from fairprefix.core.config import RESERVATIONS, PolicyConfig
from fairprefix.core.request import Client
from fairprefix.testing import events as ev

__all__ = [
    "ABC",
    "ALL_KINDS",
    "PLAIN_KINDS",
    "TREE",
    "clients",
    "configurations",
    "engine_limits",
    "histories",
    "prefix_trees",
    "requests",
    "weights",
    "workloads",
]

ABC: tuple[Client, ...] = ("a", "b", "c")
TREE: tuple[tuple[int, ...], ...] = ((), (1,), (1, 11), (1, 11, 111), (1, 12), (2,), (2, 21))
"""Prompts' chains of blocks: a small forest, in which block 11 comes after block 1."""

ALL_KINDS: tuple[type[ev.HostEvent], ...] = (
    ev.Arrive,
    ev.Step,
    ev.Abort,
    ev.Leave,
    ev.Block,
    ev.Unblock,
    ev.Preempt,
    ev.Refund,
    ev.Evict,
    ev.Reweigh,
)
PLAIN_KINDS: tuple[type[ev.HostEvent], ...] = (ev.Arrive, ev.Step)

_SMALLEST_MEMORY = 12
"""M in units: the largest prompt (4 units, or 3 blocks and a token), 2 units to spare and 6 of output fit."""
_BESIDE_OUTPUT = 6
_COUNTS = (1, 2, 3, 5, 10, 20, 40)
_EVERY = (0, 1, 2, 3, 4, 6, 9)


def clients(*, names: Sequence[Client] = ABC, min_size: int = 1) -> st.SearchStrategy[tuple[Client, ...]]:
    """Return sets of clients, in the order of `names`, with at least `min_size` members."""
    _check_names(names)
    _check_at_least("min_size", min_size, 1)
    if min_size > len(names):
        raise InvalidArgument(f"min_size={min_size} with only {len(names)} names")
    return st.integers(min_size, len(names)).map(lambda size: tuple(names[:size]))


def prefix_trees(*, max_depth: int = 3, max_children: int = 3) -> st.SearchStrategy[tuple[tuple[int, ...], ...]]:
    """Return forests of prompt prefixes: every chain of blocks in them, the empty one first.

    A block's number is made of its parent's, so that equal blocks have equal pasts, as cumulative hashes do.
    """
    _check_at_least("max_depth", max_depth, 1)
    _check_at_least("max_children", max_children, 1)
    if max_children > 9:  # noqa: PLR2004 (one digit a block)
        raise InvalidArgument(f"max_children={max_children!r} is not valid: expected at most 9")
    path = st.lists(st.integers(1, max_children), min_size=1, max_size=max_depth)
    return st.lists(path, max_size=6).map(_forest)


def weights(
    *, names: Sequence[Client] = ABC, max_weight: int = 4
) -> st.SearchStrategy[tuple[tuple[Client, int], ...]]:
    """Return a weight for each client, as pairs."""
    _check_names(names)
    _check_at_least("max_weight", max_weight, 1)
    each = st.tuples(*(st.integers(1, max_weight) for _ in names))
    return each.map(lambda drawn: tuple(zip(names, drawn, strict=True)))


def engine_limits(
    *,
    unit: int = 1,
    reservations: Iterable[str] = RESERVATIONS,
    min_memory: int = 12,
    max_memory: int = 30,
    max_running: int = 6,
    chunked: bool = True,
) -> st.SearchStrategy[ev.EngineLimits]:
    """Return engines.

    Args:
        unit: tokens that every length is a multiple of; a request produces so many in a step.
        reservations: the ways to admit.
        min_memory: of KV memory, in units; at least 12.
        max_memory: likewise.
        max_running: requests that run at once.
        chunked: whether prompts may be computed in chunks (never where occupancy decides: see docs/theory.md).
    """
    _check_at_least("unit", unit, 1)
    _check_at_least("min_memory", min_memory, _SMALLEST_MEMORY)
    _check_at_least("max_memory", max_memory, min_memory)
    _check_at_least("max_running", max_running, 1)
    modes = tuple(reservations)
    if not modes or not set(modes) <= set(RESERVATIONS):
        raise InvalidArgument(f"reservations={modes!r}: expected some of {RESERVATIONS}")

    def build(mode: str, memory: int, running: int, chunk: int, cache_blocks: int) -> ev.EngineLimits:
        return ev.EngineLimits(
            kv_tokens=memory * unit,
            max_running=running,
            reservation=mode,
            decode=unit,
            chunk=chunk * unit if chunked and mode == "full" else 0,
            cache_blocks=cache_blocks,
            block=unit,
        )

    return st.builds(
        build,
        st.sampled_from(modes),
        st.integers(min_memory, max_memory),
        st.integers(1, max_running),
        st.sampled_from((0, 0, 1, 2)),
        st.sampled_from((64, 3, 1, 0)),
    )


def requests(
    *,
    limits: ev.EngineLimits,
    names: Sequence[Client] = ABC,
    prefixes: Sequence[tuple[int, ...]] = TREE,
    counts: Sequence[int] = _COUNTS,
    every: Sequence[int] = _EVERY,
) -> st.SearchStrategy[ev.Arrive]:
    """Return arrivals of requests that fit into an engine, one or many of a kind, at once or spaced."""
    _check_names(names)
    unit = limits.decode
    longest = limits.kv_tokens // unit - _BESIDE_OUTPUT
    depth = max((len(prefix) for prefix in prefixes), default=0)
    if longest < 1 or depth * limits.block > 3 * unit:
        raise InvalidArgument(f"{limits!r} is too small for prompts of 4 units and {depth} blocks")
    return _arrivals(unit, longest, _Choices(tuple(names), tuple(prefixes) or ((),), tuple(counts), tuple(every)))


class _Choices(NamedTuple):
    """What the values of an arrival are chosen from."""

    names: tuple[Client, ...]
    prefixes: tuple[tuple[int, ...], ...]
    counts: tuple[int, ...]
    every: tuple[int, ...]


@lru_cache(maxsize=1024)
def _arrivals(unit: int, longest: int, choices: _Choices) -> st.SearchStrategy[ev.Arrive]:
    """Return arrivals; kept, because making a strategy takes longer than drawing from it."""
    return st.builds(
        ev.Arrive,
        st.sampled_from(choices.names),
        input=st.integers(1, 4).map(lambda units: units * unit),
        output=st.integers(1, longest).map(lambda units: units * unit),
        prefix=st.sampled_from(choices.prefixes),
        count=st.sampled_from(choices.counts),
        every=st.sampled_from(choices.every),
        spare=st.sampled_from((0, 0, unit)),
    )


def workloads(
    *,
    limits: ev.EngineLimits,
    names: Sequence[Client] = ABC,
    prefixes: Sequence[tuple[int, ...]] = TREE,
    counts: Sequence[int] = _COUNTS,
    every: Sequence[int] = _EVERY,
    max_events: int = 8,
) -> st.SearchStrategy[tuple[ev.HostEvent, ...]]:
    """Return arrivals that fit into an engine, with steps of the engine between them: nothing else happens.

    The arguments are those of `requests` and `histories`.
    """
    plain = histories(
        limits=st.just(limits),
        names=names,
        kinds=PLAIN_KINDS,
        prefixes=prefixes,
        counts=counts,
        every=every,
        max_events=max_events,
    )
    return plain.map(lambda history: history.events)


def histories(
    *,
    limits: st.SearchStrategy[ev.EngineLimits] | None = None,
    names: Sequence[Client] = ABC,
    kinds: Sequence[type[ev.HostEvent]] = ALL_KINDS,
    prefixes: Sequence[tuple[int, ...]] = TREE,
    counts: Sequence[int] = _COUNTS,
    every: Sequence[int] = _EVERY,
    max_events: int = 8,
    max_weight: int = 1,
) -> st.SearchStrategy[ev.History]:
    """Return histories: an engine, and what happens to it.

    Args:
        limits: the engines.
        names: the clients.
        kinds: classes of events that may happen; `Arrive` has to be one of them.
        prefixes: the prompts' chains of blocks.
        counts: how many requests an arrival may consist of.
        every: how many steps may lie between them.
        max_events: the most events of a history.
        max_weight: the largest weight of a client; 1 leaves the weights to the configuration.
    """
    _check_names(names)
    _check_at_least("max_events", max_events, 1)
    _check_at_least("max_weight", max_weight, 1)
    unknown = [kind for kind in kinds if kind not in ALL_KINDS]
    if unknown or ev.Arrive not in kinds:
        raise InvalidArgument(f"kinds={kinds!r}: expected Arrive, and other classes of events")
    engines = engine_limits() if limits is None else limits
    drawn_weights = weights(names=names, max_weight=max_weight) if max_weight > 1 else st.just(())
    others = [_KINDS[kind](names, prefixes) for kind in kinds if kind is not ev.Arrive]
    series: dict[st.SearchStrategy[ev.Arrive], st.SearchStrategy[list[ev.HostEvent]]] = {}

    @st.composite
    def build(draw: st.DrawFn) -> ev.History:
        engine = draw(engines)
        arrivals = requests(limits=engine, names=names, prefixes=prefixes, counts=counts, every=every)
        if arrivals not in series:
            # Half of the events are arrivals: without requests the others do nothing.
            event = arrivals | st.one_of(*others) if others else arrivals
            series[arrivals] = st.lists(event, max_size=max_events - 1)
        first = draw(arrivals)
        return ev.History(engine, (first, *draw(series[arrivals])), draw(drawn_weights))

    return build()


def configurations(
    *,
    policies: Sequence[str] = ("fcfs", "lpm", "vtc", "dlpm"),
    max_quantum: int = 30,
    names: Sequence[Client] = ABC,
    max_weight: int = 4,
) -> st.SearchStrategy[PolicyConfig]:
    """Return valid configurations with small quanta, so that small histories can challenge their bounds."""
    _check_names(names)
    _check_at_least("max_quantum", max_quantum, 1)
    _check_at_least("max_weight", max_weight, 1)
    common: Mapping[str, st.SearchStrategy[object]] = {
        "policy": st.sampled_from(tuple(policies)),
        "quantum": st.integers(1, max_quantum),
        "weights": st.dictionaries(st.sampled_from(tuple(names)), st.integers(1, max_weight)),
        "bounded_wait": st.none() | st.integers(1, 4),
        "recompute": st.sampled_from(("free", "charged")),
        "vtc_charge": st.sampled_from(("input", "extend")),
        "cost_extend": st.integers(0, 3),
        "cost_output": st.integers(1, 3),
    }
    published = st.builds(PolicyConfig, overdraft=st.just(0) | st.integers(1, max_quantum), **common)
    credit = st.builds(PolicyConfig, gate=st.just("credit"), slack=st.integers(0, 2 * max_quantum), **common)
    return published | credit


_which = st.integers(0, 20)
_Kind = Callable[[Sequence[Client], Sequence[tuple[int, ...]]], st.SearchStrategy[Any]]
_KINDS: dict[type[ev.HostEvent], _Kind] = {
    ev.Step: lambda _names, _prefixes: st.builds(ev.Step, st.sampled_from((1, 2, 3, 5, 8))),
    ev.Abort: lambda _names, _prefixes: st.builds(ev.Abort, _which),
    ev.Leave: lambda names, _prefixes: st.builds(ev.Leave, st.sampled_from(tuple(names))),
    ev.Block: lambda _names, _prefixes: st.builds(ev.Block, _which),
    ev.Unblock: lambda _names, _prefixes: st.builds(ev.Unblock, _which),
    ev.Preempt: lambda _names, _prefixes: st.builds(ev.Preempt, _which, st.booleans()),
    ev.Refund: lambda _names, _prefixes: st.builds(ev.Refund),
    ev.Evict: lambda _names, prefixes: st.builds(
        ev.Evict, st.sampled_from([prefix for prefix in prefixes if prefix] or [()]), st.integers(0, 2)
    ),
    ev.Reweigh: lambda names, _prefixes: st.builds(ev.Reweigh, st.sampled_from(tuple(names)), st.integers(1, 4)),
}


def _forest(paths: list[list[int]]) -> tuple[tuple[int, ...], ...]:
    chains: set[tuple[int, ...]] = {()}
    for path in paths:
        numbers = [int("".join(map(str, path[: depth + 1]))) for depth in range(len(path))]
        chains |= {tuple(numbers[: depth + 1]) for depth in range(len(numbers))}
    return tuple(sorted(chains, key=lambda chain: (len(chain), chain)))


def _check_names(names: Sequence[Client]) -> None:
    given: Sequence[object] = names
    if isinstance(given, str) or not given or not all(isinstance(name, str) and name for name in given):
        raise InvalidArgument(f"names={names!r}: expected non-empty names of clients")


def _check_at_least(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InvalidArgument(f"{name}={value!r} is not valid: expected an integer >= {least}")
