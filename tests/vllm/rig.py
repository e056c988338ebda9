"""One of vLLM's real schedulers without a model: plans are carried out by drawing tokens.

The scheduler, its KV cache and its requests are vLLM's own, of whatever version is imported. Only the
configuration that it reads is put together by hand, since building a real one needs a model; a setting that is not
named in here reads as None.
"""

from __future__ import annotations

import inspect
import random
from collections import deque
from typing import Any

import torch
from vllm.sampling_params import SamplingParams
from vllm.v1.core import kv_cache_utils
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.outputs import DraftTokenIds, ModelRunnerOutput
from vllm.v1.request import Request, RequestStatus

try:
    from vllm.utils.hashing import sha256
except ImportError:  # 0.11
    from vllm.utils import sha256

LONGEST = 4096
BLOCK = 16

kv_cache_utils.init_none_hash(sha256)


class Settings:
    """A configuration object: what was given, and None for everything else."""

    def __init__(self, **given: object) -> None:
        self.__dict__.update(given)

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class Grammars:
    """Stands for the structured output manager of a server without any grammars."""

    def should_advance(self, _request: object) -> bool:
        """No request has a grammar."""
        return False

    def accept_tokens(self, *_: object) -> bool:
        """Without a grammar every token is fine."""
        return True

    def validate_tokens(self, _request: object, tokens: list[int]) -> list[int]:
        """Without a grammar every draft is fine."""
        return tokens


def settings(
    *,
    asynchronous: bool = False,
    seats: int = 8,
    budget: int = 256,
    blocks: int = 400,
    drafts: int = 0,
    caching: bool = True,
    fairprefix: dict[str, Any] | None = None,
    policy: str = "fcfs",
    transfer: Settings | None = None,
) -> Settings:
    """Return a configuration of vLLM: as many running requests, tokens a step and KV blocks.

    `transfer` stands for `--kv-transfer-config`.
    """
    speculation = None
    if drafts:
        speculation = Settings(
            num_speculative_tokens=drafts,
            method="ngram",
            use_eagle=lambda: False,
            use_eagle_block_drop=lambda: False,
            needs_eagle_block_drop=lambda: False,
            uses_draft_model=lambda: False,
            use_dflash=lambda: False,
            use_dspark=lambda: False,
            max_num_new_slots_for_drafting=0,
            parallel_drafting=False,
        )
    return Settings(
        additional_config={"fairprefix": fairprefix} if fairprefix is not None else {},
        scheduler_config=Settings(
            policy=policy,
            async_scheduling=asynchronous,
            max_num_seqs=seats,
            max_num_batched_tokens=budget,
            max_num_encoder_input_tokens=0,
            encoder_cache_size=0,
            max_model_len=LONGEST,
            long_prefill_token_threshold=0,
            long_prefill_token_threshold_adaptive=False,
            enable_chunked_prefill=True,
            chunked_prefill_enabled=True,
            disable_hybrid_kv_cache_manager=False,
            scheduler_reserve_full_isl=False,
            watermark=0.0,
            prefill_schedule_interval=1,
        ),
        cache_config=Settings(
            num_gpu_blocks=blocks, block_size=BLOCK, enable_prefix_caching=caching, mamba_cache_mode="none"
        ),
        parallel_config=Settings(
            pipeline_parallel_size=1,
            decode_context_parallel_size=1,
            prefill_context_parallel_size=1,
            data_parallel_rank=0,
            data_parallel_rank_local=0,
            data_parallel_index=0,
            data_parallel_size=1,
        ),
        model_config=Settings(
            max_model_len=LONGEST,
            is_encoder_decoder=False,
            is_multimodal_model=False,
            supports_multimodal_inputs=False,
            runner_type="generate",
            is_diffusion=False,
            uses_mrope=False,
            is_hybrid=False,
            enable_return_routed_experts=False,
            return_sampling_mask=False,
        ),
        observability_config=Settings(per_request_spec_decode_metrics="none", kv_cache_metrics=False),
        aux_output_config=Settings(enabled=False),
        ec_manager_config=Settings(get_encoder_cache_manager_obj=lambda: None),
        speculative_config=speculation,
        kv_transfer_config=transfer,
        num_speculative_tokens=drafts,
        num_lookahead_tokens=0,
        num_prefill_lookahead_tokens=0,
        max_in_flight_tokens=budget,
        max_concurrent_batches=2 if asynchronous else 1,
        use_v2_model_runner=False,
    )


def make_scheduler(make: Any, config: Settings) -> Any:  # noqa: ANN401 (vLLM's types vary)
    """Return a scheduler; `make` is called as vLLM calls it."""
    spec = call(
        FullAttentionSpec, block_size=BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32, use_mla=False
    )
    blocks = config.cache_config.num_gpu_blocks  # type: ignore[attr-defined]
    wanted = {
        "vllm_config": config,
        "kv_cache_config": KVCacheConfig(
            num_blocks=blocks, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)]
        ),
        "structured_output_manager": Grammars(),
        "block_size": BLOCK,
        "include_finished_set": False,
        "log_stats": True,
    }
    return make(**_known(Scheduler, wanted))


def stock(config: Settings) -> Any:  # noqa: ANN401 (vLLM's types vary)
    """Return what makes vLLM's own scheduler for a configuration."""
    return AsyncScheduler if config.scheduler_config.async_scheduling else Scheduler  # type: ignore[attr-defined]


