"""The workloads of the DLPM paper by name, at any size.

    S1@...   a client misbehaves by asking more (Table 3): more branches, more dimensions, a higher rate
    S2@...   a client misbehaves by longer prefixes: longer questions, a preamble, longer documents
    ToT, Judge, LongQA, Chat   all clients are well-behaved
    Mix      Figure 12: a judge, two who chat, and one with trees of thoughts
    OwnPrefix   each client begins all prompts with the same text, and nobody else does
    Phases   Figure 8: all chat; the last two of four flood at first, and the one before the last calms down

The first client misbehaves, where one does. All clients begin programs at the same rate; in S1@LongQA, whose
program is a single request, the first client's rate is `GREEDY_RATE` times that of the others.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from fairprefix.core.errors import at_least, one_of, reject
from fairprefix.core.request import Client
from fairprefix.workload.draws import Maker
from fairprefix.workload.kinds import (
    ARTICLE_TOKENS,
    DOCUMENT_TOKENS,
    PREAMBLE_TOKENS,
    QUESTION_TOKENS,
    Chat,
    DocumentQuestions,
    Judge,
    Kind,
    OwnPrefix,
    TreeOfThoughts,
)
from fairprefix.workload.program import Program, Workload

DOCUMENTS = 105
"""Documents of LooGLE's short-dependency questions, dealt out evenly among the clients."""
GREEDY_RATE = 8
"""S1@LongQA. The paper says only "higher"; in its other S1 workloads a program of the misbehaving client has 5.7
and 11.3 times as many calls, and this is their geometric mean."""
CHATS = 6
"""Mix: conversations to a tree, or to an article. Three replies of 142 tokens against thirty thoughts of 256 would
make it 18 for the same output, and against three judgements 2: this is their geometric mean."""
DOCUMENT_BLOCK = 128
"""Tokens per block where prompts are documents; elsewhere 16."""
BLOCK = 16


@frozen(kw_only=True)
class WorkloadSize:
    """How much of it.

    Raises:
        ConfigError: a value is outside its range.
    """

    programs: int
    """Programs of each client."""
    rate: float
    """Programs per second of each client."""
    clients: int = 3
    cv: float = 1.0
    """Coefficient of variation of the time between a client's programs."""

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        at_least("programs", self.programs, 1)
        at_least("clients", self.clients, 1)
        for name in ("rate", "cv"):
            if not 0 < getattr(self, name) < float("inf"):
                raise reject(name, getattr(self, name), "a finite number > 0")


@frozen
class _Habit:
    """What one client does."""

    kind: Kind
    factor: int = 1
    """Its rate and its number of programs, in those of the others."""
    calms_down: bool = False
    """It keeps that rate for the first half of its time, and that of the others afterwards."""

    def programs(self, maker: Maker, client: Client, size: WorkloadSize) -> list[Program]:
        """Return all programs of one client."""
        count, rate = size.programs * self.factor, size.rate * self.factor
        if not self.calms_down:
            times = list(maker.arrivals(rate, count, cv=size.cv))
        else:
            times = list(maker.arrivals(rate, count // 2, cv=size.cv))
            rest = maker.arrivals(size.rate, size.programs // 2, cv=size.cv)
            times += [times[-1] + at for at in rest] if times else []
        return [self.kind.program(maker, client, at) for at in times]


def _trees(greedy: TreeOfThoughts | None) -> Callable[[Maker, int, int], _Habit]:
    def habit(_maker: Maker, place: int, _clients: int) -> _Habit:
        return _Habit(greedy if greedy and place == 0 else TreeOfThoughts())

    return habit


def _judges(dimensions: int, preamble_tokens: int) -> Callable[[Maker, int, int], _Habit]:
    def habit(maker: Maker, place: int, _clients: int) -> _Habit:
        if place:
            return _Habit(Judge())
        preamble = maker.part(preamble_tokens, "preamble") if preamble_tokens else None
        return _Habit(Judge(dimensions, preamble))

    return habit


def _readers(length: int, rate: int) -> Callable[[Maker, int, int], _Habit]:
    def habit(maker: Maker, place: int, clients: int) -> _Habit:
        average = DOCUMENT_TOKENS * (1 if place else length)
        owned = max(1, DOCUMENTS // clients)
        documents = tuple(maker.varied(average, "document") for _ in range(owned))
        return _Habit(DocumentQuestions(documents), 1 if place else rate)

    return habit


def _chats(_maker: Maker, _place: int, _clients: int) -> _Habit:
    return _Habit(Chat())


def _mix(_maker: Maker, place: int, _clients: int) -> _Habit:
    kinds: tuple[Kind, ...] = (Judge(), Chat(), Chat(), TreeOfThoughts())
    kind = kinds[place % len(kinds)]
    return _Habit(kind, CHATS if isinstance(kind, Chat) else 1)


def _owners(maker: Maker, _place: int, _clients: int) -> _Habit:
    return _Habit(OwnPrefix(maker.part(ARTICLE_TOKENS, "article")))


def _phases(_maker: Maker, place: int, clients: int) -> _Habit:
    floods, last = place >= clients - 2, place == clients - 1
    return _Habit(Chat(), GREEDY_RATE if floods else 1, calms_down=floods and not last)


_HABITS: dict[str, Callable[[Maker, int, int], _Habit]] = {
    "S1@ToT": _trees(TreeOfThoughts(branches=4)),
    "S2@ToT": _trees(TreeOfThoughts(question_tokens=10 * QUESTION_TOKENS)),
    "S1@Judge": _judges(16, 0),
    "S2@Judge": _judges(2, PREAMBLE_TOKENS),
    "S1@LongQA": _readers(1, GREEDY_RATE),
    "S2@LongQA": _readers(2, 1),
    "ToT": _trees(None),
    "Judge": _judges(2, 0),
    "LongQA": _readers(1, 1),
    "Chat": _chats,
    "Mix": _mix,
    "OwnPrefix": _owners,
    "Phases": _phases,
}
WORKLOADS = tuple(_HABITS)
"""Their names."""


def make_workload(name: str, size: WorkloadSize, *, seed: int = 0) -> Workload:
    """Return a workload; it is a function of name, size and seed.

    Raises:
        ConfigError: an unknown name (with the nearest known one).
    """
    one_of("workload", name, WORKLOADS)
    reads = "LongQA" in name
    greedy = frozenset(_client(place) for place in _greedy(name, size.clients))
    programs: list[Program] = []
    maker = Maker(f"{name}/{seed}")
    for place in range(size.clients):
        habit = _HABITS[name](maker, place, size.clients)
        programs += habit.programs(maker, _client(place), size)
    return Workload(
        name,
        programs,
        block_size=DOCUMENT_BLOCK if reads else BLOCK,
        greedy=greedy,
        judged_by="first_token" if reads else "program",
    )


def _greedy(name: str, clients: int) -> tuple[int, ...]:
    """Return the places of those who misbehave."""
    if name == "Phases":
        return tuple(range(max(0, clients - 2), clients))
    return (0,) if name.startswith("S") else ()


def _client(place: int) -> Client:
    return f"c{place}"
