"""Wrong variants of VTC: the lift, and the end of a pass."""

from __future__ import annotations

from fairprefix.core.lane import Entry
from fairprefix.core.vtc import VTC


class LiftsNobody(VTC):
    """Lets a returning client spend the share that it left unused."""

    def _floor(self) -> int:
        return 0


class LiftsToTheQueuedOnly(VTC):
    """Lifts to the queued clients, but not (as in the paper's artifact) to the one that left last."""

    def _floor(self) -> int:
        lowest = self._backlogged.top()
        return lowest[0] if lowest else 0


class SkipsWithoutRoom(VTC):
    """Offers the next client when the first one's request does not fit."""

    def _candidate(self) -> Entry | None:
        able = [account for account in self._table if account.lane.candidate()]
        first = min(able, key=lambda account: account.balance, default=None)
        return first.lane.candidate() if first else None


class ChargesExtend(VTC):
    """Charges what is computed where the whole prompt is due."""

    def _price(self, entry: Entry, extend: int) -> int:  # noqa: ARG002
        return self._cost.extend * extend
