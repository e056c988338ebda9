"""Policies that order wrongly: by name, by hash, by habit, or by nothing at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from fairprefix.core.config import PolicyConfig
from fairprefix.core.fcfs import FCFS
from fairprefix.core.lane import Entry, Stage
from fairprefix.core.lpm import LPM
from fairprefix.core.prefixes import Prefixes
from fairprefix.core.request import Client


class ByName(FCFS):
    """Takes clients in the order of their names."""

    def _candidate(self) -> Entry | None:
        return min(self._able(), key=lambda entry: (entry.request.client, entry.seq), default=None)

    def _able(self) -> Sequence[Entry]:
        return [entry for entry in self._entries.values() if entry.stage is Stage.QUEUED]


class ByHash(ByName):
    """Takes clients in the order of the hashes of their names, as iterating over a set does."""

    def _candidate(self) -> Entry | None:
        return min(self._able(), key=lambda entry: (hash(entry.request.client), entry.seq), default=None)


class ByMood(ByName):
    """Takes the oldest or the newest, depending on how many policies there were before."""

    made: ClassVar[list[None]] = []

    def _candidate(self) -> Entry | None:
        if not self._entries:
            return None
        if self._next_serial == 0 and not getattr(self, "_number", 0):
            self.made.append(None)
            self._number = len(self.made)
        sign = 1 if self._number % 2 else -1
        return min(self._able(), key=lambda entry: sign * entry.seq, default=None)


class Sticky(ByName):
    """Stays with the client that it served last for as long as it has requests."""

    _last: Client = ""

    def _candidate(self) -> Entry | None:
        return min(self._able(), key=lambda entry: (entry.request.client != self._last, entry.seq), default=None)

    def _prepare(self, entry: Entry) -> None:
        self._last = entry.request.client


class SharesItsMemory(ByName):
    """Remembers in its class, for all workers of the process, whom it served last."""

    last: ClassVar[list[Client]] = []

    def __init__(self, config: PolicyConfig, prefixes: Prefixes | None = None) -> None:
        super().__init__(config, prefixes)
        self.last.clear()

    def _candidate(self) -> Entry | None:
        return min(self._able(), key=lambda entry: (entry.request.client in self.last, entry.seq), default=None)

    def _prepare(self, entry: Entry) -> None:
        self.last[:] = [entry.request.client]


class ShortestPrefix(LPM):
    """Takes the shortest cached prefix first: a sign the wrong way round."""

    def _candidate(self) -> Entry | None:
        able = [entry for entry in self._entries.values() if entry.stage is Stage.QUEUED]
        return min(able, key=lambda entry: (entry.match, -entry.seq), default=None)
