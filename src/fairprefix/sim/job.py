"""What the virtual engine is made of: its parameters, a request on its way through, and who watches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

from attrs import define, frozen

from fairprefix.core.config import RESERVATIONS
from fairprefix.core.errors import FairprefixError, at_least, one_of
from fairprefix.core.request import Client, Request
from fairprefix.sim.kvcache import Holding
from fairprefix.sim.trace import TraceRequest

Arrivals = deque[tuple[int, TraceRequest]]
"""Requests that have not arrived yet, each with its number."""


class OversizeError(FairprefixError, ValueError):
    """A request can never fit into the KV memory."""


class StalledError(FairprefixError):
    """Requests wait, nothing runs, and the policy offers nobody that fits."""


@frozen(kw_only=True)
class EngineConfig:
    """The engine's own parameters.

    Raises:
        ConfigError: a value is outside its range.
    """

    kv_tokens: int
    """M: size of the KV memory."""
    max_batch: int = 256
    """N: the most requests that run at once."""
    chunk: int = 2048
    """The most tokens (prefill and decode) that one step computes."""
    reservation: str = "full"
    """`full`: a request is admitted when its prompt and its longest output fit. `none`: when its prompt and one
    token fit; the youngest request is preempted when memory runs out, and computed again later."""
    pass_interval: int = 10
    """Steps after which a scheduling pass is made although nothing has happened."""
    lookahead: int = 16
    """Refusals for lack of room after which a pass ends."""
    predict: str = "limit"
    """What a policy is told that a request may still produce when it is admitted: its longest output (`limit`), or
    what finished requests of its client have produced on average (`average`)."""
    oversize: str = "error"
    """What to do with a request that can never fit: `error`, or `reject` and count it."""

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        for name in ("kv_tokens", "max_batch", "chunk", "pass_interval", "lookahead"):
            at_least(name, getattr(self, name), 1)
        one_of("reservation", self.reservation, RESERVATIONS)
        one_of("predict", self.predict, ("limit", "average"))
        one_of("oversize", self.oversize, ("error", "reject"))


class Observer(Protocol):
    """Who wants to know what happens; times are nanoseconds of virtual time."""

    def queued(self, client: Client, at: int, change: int) -> None:
        """`change` (+1 or -1) requests of a client wait more than before."""
        ...

    def admitted(self, job: Job, at: int, *, extend: int, charged: int, again: bool) -> None:
        """A request starts (`again`: after a preemption) with `extend` tokens to compute."""
        ...

    def produced(self, tokens: dict[Client, int], at: int) -> None:
        """Output tokens were produced."""
        ...

    def preempted(self, job: Job) -> None:
        """A request has lost its memory, and is queued again."""
        ...

    def finished(self, job: Job) -> None:
        """A request has produced its last token."""
        ...

    def rejected(self, request: TraceRequest) -> None:
        """A request can never fit."""
        ...


@define(eq=False)
class Job:
    """One request on its way through the engine."""

    trace: TraceRequest
    request: Request
    holding: Holding | None = None
    admissions: int = 0
    context: int = 0
    """Its tokens in KV memory."""
    to_prefill: int = 0
    """Tokens that have to be computed before it produces its next token."""
    produced: int = 0
    admitted_ns: int = -1
    first_token_ns: int = -1
    finished_ns: int = -1
    cached_tokens: int = 0
    """Cached prefix at its first admission."""

    @classmethod
    def of(cls, number: int, trace: TraceRequest) -> Job:
        """Return a request of a trace as it arrives; its number is its id."""
        return cls(
            trace,
            Request(str(number), trace.client, trace.input_tokens, trace.max_output_tokens, trace.blocks),
        )


def admissible(
    requests: Sequence[TraceRequest], config: EngineConfig, observer: Observer
) -> Iterable[tuple[int, TraceRequest]]:
    """Yield the requests that can fit, each with its number; reject the others or raise `OversizeError`."""
    for number, request in enumerate(requests):
        # One more: the last token of a prompt that is cached as a whole is computed again.
        needed = request.input_tokens + request.max_output_tokens + 1
        if needed <= config.kv_tokens:
            yield number, request
        elif config.oversize == "reject":
            observer.rejected(request)
        else:
            raise OversizeError(
                f"request {number} needs {needed} tokens ({request.input_tokens} in, at most "
                f"{request.max_output_tokens} out, and one), the KV pool holds {config.kv_tokens}: "
                "give a larger pool (--kv-tokens), or leave such requests out (--oversize reject)"
            )
