"""Policies that break the interface: they offer, answer or settle what they should not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fairprefix.core.cost import Receipt
from fairprefix.core.dlpm import DLPM
from fairprefix.core.fcfs import FCFS
from fairprefix.core.lane import Entry, Stage
from fairprefix.core.policy import Refusal
from fairprefix.core.request import Client, Request


class OffersTheRefused(DLPM):
    """Offers a request again in the pass that has refused it."""

    def defer(self, id: str, why: Refusal) -> None:
        """Take no notice."""
        if why is Refusal.BLOCKED:
            super().defer(id, why)


class PlansTooMuch(DLPM):
    """Plans one request more than it was asked for."""

    def plan(self, limit: int, *, budget: int | None = None) -> Sequence[Request]:
        """Plan."""
        return super().plan(limit + 1, budget=budget)


class SettlesTwice(DLPM):
    """Accepts that an unknown request finishes, as if that had never been told before."""

    def finish(self, id: str, *, output: int) -> None:
        """Settle, whatever it is."""
        if id in self._entries:
            super().finish(id, output=output)


class KeepsTheEstimate(DLPM):
    """Takes note of an admission's true size, and leaves the charge as it was estimated."""

    def amend(self, receipt: Receipt, *, extend: int | None = None, reserve: int | None = None) -> Receipt:
        """Amend the output that may follow, and not the prompt."""
        del extend
        return super().amend(receipt, reserve=reserve)


class RaisesKeyErrors(DLPM):
    """Raises KeyError for a request that it does not know."""

    def _get(self, id: str, stages: Sequence[Stage]) -> Entry:
        return super()._get(self._entries[id].request.id, stages)


class SpoilsItsInput(DLPM):
    """Empties the mapping that a step's output is reported in."""

    def produced(self, tokens: Mapping[Client, int]) -> None:
        """Charge and clear."""
        super().produced(tokens)
        if isinstance(tokens, dict):
            tokens.clear()


class Dawdles(FCFS):
    """Offers nobody in the pass after an arrival."""

    _fresh = False

    def arrive(self, request: Request) -> None:
        """Note it, and wait."""
        super().arrive(request)
        self._fresh = True

    def defer(self, id: str, why: Refusal) -> None:
        """Set it aside."""
        super().defer(id, why)

    def begin_pass(self) -> None:
        """Wait for one pass."""
        super().begin_pass()
        self._waits, self._fresh = self._fresh, False

    _waits = False

    def _candidate(self) -> Entry | None:
        return None if self._waits else super()._candidate()


class LosesTheUnblocked(DLPM):
    """Never offers a request again that was blocked once."""

    def unblock(self, id: str) -> None:
        """Count it in, and deny it."""
        super().unblock(id)
        self._denied = {*getattr(self, "_denied", ()), id}

    def _candidate(self) -> Entry | None:
        found = super()._candidate()
        return None if found and found.request.id in getattr(self, "_denied", ()) else found
