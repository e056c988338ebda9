"""What the driver is made of: a slot for the policy, the cache of shared prefixes, and a request on its way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import attrs
from attrs import define, field

from fairprefix.core.cost import Receipt
from fairprefix.core.policy import Policy
from fairprefix.core.prefixes import PrefixIndex
from fairprefix.core.request import Request
from fairprefix.testing import events as ev

_GIVE_RECEIPTS = ("take", "amend")
WAITING, BLOCKED, RUNNING, HELD = "waiting", "blocked", "running", "held"


class PolicyRaisedError(Exception):
    """The policy raised, which the cause tells, or returned what it may not."""


class Slot:
    """Stands in for the policy, so that it can be exchanged; wraps whatever it raises."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.asked: Policy = cast("Policy", Asked(self))
        """The policy for questions of a check's own."""
        self.calling = ""
        """The method that was called last: where it hangs, if it does."""
        self.mutated: str | None = None
        """A method that changed a mapping it was given."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.policy, name)

        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (whatever the method takes and returns)
            self.calling = name
            given = [dict(arg) for arg in args if isinstance(arg, dict)]
            try:
                answer = method(*args, **kwargs)
            except (Exception, SystemExit) as error:
                raise PolicyRaisedError(f"{name}() raised {type(error).__name__}: {error}") from error
            finally:
                if given and given != [arg for arg in args if isinstance(arg, dict)]:
                    self.mutated = name
            if name in _GIVE_RECEIPTS and not isinstance(answer, Receipt):
                raise PolicyRaisedError(f"{name}() returned {answer!r}, expected a fairprefix.Receipt")
            return answer

        return call


class Asked:
    """The policy of a slot, which says by `calling` where it hangs; what it raises is passed on."""

    def __init__(self, slot: Slot) -> None:
        self._slot = slot

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._slot.policy, name)

        def call(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (whatever the method takes and returns)
            self._slot.calling = name
            try:
                answer = method(*args, **kwargs)
            except SystemExit as error:
                raise AssertionError(f"{name}() raised SystemExit: {error}") from error
            if name == "plan" and not isinstance(answer, Sequence):
                raise AssertionError(f"plan() returned a {type(answer).__name__}, expected a sequence of requests")
            return answer

        return call


@define(eq=False)
class Job:
    """One request in the engine."""

    id: str
    spec: ev.Arrive
    request: Request
    given: tuple[Any, ...] = field(init=False)
    """What the request said before the policy saw it."""
    stage: str = WAITING
    refused: bool = False
    """It had no room in this pass."""
    produced: int = 0
    to_prefill: int = 0
    admissions: int = 0
    receipt: Receipt | None = None
    held_at: int = -1
    """Step in which it was preempted and held; it is resumed in a later one at the earliest."""

    def __attrs_post_init__(self) -> None:
        """Remember what is handed to the policy."""
        self.given = attrs.astuple(self.request, recurse=False)

    def changed(self) -> str:
        """Return in words how the policy changed the request, or nothing."""
        now = attrs.astuple(self.request, recurse=False)
        names = [attribute.name for attribute in attrs.fields(Request)]
        changes = [
            f"{name} was {before!r}, and is {after!r}"
            for name, before, after in zip(names, self.given, now, strict=True)
            if before != after
        ]
        return f"the request {self.id} was changed: {'; '.join(changes)}" if changes else ""

    @property
    def prompt(self) -> int:
        """Length of the prompt."""
        return self.request.input_tokens

    @property
    def left(self) -> int:
        """Output tokens that it may still produce, going by what it declared."""
        return self.spec.longest() - self.produced


@define
class Cache:
    """Blocks of shared prefixes, least recently used first; a block goes before those that it continues."""

    capacity: int
    index: PrefixIndex
    chains: dict[int, tuple[int, ...]] = field(factory=dict)
    """Each cached block, with the chain that it ends."""

    def matched(self, prefix: tuple[int, ...]) -> int:
        """Return how many leading blocks are cached."""
        return next((i for i, block in enumerate(prefix) if block not in self.chains), len(prefix))

    def insert(self, prefix: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Cache a chain; return the chains whose last block had to go."""
        known = self.matched(prefix)
        for end in range(len(prefix), 0, -1):
            block = prefix[end - 1]
            self.chains.pop(block, None)
            self.chains[block] = prefix[:end]
        if known < len(prefix):
            self.index.cached(prefix, start=known)
        return [self._drop(next(iter(self.chains))) for _ in range(len(self.chains) - self.capacity)]

    def evict(self, prefix: tuple[int, ...], start: int) -> list[tuple[int, ...]]:
        """Drop everything that runs through block `start` of a chain; return the chains that ended there."""
        if start >= len(prefix):
            return []
        through = [block for block, chain in self.chains.items() if prefix[start] in chain]
        return [self._drop(block) for block in sorted(through, key=lambda block: -len(self.chains[block]))]

    def _drop(self, block: int) -> tuple[int, ...]:
        chain = self.chains.pop(block)
        self.index.evicted(chain, start=len(chain) - 1)
        return chain


def changed_request(jobs: Iterable[Job]) -> str:
    """Return in words how the policy changed the first request that it changed, or nothing."""
    return next(filter(None, (job.changed() for job in jobs)), "")


def same_request(ours: Request, offered: Request) -> bool:
    """Return whether that is our request: the same object, or (of a restored policy) one with the same fields."""
    return ours is offered or all(
        getattr(offered, attribute.name, None) == getattr(ours, attribute.name)
        for attribute in attrs.fields(Request)
    )


def most_steps(event: ev.HostEvent, block: int) -> int:
    """Return more steps than an event can cost a work-conserving execution: preempted work is done again."""
    if isinstance(event, ev.Arrive):
        return 10 * event.count * (event.tokens(block) + event.output + event.every)
    return 10 * event.steps if isinstance(event, ev.Step) else 0
