"""Policies with one queue for everybody; first come, first served is the simplest of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from fairprefix.core.base import BasePolicy
from fairprefix.core.compiling import mypyc_attr
from fairprefix.core.config import PolicyConfig
from fairprefix.core.lane import Entry, Lane
from fairprefix.core.prefixes import Prefixes
from fairprefix.core.request import Client


@mypyc_attr(allow_interpreted_subclasses=True)
class SingleQueuePolicy(BasePolicy):
    """One queue for everybody: no accounts, no weights, no bound between clients."""

    def __init__(self, config: PolicyConfig, prefixes: Prefixes | None, *, patience: int | None) -> None:
        super().__init__(config, prefixes)
        self._queue = Lane(patience)

    def reweigh(self, client: Client, weight: int) -> None:
        """Do nothing: this policy knows no weights."""

    def _owner(self, client: Client) -> str:
        return client

    def _lane(self, entry: Entry) -> Lane:  # noqa: ARG002 (everybody waits in the same one)
        return self._queue

    def _entered(self, entry: Entry, *, arrival: bool) -> None:
        """Do nothing."""

    def _moved(self, entry: Entry) -> None:
        """Do nothing."""

    def _recounted(self, entry: Entry) -> None:
        """Do nothing."""

    def _reordered(self, entry: Entry) -> None:
        """Do nothing."""

    def _candidate(self) -> Entry | None:
        return self._queue.candidate()

    def _price(self, entry: Entry, extend: int) -> int:  # noqa: ARG002 (the same for everybody)
        return self._cost.extend * extend

    def _prepare(self, entry: Entry) -> None:
        """Do nothing: an offer assumes nothing."""

    def _spend(self, entry: Entry, units: int, reserve: int) -> None:
        """Do nothing."""

    def _spend_output(self, tokens: Mapping[Client, int]) -> None:
        """Do nothing."""

    def _settled(self, entry: Entry) -> None:
        """Do nothing."""

    def _mark(self, entry: Entry) -> Callable[[], None]:  # noqa: ARG002 (nothing but the entry changes)
        return lambda: None

    def _state(self) -> dict[str, Any]:
        return {"turn": self._queue.turn}

    def _load_state(self, state: dict[str, Any]) -> None:
        self._queue.turn = state["turn"]

    def _canonical_state(self) -> tuple[object, ...]:
        return (self._queue.turn,)


@mypyc_attr(allow_interpreted_subclasses=True)
class FCFS(SingleQueuePolicy):
    """First come, first served: the oldest request is next, and holds up the others until it fits."""

    name: ClassVar[str] = "fcfs"

    def __init__(self, config: PolicyConfig, prefixes: Prefixes | None = None) -> None:
        super().__init__(config, prefixes, patience=1)