def make_request(id: str, prompt: list[int], longest_output: int, client: object = None, **more: object) -> Any:  # noqa: ANN401
    """Return a request of vLLM's."""
    extra = {} if client is None else {"extra_args": {"fairprefix_client": client}}
    params = SamplingParams(max_tokens=longest_output, ignore_eos=True, **extra)
    usual = {
        "request_id": id,
        "prompt_token_ids": prompt,
        "sampling_params": params,
        "pooling_params": None,
        "eos_token_id": 2,
        "block_hasher": kv_cache_utils.get_request_block_hasher(BLOCK, sha256),
    }
    return call(Request, **{**usual, **more})


def call(make: Any, **wanted: object) -> Any:  # noqa: ANN401
    """Call with those arguments that this version knows."""
    return make(**_known(make, wanted))


def _known(make: Any, wanted: dict[str, object]) -> dict[str, object]:  # noqa: ANN401
    known = inspect.signature(make).parameters
    return {name: value for name, value in wanted.items() if name in known}


def abort(scheduler: Any, *ids: str) -> None:  # noqa: ANN401
    """Abort requests, as a server does when clients go away."""
    scheduler.finish_requests(list(ids), RequestStatus.FINISHED_ABORTED)


class Runner:
    """Carries out what a scheduler plans, `depth` steps behind it.

    Args:
        scheduler: vLLM's.
        seed: of the tokens that are drawn.
        depth: steps whose output is not there yet when the next one is planned; 1: asynchronous scheduling.
    """

    def __init__(self, scheduler: Any, *, seed: int = 0, depth: int = 0) -> None:  # noqa: ANN401
        self.scheduler = scheduler
        self.first_cached: dict[str, int] = {}
        """Cached tokens of each request at its first admission, by vLLM's own account."""
        self.delivered: dict[str, int] = {}
        """Output tokens of each request that were handed to its client."""
        self.admitted: list[str] = []
        """Ids in the order of first admission."""
        self.finished: set[str] = set()
        self.preemptions = 0
        self._random = random.Random(seed)  # noqa: S311 (to be repeatable is the point)
        self._depth = depth
        self._flying: deque[tuple[Any, ModelRunnerOutput]] = deque()

    def step(self) -> None:
        """Plan one step, and take in the output of the one that is `depth` behind it."""
        preempted = sum(request.status == RequestStatus.PREEMPTED for request in self.scheduler.requests.values())
        plan = self.scheduler.schedule()
        now = sum(request.status == RequestStatus.PREEMPTED for request in self.scheduler.requests.values())
        self.preemptions += max(now - preempted, 0)
        for new in plan.scheduled_new_reqs:
            if new.req_id not in self.first_cached:
                self.first_cached[new.req_id] = new.num_computed_tokens
                self.admitted.append(new.req_id)
        self._flying.append((plan, self._carry_out(plan)))
        while len(self._flying) > self._depth:
            self._take_in(*self._flying.popleft())

    def run(self, steps: int = 100_000) -> None:
        """Step until nothing is left to do."""
        for _ in range(steps):
            if not self.scheduler.has_unfinished_requests():
                break
            self.step()
        else:
            raise AssertionError(f"{len(self.scheduler.requests)} requests are left after {steps} steps")
        while self._flying:
            self._take_in(*self._flying.popleft())

    def _carry_out(self, plan: Any) -> ModelRunnerOutput:  # noqa: ANN401
        ids = list(plan.num_scheduled_tokens)
        sampled = [self._tokens(self.scheduler.requests[id], plan) for id in ids]
        return call(
            ModelRunnerOutput,
            req_ids=ids,
            req_id_to_index={id: i for i, id in enumerate(ids)},
            sampled_token_ids=sampled,
            logprobs=None,
            prompt_logprobs_dict={},
            prompt_token_id_logprobs_dict={},
            pooler_output=[],
        )

    def _tokens(self, request: Any, plan: Any) -> list[int]:  # noqa: ANN401
        drafts = len(plan.scheduled_spec_decode_tokens.get(request.request_id, ()))
        placeholders = getattr(request, "num_output_placeholders", 0)
        known = request.num_tokens + max(placeholders - 1 - drafts, 0)
        if request.num_computed_tokens < known:
            return []  # its prompt is not complete yet
        return [self._random.randrange(3, 1000) for _ in range(1 + self._random.randint(0, drafts))]

    def _take_in(self, plan: Any, output: ModelRunnerOutput) -> None:  # noqa: ANN401
        for step in self.scheduler.update_from_output(plan, output).values():
            for of_request in step.outputs:
                id = of_request.request_id
                self.delivered[id] = self.delivered.get(id, 0) + len(of_request.new_token_ids)
                if of_request.finish_reason is not None:
                    self.finished.add(id)
        count = self.scheduler.num_spec_tokens
        if count and not self._depth:  # with asynchronous scheduling drafts never leave the workers
            running = [request.request_id for request in self.scheduler.running]
            drafts = [
                [self._random.randrange(3, 1000) for _ in range(self.scheduler.num_spec_tokens)] for _ in running
            ]
            self.scheduler.update_draft_token_ids(DraftTokenIds(running, drafts))
