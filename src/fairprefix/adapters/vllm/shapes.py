"""The few things of vLLM that the adapter touches, as protocols: what has to stay as it is for it to work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

Theirs = Any
"""A value of vLLM's own, whose type differs between versions, or that is only passed on."""


class Status(Protocol):
    """A member of `vllm.v1.request.RequestStatus`; only names are compared, numbers change between versions."""

    @property
    def name(self) -> str:
        """Its name."""
        ...


class EngineRequest(Protocol):
    """`vllm.v1.request.Request`."""

    request_id: str
    num_prompt_tokens: int
    num_computed_tokens: int
    max_tokens: int
    block_hashes: Sequence[bytes]
    """One per full block, growing as output is produced."""
    sampling_params: Theirs
    lora_request: Theirs

    @property
    def status(self) -> Status:
        """Where it stands."""
        ...

    @property
    def num_tokens(self) -> int:
        """Prompt and output."""
        ...

    def is_finished(self) -> bool:
        """Whether the engine is done with it."""
        ...


class StepPlan(Protocol):
    """`vllm.v1.core.sched.output.SchedulerOutput`."""

    num_scheduled_tokens: Mapping[str, int]


class RequestOutput(Protocol):
    """`vllm.v1.engine.EngineCoreOutput`."""

    request_id: str
    new_token_ids: Sequence[int]
    finish_reason: Theirs


class StepOutputs(Protocol):
    """`vllm.v1.engine.EngineCoreOutputs`."""

    outputs: Sequence[RequestOutput]


class BlockPool(Protocol):
    """`vllm.v1.core.block_pool.BlockPool`; typed loosely where it is wrapped."""

    num_gpu_blocks: int
    cached_block_hash_to_block: Theirs
    """Has `get_one_block(key)`, and `pop(key, block_id)`, by which every eviction goes."""
    cache_full_blocks: Theirs


class EngineScheduler:
    """`vllm.v1.core.sched.scheduler.Scheduler`, for the type checker: the public methods that are extended."""

    vllm_config: Theirs
    scheduler_config: Theirs
    kv_cache_manager: Theirs
    kv_cache_config: Theirs
    lora_config: Theirs
    requests: Mapping[str, EngineRequest]
    running: Sequence[EngineRequest]
    waiting: Theirs
    finished_req_ids: Iterable[str]

    def __init__(self, *args: Theirs, **kwargs: Theirs) -> None: ...

    def schedule(self, *args: Theirs, **kwargs: Theirs) -> Theirs:
        """Plan one step; returns a `StepPlan`."""

    def update_from_output(self, *args: Theirs, **kwargs: Theirs) -> Theirs:
        """Take in the results of a step; returns `StepOutputs` by front-end."""

    def finish_requests(self, *args: Theirs, **kwargs: Theirs) -> Theirs:
        """Abort requests."""

    def reset_prefix_cache(self, *args: Theirs, **kwargs: Theirs) -> Theirs:
        """Forget everything that is cached."""


WAITING, RUNNING, PREEMPTED = "WAITING", "RUNNING", "PREEMPTED"
WAITS_FOR_KV = "WAITING_FOR_REMOTE_KVS"
WAITS_FOR_INPUT = "WAITING_FOR_STREAMING_REQ"
