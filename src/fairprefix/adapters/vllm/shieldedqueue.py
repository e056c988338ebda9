"""The policy's queue, and what is left of it when something in here fails: a queue in arrival order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from fairprefix.adapters.vllm.guard import Shield
from fairprefix.adapters.vllm.queue import PolicyQueue
from fairprefix.adapters.vllm.shapes import EngineRequest, Theirs

T = TypeVar("T")


class ShieldedQueue:
    """A `PolicyQueue` that turns into a plain queue, in arrival order, should it or the shield fail."""

    def __init__(self, queue: PolicyQueue, shield: Shield) -> None:
        self._queue = queue
        self._shield = shield
        self._plain: dict[str, EngineRequest] | None = None

    def add_request(self, request: EngineRequest) -> None:
        """Queue a request."""
        self._do(PolicyQueue.add_request, self._append, request)

    def peek_request(self) -> EngineRequest:
        """Return whom to admit next."""
        known = self._queue.head
        if known is not None and self._plain is None:
            return known
        return self._do(PolicyQueue.peek_request, self._first)

    def pop_request(self) -> EngineRequest:
        """Take out whom `peek_request` returned."""
        return self._do(PolicyQueue.pop_request, self._take_first)

    def prepend_request(self, request: EngineRequest) -> None:
        """Take back a request."""
        self._do(PolicyQueue.prepend_request, self._push, request)

    def prepend_requests(self, requests: Iterable[EngineRequest]) -> None:
        """Take back several."""
        for request in requests:
            self.prepend_request(request)

    def remove_request(self, request: EngineRequest) -> None:
        """Take a request out."""
        self._do(PolicyQueue.remove_request, self._remove, request)

    def remove_requests(self, requests: Iterable[EngineRequest]) -> None:
        """Take several out."""
        for request in requests:
            self.remove_request(request)

    def __bool__(self) -> bool:
        return self._do(PolicyQueue.__bool__, self._any)

    def __len__(self) -> int:
        return len(self._queue if self._plain is None else self._plain)

    def __iter__(self) -> Iterator[EngineRequest]:
        return iter(self._queue if self._plain is None else list(self._plain.values()))

    def __reversed__(self) -> Iterator[EngineRequest]:
        return reversed(list(self))

    def _do(self, ours: Callable[..., T], plain: Callable[..., T], *args: Theirs) -> T:
        if self._plain is None and not self._shield.errors:
            try:
                return ours(self._queue, *args)
            except Exception as problem:  # noqa: BLE001 (whatever it is, the engine must go on)
                self._shield.fail(problem)
        if self._plain is None:
            # Whom vLLM has looked at and given memory is whom it takes next.
            head = self._queue.head
            first = {} if head is None else {head.request_id: head}
            self._plain = first | {request.request_id: request for request in self._queue}
        return plain(*args)

    # The plain queue.

    def _any(self) -> bool:
        return bool(self._plain)

    def _append(self, request: EngineRequest) -> None:
        assert self._plain is not None
        self._plain[request.request_id] = request

    def _first(self) -> EngineRequest:
        assert self._plain is not None
        return next(iter(self._plain.values()))

    def _take_first(self) -> EngineRequest:
        assert self._plain is not None
        return self._plain.pop(next(iter(self._plain)))

    def _push(self, request: EngineRequest) -> None:
        assert self._plain is not None
        self._plain = {request.request_id: request} | self._plain

    def _remove(self, request: EngineRequest) -> None:
        assert self._plain is not None
        self._plain.pop(request.request_id, None)
