"""SGLang's own scheduling policy, trees and requests, made without a server, in every supported version."""

from __future__ import annotations

import inspect
import random
from array import array
from importlib import import_module
from types import SimpleNamespace
from typing import Any

from sglang.srt.managers import schedule_policy
from sglang.srt.managers.schedule_batch import Req
from sglang.srt.managers.schedule_policy import SchedulePolicy
from sglang.srt.mem_cache import base_prefix_cache
from sglang.srt.mem_cache.radix_cache import RadixCache, RadixKey
from sglang.srt.sampling.sampling_params import SamplingParams

from fairprefix.adapters.sglang.engine import Ranks, SchedulerView
from fairprefix.adapters.sglang.hooks import ATTACHED, Attached, SchedulerHooks
from fairprefix.core.config import PolicyConfig

ARRAYS = "array" in str(inspect.signature(Req.__init__).parameters["origin_input_ids"].annotation)
"""Newer versions keep token ids in arrays, older ones in lists."""


def configure() -> None:
    """Publish the configuration that newer versions read everywhere."""
    try:
        context = import_module("sglang.srt.runtime_context").get_context()
    except ImportError:
        return
    context.override_server_args(device="cpu").install()


def tokens(ids: list[int]) -> Any:
    """Return token ids as this version keeps them."""
    return array("q", ids) if ARRAYS else ids


def prompt(seed: int, length: int) -> list[int]:
    """Return random token ids."""
    rng = random.Random(seed)
    return [rng.randrange(30_000) for _ in range(length)]


def request(rid: str, ids: list[int], client: str | None = None, output: int = 64) -> Any:
    """Return a request of this version."""
    params = SamplingParams(max_new_tokens=output)
    return Req(rid, "", tokens(ids), params, routing_key=client)


def legacy_tree() -> Any:
    """Return the tree that all versions have."""
    return RadixCache.create_simulated()


def unified_tree(core: str) -> Any:
    """Return the tree of version 0.5.23, with its core in Rust (the default) or in Python."""
    import torch
    from sglang.srt.mem_cache.allocator import TokenToKVPoolAllocator
    from sglang.srt.mem_cache.cache_init_params import CacheInitParams
    from sglang.srt.mem_cache.memory_pool import ReqToTokenPool
    from sglang.srt.mem_cache.unified_cache.components import ComponentType
    from sglang.srt.mem_cache.unified_radix_cache import UnifiedRadixCache

    envs = import_module("sglang.srt.environ").envs
    with envs.SGLANG_UNIFIED_RADIX_TREE_CORE_BACKEND.override(core):
        return UnifiedRadixCache(
            CacheInitParams(
                disable=False,
                req_to_token_pool=ReqToTokenPool(16, 8192, "cpu", enable_memory_saver=False),
                token_to_kv_pool_allocator=TokenToKVPoolAllocator(
                    500_000, torch.bfloat16, "cpu", None, need_sort=False
                ),
                page_size=1,
                tree_components=(ComponentType.FULL,),
            )
        )


def insert(tree: Any, ids: list[int], namespace: str | None = None) -> None:
    """Put a prefix into the tree."""
    import torch

    allocator = getattr(tree, "token_to_kv_pool_allocator", None)
    value = allocator.alloc(len(ids)) if allocator else torch.arange(len(ids), dtype=torch.int64)
    key = RadixKey(token_ids=tokens(ids), extra_key=namespace)
    tree.insert(base_prefix_cache.InsertParams(key=key, value=value))


def schedule(tree: Any, policy: str = "lpm") -> Any:
    """Return SGLang's own policy over a tree."""
    return SchedulePolicy(policy, tree, *[False] * 3)


def stock_order(tree: Any, waiting: list[Any]) -> list[str]:
    """Return the order of SGLang's LPM, however many wait."""
    policy = schedule(tree)
    policy._determine_active_policy = lambda _queue: policy.policy
    queue = list(waiting)
    policy.calc_priority(queue, None)
    return [req.rid for req in queue]


class Scheduler:
    """As much of a scheduler as its policy can see: the list of waiting requests, the room, the budget."""

    def __init__(self, tree: Any, *, room: int = 16, budget: int = 16_384, policy: str = "lpm") -> None:
        self.tree_cache = tree
        self.policy = schedule(tree, policy)
        self.waiting_queue: list[Any] = []
        self.max_prefill_tokens = budget
        self.chunked_prefill_size: int | None = None
        self.chunked_req: Any = None
        self.enable_priority_preemption = self.enable_lora = self.enable_hicache_storage = False
        self.max_total_num_tokens, self.max_running_requests = 500_000, 256
        self.max_req_input_len, self.max_req_len = 8_000, 8_192
        self.disaggregation_mode, self.dllm_config = None, None
        self.server_args = SimpleNamespace(enable_metrics=False, pp_size=1)
        self._room = room

    def get_num_allocatable_reqs(self, _running: int) -> int:
        """Return the room."""
        return self._room

    def add(self, *reqs: Any) -> None:
        """Queue requests as the real scheduler does, then call the hook."""
        for req in reqs:
            self.waiting_queue.append(req)
            SchedulerHooks.queued(None, self, req)

    def attach(self, config: PolicyConfig, **hooks: Any) -> Attached:
        """Give the scheduler a policy of ours."""
        attached = SchedulerHooks(config, **hooks).attach(SchedulerView(self, Ranks(0, 0, 0)))
        setattr(self, ATTACHED, attached)
        setattr(self.policy, ATTACHED, attached)
        return attached

    def order(self) -> list[str]:
        """Return the ids in the order of this pass, as the hook leaves the list."""
        SchedulerHooks.order(type(self.policy).calc_priority, self.policy, self.waiting_queue, None)
        order = [req.rid for req in self.waiting_queue]
        getattr(self, ATTACHED).bridge.restore()
        return order

    def admit(self, count: int, *, chunk: int | None = None) -> list[str]:
        """Order, and admit the first few of the list, the way the real scheduler rebuilds it."""

        def batch(scheduler: Scheduler) -> Any:
            scheduler.policy_hooked()
            chosen = scheduler.waiting_queue[:count]
            taken = set(chosen)
            scheduler.waiting_queue = [req for req in scheduler.waiting_queue if req not in taken]
            cached = [scheduler.view.matched(req) for req in chosen]
            lengths = [len(req.origin_input_ids) + len(req.output_ids) for req in chosen]
            extend = [min(a - b, chunk or a) for a, b in zip(lengths, cached, strict=True)]
            return SimpleNamespace(reqs=chosen, prefix_lens=cached, extend_lens=extend, decoding_reqs=None)

        batch_made = SchedulerHooks.new_batch(batch, self)
        return [req.rid for req in batch_made.reqs]

    @property
    def view(self) -> SchedulerView:
        """Return our view of it."""
        return SchedulerView(self, Ranks(0, 0, 0))

    def policy_hooked(self) -> None:
        """Call `calc_priority` as the plugin has it."""
        SchedulerHooks.order(type(self.policy).calc_priority, self.policy, self.waiting_queue, None)


def thresholds() -> tuple[int, int]:
    """Return SGLang's thresholds of in-batch prefix sharing."""
    return (
        schedule_policy.IN_BATCH_PREFIX_CACHING_CHECK_THRESHOLD,
        schedule_policy.IN_BATCH_PREFIX_CACHING_DEPRIORITIZE_THRESHOLD,
    )
