"""LPM with aging, a baseline: at every pass that a request waits it gains on requests with longer matches.

A request's rank is its match in tokens, and `tokens_per_pass` for each pass since it arrived, as SGLang's option
`--lpm-aging-tokens-per-pass` has it. All requests age alike, so their order changes with matches and arrivals
alone: a match less the age at arrival is compared.
"""

from __future__ import annotations

from fairprefix.core.config import PolicyConfig
from fairprefix.core.fcfs import SingleQueuePolicy
from fairprefix.core.lane import Entry, Lane
from fairprefix.core.prefixes import Prefixes


class _AgingLane(Lane):
    """A queue whose order counts passes as tokens."""

    __slots__ = ("_born", "_tokens", "passes")

    def __init__(self, tokens_per_pass: int) -> None:
        super().__init__(None)
        self.passes = 0
        self._tokens = tokens_per_pass
        self._born: dict[int, int] = {}
        """By place in the order of arrival: the pass at which it arrived."""

    def enter(self, entry: Entry) -> None:
        self._born.setdefault(entry.seq, self.passes)
        super().enter(entry)

    def rekey(self, entry: Entry) -> None:
        entry.times_ranked += 1
        rank = self._tokens * self._born[entry.seq] - entry.match
        self._matches.push((rank, entry.seq, entry.times_ranked, entry))


class AgingLPM(SingleQueuePolicy):
    """The longest cached prefix is next, where age counts as tokens of it; promises no client anything."""

    name = "lpm"

    def __init__(
        self, config: PolicyConfig, prefixes: Prefixes | None = None, *, tokens_per_pass: int = 1
    ) -> None:
        super().__init__(config, prefixes, patience=None)
        self._aging = _AgingLane(tokens_per_pass)
        self._queue = self._aging

    def begin_pass(self) -> None:
        """Let everything that waits grow older."""
        self._aging.passes += 1
        super().begin_pass()
