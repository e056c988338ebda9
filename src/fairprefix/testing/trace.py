"""What happened when a history was executed: facts in order, as the engine saw them."""

from __future__ import annotations

from typing import Any, NamedTuple

from attrs import define, field, frozen

from fairprefix.core.cost import CostWeights
from fairprefix.core.request import Client


class Arrived(NamedTuple):
    """A request was queued."""

    at: int
    id: str
    client: Client
    prompt: int
    longest: int
    prefix: tuple[int, ...]


class Passed(NamedTuple):
    """A scheduling pass began."""

    at: int


class Offered(NamedTuple):
    """The policy was asked; None: it offered nobody."""

    at: int
    id: str | None


class Taken(NamedTuple):
    """A request was admitted, from the queue or (`held`) resumed by the engine."""

    at: int
    id: str
    client: Client
    prompt: int
    extend: int
    reserve: int
    charged: int
    """Service units, as the policy's receipt says."""
    matched: int
    """Tokens of its prompt that were cached."""
    first: bool
    """It had not been admitted before."""
    held: bool


class Refunded(NamedTuple):
    """The admission just made was taken back."""

    at: int
    id: str


class Deferred(NamedTuple):
    """An offered request had no room."""

    at: int
    id: str


class Blocked(NamedTuple):
    """A waiting request was blocked."""

    at: int
    id: str


class Unblocked(NamedTuple):
    """A blocked request was queued again."""

    at: int
    id: str


class Produced(NamedTuple):
    """A step: (request, tokens) of everything that produced."""

    at: int
    tokens: tuple[tuple[str, int], ...]


class Preempted(NamedTuple):
    """A running request lost its memory."""

    at: int
    id: str
    output: int
    hold: bool


class Finished(NamedTuple):
    """A request was settled; `whole` unless it was aborted."""

    at: int
    id: str
    output: int
    whole: bool


class Reweighed(NamedTuple):
    """A client's weight changed."""

    at: int
    client: Client
    weight: int


class Cached(NamedTuple):
    """A chain of blocks is cached from here on."""

    at: int
    blocks: tuple[int, ...]


class Evicted(NamedTuple):
    """The last block of this chain, and it alone, is no longer cached."""

    at: int
    blocks: tuple[int, ...]


class Idled(NamedTuple):
    """A pass over an empty engine admitted nobody although requests were queued."""

    at: int
    waiting: tuple[str, ...]
    blocked: tuple[str, ...]


class Backlogged(NamedTuple):
    """A client has a request queued from here on."""

    at: int
    client: Client


class Idle(NamedTuple):
    """A client has no request queued from here on."""

    at: int
    client: Client


Fact = (
    Arrived
    | Passed
    | Offered
    | Taken
    | Refunded
    | Deferred
    | Blocked
    | Unblocked
    | Produced
    | Preempted
    | Finished
    | Reweighed
    | Cached
    | Evicted
    | Idled
    | Backlogged
    | Idle
)


@frozen
class Broken:
    """Why an execution ended early."""

    kind: str
    """`raised`: the policy raised at a legal call. `offer`: it offered what is not queued. `stall`: requests wait
    for ever. `steps`: the history takes more steps than all its tokens could need."""
    text: str
    cause: BaseException | None = None


@define
class Trace:
    """Everything that happened, in order."""

    facts: list[Fact] = field(factory=list)
    clients: dict[str, Client] = field(factory=dict)
    """Whose request it is, by its id."""
    broken: Broken | None = None
    """Why it ended early; None when everything finished."""
    log: list[dict[str, Any]] = field(factory=list)
    """The calls as a replayable history (`fairprefix.core.history`), when it was recorded."""
    end: int = 0
    """Step at which it ended."""

    def decisions(self) -> list[Fact]:
        """Return the facts that depend on the policy: offers, admissions and what was charged."""
        return [fact for fact in self.facts if isinstance(fact, (Offered, Taken))]

    def taken(self) -> list[Taken]:
        """Return the admissions that were not taken back."""
        kept: list[Taken] = []
        for fact in self.facts:
            if isinstance(fact, Taken):
                kept.append(fact)
            elif isinstance(fact, Refunded):
                kept.pop()
        return kept


class Service(NamedTuple):
    """Service units of one fact, as the bounds count them."""

    at: int
    client: Client
    units: int


def services(trace: Trace, fact: Fact, cost: CostWeights, *, whole_prompts: bool, again: bool) -> list[Service]:
    """Return what a fact serves, and to whom.

    Args:
        trace: where the fact comes from.
        fact: an admission, a refund or a step; others serve nothing.
        cost: what a token costs.
        whole_prompts: count the prompt, cached or not, instead of the tokens computed.
        again: count what is computed again after a preemption.
    """
    if isinstance(fact, Taken):
        tokens = fact.prompt if whole_prompts else fact.extend
        return [Service(fact.at, fact.client, cost.service(tokens, 0))] if fact.first or again else []
    if isinstance(fact, Produced):
        return [Service(fact.at, trace.clients[id], cost.service(0, tokens)) for id, tokens in fact.tokens]
    return []
