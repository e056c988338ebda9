"""SGLang's scheduler, as this adapter uses it: the differences between its versions end here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from attrs import frozen

from fairprefix.adapters.sglang.sharing import Sharing
from fairprefix.adapters.sglang.support import KEY, MATCH_PARAMS, SCHEDULE_POLICY, refuse
from fairprefix.adapters.sglang.views import Req
from fairprefix.core.bounds import Engine

_ROOM_BESIDE = 2
"""A chunked request, or one to which a streaming session lends its row, takes no new row."""
_ROOM_WHEN_FULL = 8
"""With priority preemption the next few may take the place of running requests."""


@frozen
class Ranks:
    """Which of several schedulers this is."""

    tensor: int
    data: int
    pipeline: int


class SchedulerView:
    """One `Scheduler` of SGLang.

    Args:
        scheduler: it.
        ranks: which of several it is.
    """

    def __init__(self, scheduler: Any, ranks: Ranks) -> None:
        self._scheduler = scheduler
        self.ranks = ranks
        module = import_module(SCHEDULE_POLICY)
        self._cached_tokens = _question()
        self._tree = scheduler.tree_cache
        self._shares = not getattr(self._tree, "disable", False)
        self._lends_rows = bool(getattr(scheduler.server_args, "enable_streaming_session", False))
        self.output_estimate: int = module.CLIP_MAX_NEW_TOKENS
        """SGLang reckons with at most so many output tokens of a request when it admits it."""
        self.sharing: Sharing | None = _sharing(module) if self._shares else None

    @property
    def waiting(self) -> list[Req]:
        """The list of waiting requests; SGLang makes a new one in each step."""
        waiting: list[Req] = self._scheduler.waiting_queue
        return waiting

    def matched(self, req: Req) -> int:
        """Ask the tree how many tokens of a waiting request are cached, on the device or the host."""
        return self._cached_tokens(req, self._tree) if self._shares else 0

    def room(self, running: Any) -> int:
        """Return how many requests could be admitted at most."""
        scheduler = self._scheduler
        allocatable = scheduler.get_num_allocatable_reqs(len(running.reqs) if running is not None else 0)
        room = max(int(allocatable), 0)
        if self._lends_rows or scheduler.chunked_req is not None:
            room += _ROOM_BESIDE
        return max(room, _ROOM_WHEN_FULL) if scheduler.enable_priority_preemption else room

    @property
    def budget(self) -> int:
        """Tokens that a prefill step can compute at most."""
        chunk = self._scheduler.chunked_prefill_size
        most: int = self._scheduler.max_prefill_tokens
        return most if chunk is None or chunk <= 0 else min(most, chunk)

    @property
    def skips(self) -> bool:
        """Whether SGLang may pass over a candidate: a LoRA adapter without room, a prefix still being fetched."""
        return bool(self._scheduler.enable_lora or self._scheduler.enable_hicache_storage)

    @property
    def metrics_enabled(self) -> bool:
        """Whether SGLang exports metrics, and this scheduler is one of those that write them."""
        enabled = getattr(self._scheduler.server_args, "enable_metrics", False)
        return bool(enabled) and self.ranks.tensor == 0

    @property
    def limits(self) -> Engine:
        """What a bound depends on."""
        scheduler = self._scheduler
        return Engine(
            reservation="none",
            # An engine that stores a token one step after producing it holds one more for each request.
            kv_tokens=max(scheduler.max_total_num_tokens + scheduler.max_running_requests, 2),
            max_running=scheduler.max_running_requests,
            longest_input=scheduler.max_req_input_len,
            longest_output=max(scheduler.max_req_len - 1, 1),
        )

    def check(self) -> None:
        """Refuse what this adapter cannot charge exactly.

        Raises:
            SystemExit: naming the setting.
        """
        scheduler = self._scheduler
        mode = getattr(scheduler.disaggregation_mode, "value", scheduler.disaggregation_mode)
        if mode not in (None, "null"):
            refuse(
                f"--disaggregation-mode {mode} is not supported: requests leave a scheduler between their steps"
            )
        if getattr(scheduler.server_args, "pp_size", 1) > 1:
            refuse("--pp-size above 1 is not supported: pipeline ranks learn of outputs at different steps")
        if getattr(scheduler, "dllm_config", None) is not None:
            refuse("diffusion language models are not supported: they are admitted on another path")


def ranks_of(arguments: Mapping[str, Any]) -> Ranks:
    """Return which scheduler this is.

    Args:
        arguments: what the scheduler was made with; newer versions of SGLang keep the ranks elsewhere.
    """
    source = arguments
    if "tp_rank" not in source:
        parallel = import_module("sglang.srt.runtime_context").get_parallel()
        source = {name: getattr(parallel, name, None) for name in ("tp_rank", "dp_rank", "pp_rank")}
    return Ranks(*(int(source.get(name) or 0) for name in ("tp_rank", "dp_rank", "pp_rank")))


def arguments_of(function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call by the names of the parameters."""
    return dict(inspect.signature(function).bind(*args, **kwargs).arguments)


def _question() -> Callable[[Req, Any], int]:
    """Return what asks a tree about a request: its public look-up, which leaves the request as it is."""
    params, make_key = _class(MATCH_PARAMS), _class(KEY)
    salted = "cache_salt" in inspect.signature(make_key.__init__).parameters

    def ask(req: Any, tree: Any) -> int:
        tokens = req.origin_input_ids + req.output_ids if req.output_ids else req.origin_input_ids
        key = make_key(token_ids=tokens, extra_key=req.extra_key)
        if salted:
            key.cache_salt = req.cache_salt
        found = tree.match_prefix(params(key=key))
        device = found.device_prefix_len if hasattr(found, "device_prefix_len") else len(found.device_indices)
        return min(int(device + found.host_hit_length), len(tokens) - 1)

    return ask


def _class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)


def _sharing(module: Any) -> Sharing | None:
    check = module.IN_BATCH_PREFIX_CACHING_CHECK_THRESHOLD
    if check < 0:
        return None
    return Sharing(check, module.IN_BATCH_PREFIX_CACHING_DEPRIORITIZE_THRESHOLD)
