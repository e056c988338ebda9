"""Text as it streams out, cut at the first stop string; nothing of a stop string ever gets out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol


class Detokenizer(Protocol):
    """Turns the output of one request into text, token by token."""

    def add(self, tokens: Iterable[int]) -> str:
        """Return the text that became certain with these tokens."""
        ...

    def flush(self) -> str:
        """Return what is left when the answer is over."""
        ...


class StopWatch:
    """The text of one answer, up to the first of its stop strings.

    Args:
        detokenizer: turns its tokens into text.
        stops: the stop strings.
    """

    def __init__(self, detokenizer: Detokenizer, stops: Sequence[str] = ()) -> None:
        self.stopped: bool = False
        """Whether a stop string has come: nothing after it counts."""
        self._detokenizer = detokenizer
        self._stops = tuple(stops)
        self._held = ""
        """Text that may turn out to be the beginning of a stop string."""

    def add(self, tokens: Iterable[int]) -> str:
        """Return the text that may be shown after these tokens; perhaps none."""
        return "" if self.stopped else self._show(self._detokenizer.add(tokens))

    def flush(self) -> str:
        """Return the rest, now that the answer is over."""
        if self.stopped:
            return ""
        shown = self._show(self._detokenizer.flush())
        rest, self._held = self._held, ""  # nothing, if a stop string has come after all
        return shown + rest

    def _show(self, fresh: str) -> str:
        text = self._held + fresh
        found = [place for place in (text.find(stop) for stop in self._stops) if place >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that a stop string begins with."""
    for length in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
