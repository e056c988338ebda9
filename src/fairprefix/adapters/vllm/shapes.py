"""The few things of vLLM that the adapter touches, as protocols: what has to stay as it is for the adapter to work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from fairprefix.core.request import BlockHash


class Status(Protocol):
    """A member of `vllm.v1.request.RequestStatus`; only names are compared, numbers change between versions."""

    @property
    def name(self) -> str:
        """Its name."""
        ...


class EngineRequest(Protocol):
    """`vllm.v1.request.Request`."""

    request_id: str
    status: Status
    num_prompt_tokens: int
    num_computed_tokens: int
    max_tokens: int
    block_hashes: Sequence[BlockHash]
    """One per full block, growing as output is produced."""
    sampling_params: Any
    lora_request: Any

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
    finish_reason: Any


class StepOutputs(Protocol):
    """`vllm.v1.engine.EngineCoreOutputs`."""

    outputs: Sequence[RequestOutput]


class BlockPool(Protocol):
    """`vllm.v1.core.block_pool.BlockPool`; typed loosely where it is wrapped."""

    cached_block_hash_to_block: Any
    cache_full_blocks: Any

    def get_cached_block(self, block_hash: BlockHash, kv_cache_group_ids: list[int]) -> object | None:
        """Return the block with that hash, or None. Changes nothing."""
        ...


class EngineScheduler:
    """`vllm.v1.core.sched.scheduler.Scheduler`, for the type checker: the public methods that are extended."""

    vllm_config: Any
    scheduler_config: Any
    kv_cache_manager: Any
    kv_cache_config: Any
    lora_config: Any
    requests: Mapping[str, EngineRequest]
    running: Sequence[EngineRequest]
    waiting: Any
    finished_req_ids: Iterable[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...  # noqa: ANN401 (whatever this version takes)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Plan one step; returns a `StepPlan`."""

    def update_from_output(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Take in the results of a step; returns `StepOutputs` by front-end."""

    def finish_requests(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Abort requests."""

    def reset_prefix_cache(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        """Forget everything that is cached."""


WAITING, RUNNING, PREEMPTED = "WAITING", "RUNNING", "PREEMPTED"
WAITS_FOR_KV = "WAITING_FOR_REMOTE_KVS"
WAITS_FOR_INPUT = "WAITING_FOR_STREAMING_REQ"
