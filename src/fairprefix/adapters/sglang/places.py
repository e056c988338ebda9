"""Where the waiting requests stand in SGLang's list, so that the next few can be moved to its head in O(few).

SGLang appends what arrives and removes what it admits or aborts; the rest keeps its order. A request that stood at
index i when r requests had been removed therefore stands between i - (r' - r) and i now, and at the lower end if
all of those stood before it, as admitted ones do. Every place is verified by identity; a guess that fails only
costs time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fairprefix.adapters.sglang.views import Req, Tracked


class Places:
    """Knows the places of tracked requests; others may stand in between."""

    def __init__(self) -> None:
        self._appended = 0

    def appended(self, entry: Tracked, waiting: list[Req]) -> None:
        """Note that an entry was appended to the list."""
        self._appended += 1
        self._note(entry, len(waiting) - 1, waiting)

    def skipped(self) -> None:
        """Note that something was appended whose place is of no interest."""
        self._appended += 1

    def find(self, entry: Tracked, waiting: list[Req]) -> int | None:
        """Return where an entry stands, or None when it is not where it can be."""
        least = max(entry.index - (self._appended - len(waiting) - entry.removed), 0)
        if least < len(waiting) and waiting[least] is entry.req:
            return least
        try:
            return waiting.index(entry.req, least, entry.index + 1)
        except ValueError:
            return None

    def to_front(self, heads: Iterable[Tracked], waiting: list[Req], known: Mapping[Req, Tracked]) -> bool:
        """Move entries to the head of the list, in place; return False when one of them is not there.

        Whoever stood at the head moves to where the entry came from; the rest does not move.
        """
        length = len(waiting)
        removed = self._appended - length
        for target, entry in enumerate(heads):
            found = entry.index + entry.removed - removed
            if not 0 <= found < length or waiting[found] is not entry.req:
                searched = self.find(entry, waiting)
                if searched is None:
                    return False
                found = searched
            if found != target:
                other = waiting[target]
                waiting[target], waiting[found] = entry.req, other
                moved = known.get(other)
                if moved is not None:
                    moved.index, moved.removed = found, removed
            entry.index, entry.removed = target, removed
        return True

    def rebuild(self, waiting: list[Req], known: Mapping[Req, Tracked]) -> None:
        """Look where everybody stands. O(waiting)."""
        self._appended = len(waiting)
        for index, req in enumerate(waiting):
            if req in known:
                self._note(known[req], index, waiting)

    def _note(self, entry: Tracked, index: int, waiting: list[Req]) -> None:
        entry.index, entry.removed = index, self._appended - len(waiting)
