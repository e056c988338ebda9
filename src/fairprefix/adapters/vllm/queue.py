"""What stands in for vLLM's queue of waiting requests: the policy chooses the head, and only the head.

Three groups wait in here. *Resuming* requests (preempted, or with their KV cache loaded from elsewhere) have been
admitted before and go first. *Parked* ones cannot be admitted yet; their readiness is looked up without offering
them. For all others the policy is asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Protocol

from fairprefix.adapters.vllm.shapes import PREEMPTED, RUNNING, WAITING, WAITS_FOR_KV, EngineRequest
from fairprefix.adapters.vllm.translator import Standing, Tracked, Translator

_LOOKED_AT = 256
"""Parked requests whose readiness is looked up in one pass."""


class PolicyQueue:
    """A `vllm.v1.core.sched.request_queue.RequestQueue` (by shape: the class itself varies between versions).

    A request that is popped may have been admitted or set aside; vLLM does not tell. Its status does, one look
    later: at the next peek, or when the step is planned.

    Args:
        translator: tells the policy.
        is_ready: whether a parked request can be admitted now.
        seats_left: whether anybody can be.
    """

    def __init__(
        self, translator: Translator, is_ready: Callable[[EngineRequest], bool], seats_left: Callable[[], bool]
    ) -> None:
        self.stalls: int = 0
        """How often the policy offered nobody although nothing ran and somebody waited."""
        self._translator = translator
        self._is_ready = is_ready
        self._seats_left = seats_left
        self._waiting: dict[str, EngineRequest] = {}
        self._resuming: deque[EngineRequest] = deque()
        self._parked: dict[str, EngineRequest] = {}
        self.head: EngineRequest | None = None
        """Whom `peek_request` returns, once that is known."""
        self._popped: EngineRequest | None = None
        self._running: object = None
        """vLLM's status of who has been admitted, once that is known: a member's name is looked up slowly."""
        self._in_pass = False

    # A step.

    def begin_pass(self) -> None:
        """A step is about to be planned."""
        self._in_pass, self.head = True, None
        if self._parked:
            self._look_at_parked()
        self._translator.policy.begin_pass()

    def end_pass(self, computed: Callable[[EngineRequest], int]) -> None:
        """A step is planned; `computed` tells what of a request was cached when it was admitted."""
        if self._popped is not None:
            self._settle(computed)
        self._in_pass, self.head = False, None

    # vLLM's interface.

    def add_request(self, request: EngineRequest) -> None:
        """A request arrives, or a session's next turn."""
        self.head = None
        blocked = request.status.name not in (WAITING, PREEMPTED)
        self._waiting[request.request_id] = request
        self._translator.arrived(request, blocked=blocked)
        if blocked:
            self._parked[request.request_id] = request

    def peek_request(self) -> EngineRequest:
        """Return whom to admit next."""
        head = self._choose() if self.head is None else self.head
        if head is None:
            raise IndexError("peek from a queue that offers nobody")
        return head

    def pop_request(self) -> EngineRequest:
        """Take out whom `peek_request` returned."""
        request = self.peek_request() if self.head is None else self.head
        if self._resuming and self._resuming[0] is request:
            self._resuming.popleft()
        del self._waiting[request.request_id]
        self._popped, self.head = request, None
        return request

    def prepend_request(self, request: EngineRequest) -> None:
        """Take back a request that was preempted or set aside."""
        if request is self._popped:
            self._settle(_at_once)
        self.head = None
        tracked = self._translator.get(request.request_id)
        self._waiting[request.request_id] = request
        if tracked is None:
            self._translator.arrived(request)
        elif request.status.name == PREEMPTED:
            if tracked.standing is Standing.ADMITTED:
                self._translator.preempted(tracked)
            self._resuming.appendleft(request)
        else:
            self._parked[request.request_id] = request

    def prepend_requests(self, requests: Iterable[EngineRequest]) -> None:
        """Take back several, the last one to the front."""
        for request in requests:
            self.prepend_request(request)

    def remove_request(self, request: EngineRequest) -> None:
        """Take a request out, wherever it stands; it is none of ours if it does not stand in here."""
        if self._waiting.get(request.request_id) is not request:
            return
        self.head = None
        del self._waiting[request.request_id]
        self._parked.pop(request.request_id, None)
        if request in self._resuming:
            self._resuming.remove(request)

    def remove_requests(self, requests: Iterable[EngineRequest]) -> None:
        """Take several out."""
        for request in requests:
            self.remove_request(request)

    def __bool__(self) -> bool:
        # While a step is planned this asks "is there anybody to look at?": not when only parked ones are left.
        # Without seats vLLM looks at nobody, and the policy need not be asked: most steps of a busy server.
        if self._in_pass and self._waiting and self._seats_left():
            return self.head is not None or self._choose() is not None
        return bool(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[EngineRequest]:
        return iter(list(self._waiting.values()))

    def __reversed__(self) -> Iterator[EngineRequest]:
        return reversed(list(self._waiting.values()))

    # Inside.

    def _choose(self) -> EngineRequest | None:
        if self._popped is not None:
            self._settle(_at_once)
        self.head = self._resuming[0] if self._resuming else self._offered()
        return self.head

    def _offered(self) -> EngineRequest | None:
        if len(self._waiting) == len(self._parked):
            return None
        offered = self._translator.policy.peek()
        if offered is not None:
            return self._translator.engine_request(offered)
        if self._translator.admitted_requests:
            return None
        # Nothing runs whose end could change the policy's mind: it must not stall the engine.
        self.stalls += 1
        return next(request for id, request in self._waiting.items() if id not in self._parked)

    def _look_at_parked(self) -> None:
        for id, request in list(islice(self._parked.items(), _LOOKED_AT)):
            del self._parked[id]
            if self._is_ready(request):
                self._unpark(request)
            else:
                self._parked[id] = request

    def _settle(self, computed: Callable[[EngineRequest], int]) -> None:
        """Tell what became of the request that was popped last."""
        request, self._popped = self._popped, None
        tracked = self._translator.get(request.request_id) if request is not None else None
        if request is None or tracked is None:
            return
        status = request.status
        if status is self._running or status.name == RUNNING:
            self._running = status
            self._translator.admitted(tracked, computed(request))
        elif status.name == WAITS_FOR_KV:
            # It holds its memory while the rest is loaded: that was the admission.
            self._translator.admitted(tracked, request.num_computed_tokens)
        elif tracked.standing is Standing.QUEUED:
            self._translator.refused(tracked)

    def _unpark(self, request: EngineRequest) -> None:
        tracked = self._translator.get(request.request_id)
        if tracked is not None and tracked.standing is Standing.BLOCKED:
            self._translator.ready(tracked)
        elif tracked is not None and _was_admitted(tracked):
            self._resuming.append(request)


class FirstQueue(Protocol):
    """The queue that all wait in."""

    def add_request(self, request: EngineRequest) -> None:
        """Queue a request."""
        ...

    def prepend_request(self, request: EngineRequest) -> None:
        """Take back a request."""
        ...

    def prepend_requests(self, requests: Iterable[EngineRequest]) -> None:
        """Take back several."""
        ...

    def __iter__(self) -> Iterator[EngineRequest]: ...


class NoQueue:
    """Stands in for the second queue of some versions, for requests that were set aside: all wait in the first.

    It says that it is empty, so that nobody is taken from it out of turn.
    """

    def __init__(self, queue: FirstQueue) -> None:
        self._queue = queue
        self.add_request: Callable[[EngineRequest], None] = queue.add_request
        self.prepend_request: Callable[[EngineRequest], None] = queue.prepend_request
        self.prepend_requests: Callable[[Iterable[EngineRequest]], None] = queue.prepend_requests

    def remove_requests(self, requests: Iterable[EngineRequest]) -> None:
        """Do nothing: vLLM asks the other queue as well."""

    def __bool__(self) -> bool:
        return False

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[EngineRequest]:
        return iter(self._queue)


def _was_admitted(tracked: Tracked) -> bool:
    return tracked.standing in (Standing.ADMITTED, Standing.HELD)


def _at_once(request: EngineRequest) -> int:
    """Return what was cached: between its admission and the end of the step that is all that is computed."""
    return request.num_computed_tokens
