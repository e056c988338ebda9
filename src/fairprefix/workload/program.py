"""What a program is: calls, the parts that their prompts are made of, and who waits for whom."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import field, frozen

from fairprefix.core.errors import FairprefixError, at_least, reject
from fairprefix.core.request import Client


class WorkloadError(FairprefixError, ValueError):
    """A workload makes no sense; the message says which part of it."""


@frozen
class Part:
    """A piece of text. Two prompts that begin with the same parts begin with the same tokens."""

    id: int
    """The same number means the same text."""
    tokens: int
    """Its length, at least 1."""
    kind: str = "text"
    """What kind of text stands there where text is needed: question, document, article, message, output..."""


@frozen
class Call:
    """One request of a program."""

    prompt: tuple[Part, ...]
    """Its parts in order; answers of earlier calls are parts like any other."""
    output: Part
    """Its answer, and how long that is."""
    after: tuple[int, ...] = ()
    """Numbers of the earlier calls that must have been answered first."""
    delay_ns: int = 0
    """How long after the last of them (or after the program's arrival) it is made."""
    max_output: int = field(default=0)
    """The most output tokens it allows; 0: as many as it produces."""

    @property
    def input_tokens(self) -> int:
        """Length of the prompt."""
        return sum(part.tokens for part in self.prompt)

    @property
    def limit(self) -> int:
        """The most output tokens that it allows."""
        return self.max_output or self.output.tokens


def _checked(calls: Iterable[Call]) -> tuple[Call, ...]:
    known = tuple(calls)
    if not known:
        raise WorkloadError("a program without calls")
    for number, call in enumerate(known):
        if not call.prompt:
            raise WorkloadError(f"call {number}: an empty prompt")
        for earlier in call.after:
            if not 0 <= earlier < number:
                raise WorkloadError(f"call {number}: waits for call {earlier}, expected an earlier one")
        if min(part.tokens for part in (*call.prompt, call.output)) < 1:
            raise WorkloadError(f"call {number}: a part without tokens")
        at_least(f"call {number}: delay_ns", call.delay_ns, 0)
        at_least(f"call {number}: max_output", call.limit, call.output.tokens)
    return known


@frozen
class Program:
    """What one user does: calls that depend on each other, begun at a time that does not depend on the engine."""

    client: Client
    arrival_ns: int
    calls: tuple[Call, ...] = field(converter=_checked, repr=False)

    def successors(self) -> list[list[int]]:
        """Return for each call those that wait for it."""
        waiting: list[list[int]] = [[] for _ in self.calls]
        for number, call in enumerate(self.calls):
            for earlier in set(call.after):
                waiting[earlier].append(number)
        return waiting


def _by_arrival(programs: Iterable[Program]) -> tuple[Program, ...]:
    return tuple(sorted(programs, key=lambda program: program.arrival_ns))


@frozen(eq=False)
class Workload:
    """Programs in order of arrival."""

    name: str
    programs: tuple[Program, ...] = field(converter=_by_arrival, repr=False)
    block_size: int = 16
    """Tokens per block, where prompts are cut into blocks."""
    greedy: frozenset[Client] = frozenset()
    """Clients that misbehave; all others are well-behaved."""
    judged_by: str = "program"
    """What a program's latency is: until its last token (program), or until its first one (first_token)."""
    notes: tuple[str, ...] = ()
    """What was assumed; belongs beside every result."""

    def __attrs_post_init__(self) -> None:
        """Refuse a workload of nothing."""
        if not self.programs:
            raise WorkloadError(f"workload {self.name!r}: no programs")
        at_least("block_size", self.block_size, 1)
        if self.judged_by not in ("program", "first_token"):
            raise reject("judged_by", self.judged_by, "program or first_token")

    @property
    def clients(self) -> tuple[Client, ...]:
        """All clients by name."""
        return tuple(sorted({program.client for program in self.programs}))

    @property
    def calls(self) -> int:
        """How many calls there are in all."""
        return sum(len(program.calls) for program in self.programs)
