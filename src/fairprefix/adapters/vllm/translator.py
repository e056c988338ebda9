"""From what happens to a vLLM request to what a policy is told, and nothing else.

Every request is charged once, at its first admission, for `prompt - cached` tokens, and for each output token that
is delivered. vLLM resumes preempted requests by itself: they are held, not queued again, and not charged twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from attrs import define

from fairprefix.adapters.vllm.client import client_of
from fairprefix.adapters.vllm.shapes import EngineRequest, StepOutputs
from fairprefix.core.policy import Refusal
from fairprefix.core.request import Client, Request
from fairprefix.hosting import HostedPolicy, Identity


class Standing(Enum):
    """Where a request stands, as the policy knows it."""

    QUEUED = 1
    BLOCKED = 2
    """Cannot be admitted yet, whatever the policy says."""
    ADMITTED = 3
    HELD = 4
    """Preempted; vLLM resumes it by itself."""


# Members of an enumeration are looked up slowly: those of the usual case are named here.
_ADMITTED, _BLOCKED, _HELD = Standing.ADMITTED, Standing.BLOCKED, Standing.HELD


@define(eq=False)
class Tracked:
    """One request between its arrival and its end; of a streaming session, one turn."""

    engine_request: EngineRequest
    request: Request
    client: Client
    standing: Standing = Standing.QUEUED
    output: int = 0
    """Tokens delivered."""
    reported: int = 0
    """Tokens delivered before the last preemption."""


class Translator:
    """Tells a policy what happens to requests.

    Args:
        policy: whom to tell.
        identity: finds out whose a request is.
        block_size: tokens per cached block; 0 when no prefix is ever found cached.
        longest: the most tokens of a prompt and its output together.
    """

    def __init__(self, policy: HostedPolicy, identity: Identity, *, block_size: int, longest: int) -> None:
        self.policy = policy
        self.admitted_requests: int = 0
        """Requests that are admitted and not finished."""
        self._identity = identity
        self._block_size = block_size
        self._longest = longest
        self._tracked: dict[str, Tracked] = {}
        self._ending: dict[str, Tracked] = {}
        """Turns of streaming sessions whose last output has not been seen yet, while the next one waits."""
        self._turns = 0

    def __len__(self) -> int:
        return len(self._tracked) + len(self._ending)

    def get(self, id: str) -> Tracked | None:
        """Return what is known of the request with that id of vLLM's."""
        return self._tracked.get(id)

    def engine_request(self, request: Request) -> EngineRequest:
        """Return vLLM's object for a request that the policy offers."""
        tracked = self._tracked.get(request.id) or self._tracked[request.id.partition(_TURN)[0]]
        return tracked.engine_request

    def arrived(self, engine_request: EngineRequest, *, blocked: bool = False) -> Tracked:
        """A request arrives, or the next turn of a session."""
        id = engine_request.request_id
        policy_id = id
        earlier = self._tracked.get(id)
        if earlier is not None:
            self._ending[id] = earlier
            self._turns += 1
            policy_id = f"{id}{_TURN}{self._turns}"
        request = self._describe(engine_request, policy_id)
        tracked = self._tracked[id] = Tracked(engine_request, request, request.client)
        self.policy.arrive(request)
        if blocked:
            self.refused(tracked)
        return tracked

    def admitted(self, tracked: Tracked, computed: int) -> None:
        """A request was given memory; `computed` tokens of it were found in the cache."""
        standing = tracked.standing
        if standing is _ADMITTED:
            return
        if standing is _BLOCKED:
            self.ready(tracked)
        if standing is not _HELD:
            self.admitted_requests += 1
        tracked.standing = _ADMITTED
        request, reported = tracked.request, tracked.reported
        # Output that arrived after a preemption is part of what is computed again, but not of what was reported.
        most = request.input_tokens + reported
        extend = tracked.engine_request.num_tokens - computed
        self.policy.take(
            request.id,
            extend=1 if extend < 1 else min(extend, most),
            reserve=request.max_output - reported,
        )

    def refused(self, tracked: Tracked) -> None:
        """A queued request cannot be admitted yet: grammar, adapter limit, remote KV..."""
        tracked.standing = Standing.BLOCKED
        self.policy.defer(tracked.request.id, Refusal.BLOCKED)

    def ready(self, tracked: Tracked) -> None:
        """A refused request can be admitted again."""
        tracked.standing = Standing.QUEUED
        self.policy.unblock(tracked.request.id)

    def preempted(self, tracked: Tracked) -> None:
        """A running request lost its memory."""
        tracked.standing = Standing.HELD
        tracked.reported = tracked.output
        self.policy.preempt(tracked.request.id, output=tracked.output, keep_hold=True)

    def delivered(self, outputs: Iterable[StepOutputs]) -> None:
        """A step's output is on its way to the clients. O(requests in it)."""
        produced: dict[Client, int] = {}
        finished: list[tuple[str, Tracked]] = []
        find = self._find if self._ending else self._tracked.get
        already = produced.get
        for step in outputs:
            for output in step.outputs:
                tracked = find(output.request_id)
                if tracked is None:
                    continue
                count = len(output.new_token_ids)
                if count:
                    client = tracked.client
                    produced[client] = already(client, 0) + count
                    tracked.output += count
                if output.finish_reason is not None:
                    finished.append((output.request_id, tracked))
        if produced:
            self.policy.produced(produced)
        for id, tracked in finished:
            self._finish(id, tracked)

    def gone(self, ids: Iterable[str]) -> None:
        """Requests may have ended without any output: aborted, failed."""
        for id in ids:
            tracked = self._tracked.get(id)
            if tracked is not None and tracked.engine_request.is_finished():
                if id in self._ending:
                    self._finish(id, self._ending[id])
                self._finish(id, tracked)

    def ids(self) -> list[str]:
        """Return the ids of all requests that are not finished."""
        return list(self._tracked)

    def _find(self, id: str) -> Tracked | None:
        """Return whose output comes under that id: an ending turn's before that of the next."""
        return self._ending.get(id) or self._tracked.get(id)

    def _finish(self, id: str, tracked: Tracked) -> None:
        if self._ending.get(id) is tracked:
            del self._ending[id]
        elif self._tracked.get(id) is tracked:
            del self._tracked[id]
        else:
            return
        self.admitted_requests -= tracked.standing in (Standing.ADMITTED, Standing.HELD)
        self.policy.finish(tracked.request.id, output=tracked.output)

    def _describe(self, engine_request: EngineRequest, policy_id: str) -> Request:
        prompt = max(engine_request.num_prompt_tokens, 1)
        return Request(
            id=policy_id,
            client=client_of(engine_request, self._identity),
            input_tokens=prompt,
            max_output=max(min(engine_request.max_tokens, self._longest - prompt), 1),
            blocks=self._blocks(engine_request, prompt),
        )

    def _blocks(self, engine_request: EngineRequest, prompt: int) -> tuple[int | bytes, ...]:
        """Return the hashes of the blocks that can be found cached: vLLM computes at least the last token."""
        if not self._block_size or getattr(engine_request, "skip_reading_prefix_cache", False):
            return ()
        return tuple(engine_request.block_hashes[: (prompt - 1) // self._block_size])


_TURN = "\n"
"""Stands in no id of a request that came over HTTP."""
