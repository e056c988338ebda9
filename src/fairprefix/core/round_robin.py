"""Routers that take turns.

* `rr`: one worker after the other, whoever asks; the default of most gateways, and with LPM at each worker the
  baseline "RR + LPM" of the D2LPM paper (arXiv 2501.14312, section 6.1).
* `client_rr`: each client goes round by itself; the partner of VTC with several workers (same paper,
  Theorem A.6): a client's requests are spread evenly over the workers whatever the others send.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from fairprefix.core.request import Client, Request
from fairprefix.core.router_base import BaseRouter
from fairprefix.core.router_config import RouterConfig
from fairprefix.core.worker_index import WorkerIndex
from fairprefix.core.workers import Worker


def next_slot(after: int, among: int) -> int:
    """Return the first slot of a set that is larger than `after`, or else the first one of all. O(1)."""
    later = among >> (after + 1) << (after + 1)
    found = later or among
    return (found & -found).bit_length() - 1


class RoundRobin(BaseRouter):
    """One worker after the other. O(1) beside the index."""

    name: ClassVar[str] = "rr"

    def __init__(self, config: RouterConfig, index: WorkerIndex | None = None) -> None:
        super().__init__(config, index)
        self._last = -1

    def _choose(self, request: Request, among: int, now: int) -> tuple[Worker, int | None]:  # noqa: ARG002
        self._last = next_slot(self._last, among)
        return self.workers[self._last], None

    def _state(self) -> dict[str, Any]:
        return {"last": self._last}

    def _load_state(self, state: Mapping[str, Any]) -> None:
        self._last = state["last"]

    def _canonical_state(self) -> tuple[object, ...]:
        return (self._last,)


class ClientRoundRobin(BaseRouter):
    """Each client goes round by itself; beyond `max_clients` the one that has been away longest begins anew."""

    name: ClassVar[str] = "client_rr"

    def __init__(self, config: RouterConfig, index: WorkerIndex | None = None) -> None:
        super().__init__(config, index)
        self._last: dict[Client, int] = {}
        """The slot that each client was sent to last; those seen longest ago come first."""

    def _choose(self, request: Request, among: int, now: int) -> tuple[Worker, int | None]:  # noqa: ARG002
        slot = next_slot(self._last.pop(request.client, -1), among)
        self._last[request.client] = slot
        if len(self._last) > self.config.max_clients:
            del self._last[next(iter(self._last))]
        return self.workers[slot], None

    def _state(self) -> dict[str, Any]:
        return {"last": dict(self._last)}

    def _load_state(self, state: Mapping[str, Any]) -> None:
        self._last = dict(state["last"])

    def _canonical_state(self) -> tuple[object, ...]:
        return tuple(self._last.items())
