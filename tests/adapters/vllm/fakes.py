"""The few things of vLLM that the adapter touches, as small as they can be."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from types import SimpleNamespace
from typing import Any

from attrs import define, field

from fairprefix import DLPM, HostContract, PolicyConfig
from fairprefix.adapters.vllm.client import engine_identity
from fairprefix.adapters.vllm.queue import PolicyQueue
from fairprefix.adapters.vllm.translator import Translator
from fairprefix.core.policy import Policy
from fairprefix.core.prefixes import Prefixes
from fairprefix.hosting import HostedPolicy


class Status(Enum):
    """Of a request."""

    WAITING = 1
    WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR = 2
    WAITING_FOR_REMOTE_KVS = 3
    RUNNING = 4
    PREEMPTED = 5
    FINISHED_ABORTED = 6


@define(eq=False, slots=False)
class FakeRequest:
    """A request as vLLM has it."""

    request_id: str
    client: str = "a"
    num_prompt_tokens: int = 10
    max_tokens: int = 5
    status: Status = Status.WAITING
    num_computed_tokens: int = 0
    output: int = 0
    block_hashes: Sequence[bytes] = ()
    lora_request: Any = None
    sampling_params: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.sampling_params = SimpleNamespace(extra_args={"fairprefix_client": self.client})

    @property
    def num_tokens(self) -> int:
        """Prompt and output."""
        return self.num_prompt_tokens + self.output

    def is_finished(self) -> bool:
        """Whether the engine is done with it."""
        return self.status is Status.FINISHED_ABORTED


def output_of(request: FakeRequest, tokens: int, *, finished: bool = False) -> Any:  # noqa: ANN401 (as vLLM has it)
    """Return a step's output for a request."""
    request.output += tokens
    return SimpleNamespace(
        outputs=[
            SimpleNamespace(
                request_id=request.request_id,
                new_token_ids=[7] * tokens,
                finish_reason="stop" if finished else None,
            )
        ]
    )


class Desk:
    """A queue with a real policy behind it, and an engine that does what it is told."""

    def __init__(self, policy: Policy | None = None, **settings: Any) -> None:  # noqa: ANN401
        config = PolicyConfig(**{"gate": "credit", "reservation": "none", "quantum": 20, **settings})
        self.contract = HostContract(policy or DLPM(config))

        def make(_config: PolicyConfig, _prefixes: Prefixes | None) -> Policy:
            return self.contract

        self.problems: list[Exception] = []
        self.policy = HostedPolicy(config, make=make, on_error=self.problems.append)
        self.translator = Translator(self.policy, engine_identity(config.identity), block_size=0, longest=1000)
        self.not_ready: set[str] = set()
        self.seats = 100
        self.running: list[FakeRequest] = []
        self.queue = PolicyQueue(
            self.translator,
            lambda request: request.request_id not in self.not_ready,
            lambda: len(self.running) < self.seats,
        )

    def add(self, *requests: FakeRequest) -> None:
        """Let requests arrive."""
        for request in requests:
            self.queue.add_request(request)

    def step(self, most: int = 100, skip: Sequence[str] = (), cached: int = 0) -> list[str]:
        """Plan a step as vLLM does; return who was admitted, in order."""
        admitted: list[FakeRequest] = []
        skipped: list[FakeRequest] = []
        self.queue.begin_pass()
        while len(admitted) < most and self.queue:
            request = self.queue.peek_request()
            assert isinstance(request, FakeRequest)
            assert self.queue.pop_request() is request
            if request.request_id in skip:
                skipped.append(request)
                continue
            request.status, request.num_computed_tokens = Status.RUNNING, cached
            self.running.append(request)
            admitted.append(request)
        for request in reversed(skipped):
            self.queue.prepend_request(request)
        for request in admitted:  # vLLM counts the step in before it returns
            request.num_computed_tokens = request.num_tokens
        self.queue.end_pass(lambda _request: cached)
        return [request.request_id for request in admitted]

    def preempt(self, request: FakeRequest) -> None:
        """Take a running request's memory."""
        self.running.remove(request)
        request.status, request.num_computed_tokens = Status.PREEMPTED, 0
        self.queue.prepend_request(request)

    def deliver(self, request: FakeRequest, tokens: int, *, finished: bool = False) -> None:
        """Produce output of one request."""
        self.translator.delivered([output_of(request, tokens, finished=finished)])
        if finished and request in self.running:
            self.running.remove(request)

    def abort(self, request: FakeRequest) -> None:
        """Abort a request."""
        if request in self.running:
            self.running.remove(request)
        else:
            self.queue.remove_requests([request])
        request.status = Status.FINISHED_ABORTED
        self.translator.gone([request.request_id])

    def service(self) -> dict[str, int]:
        """Return what each client was charged."""
        return self.policy.figures.service()

    def close(self) -> None:
        """Check that nothing is left."""
        assert not self.problems
        self.contract.close()
        assert len(self.translator) == len(self.queue) == self.policy.live == 0
        assert self.translator.admitted_requests == 0
