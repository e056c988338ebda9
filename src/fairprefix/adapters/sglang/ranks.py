"""Which data-parallel rank of an SGLang server gets a request: `routed_dp_rank`, which its controller obeys.

Off unless FAIRPREFIX_RANK_ROUTER is set (`fairprefix.hosting.ranks`) and the server has several ranks. The choice
is made where requests are tokenised: there the prompt is known as tokens, and the end of a request is seen.
"""

from __future__ import annotations

import logging
from array import array
from collections.abc import Container
from importlib import import_module
from time import monotonic_ns
from typing import Any

from fairprefix.adapters.sglang.support import refuse
from fairprefix.core.router_config import RouterConfig
from fairprefix.hosting.identity import DEFAULT_CLIENT
from fairprefix.hosting.ranks import RANKS_VARIABLE, RankRouter

logger: logging.Logger = logging.getLogger("fairprefix.sglang")

MANAGER = "sglang.srt.managers.tokenizer_manager.TokenizerManager"
TARGETS = {
    f"{MANAGER}._send_one_request": ("self", "tokenized_obj"),
    f"{MANAGER}._send_batch_request": ("self", "tokenized_objs"),
    f"{MANAGER}._handle_batch_output": ("self", "recv_obj"),
}
"""What is hooked, and how its parameters have to begin."""
_TOKEN_BYTES = 8
_SWEEP = 64
"""Picks between two looks for requests that are gone."""


def check_rank_field() -> None:
    """Refuse an SGLang whose requests cannot name their rank.

    Raises:
        SystemExit: it is older than 0.5.22.
    """
    request = import_module("sglang.srt.managers.io_struct").TokenizedGenerateReqInput
    fields: Container[str] = (
        getattr(request, "__dataclass_fields__", None) or getattr(request, "__struct_fields__", None) or ()
    )
    if "routed_dp_rank" not in fields:
        refuse(f"{RANKS_VARIABLE} needs SGLang 0.5.22 or newer: requests of this one cannot name their rank")


class RankHooks:
    """The hooks of the process that tokenises.

    Args:
        config: of the routing policy.
    """

    def __init__(self, config: RouterConfig) -> None:
        self._config = config
        self._router: RankRouter | None = None
        self._picks = 0
        self._broken = False
        """The hook itself failed: SGLang is left alone."""

    def sending(self, manager: Any, tokenized_obj: Any) -> None:
        """Before `TokenizerManager._send_one_request`: choose the rank."""
        if self._broken:
            return
        try:
            self._choose(manager, tokenized_obj)
        except Exception as problem:  # noqa: BLE001 (whatever it is, the engine must go on)
            self._broken = True
            _give_up(problem)

    def sending_batch(self, manager: Any, tokenized_objs: Any) -> None:
        """Before `TokenizerManager._send_batch_request`: choose the rank of each."""
        for one in tokenized_objs:
            self.sending(manager, one)

    def received(self, _manager: Any, recv_obj: Any) -> None:
        """Before `TokenizerManager._handle_batch_output`: count output, settle what is finished."""
        router = self._router
        counts = getattr(recv_obj, "completion_tokens", None)
        if router is None or counts is None:
            return
        for id, count, reason in zip(recv_obj.rids, counts, recv_obj.finished_reasons, strict=False):
            router.produced(id, count)
            if reason is not None:
                router.done(id)

    def _choose(self, manager: Any, tokenized_obj: Any) -> None:
        router = self._router_of(manager)
        if router is None or getattr(tokenized_obj, "routed_dp_rank", None) is not None:
            return
        ids = getattr(tokenized_obj, "input_ids", None)
        if ids is None or not hasattr(tokenized_obj, "routed_dp_rank"):
            return  # embeddings given as such, or no generation
        self._sweep(manager, router)
        names = (getattr(tokenized_obj, name, None) for name in ("lora_id", "extra_key", "cache_salt"))
        rank = router.pick(
            tokenized_obj.rid,
            getattr(tokenized_obj, "routing_key", None) or DEFAULT_CLIENT,
            array("q", ids).tobytes(),
            bytes_per_token=_TOKEN_BYTES,
            max_output=getattr(tokenized_obj.sampling_params, "max_new_tokens", None) or 1,
            namespace="\0".join(map(str, names)),
            now_ns=monotonic_ns(),
        )
        if rank is not None:
            tokenized_obj.routed_dp_rank = rank

    def _router_of(self, manager: Any) -> RankRouter | None:
        if self._router is None:
            ranks = getattr(manager.server_args, "dp_size", 1)
            if ranks > 1:
                self._router = RankRouter(self._config, ranks, _give_up)
        return self._router

    def _sweep(self, manager: Any, router: RankRouter) -> None:
        """Settle what ended without an output, such as what was aborted while it waited."""
        self._picks += 1
        if self._picks % _SWEEP == 0:
            router.gone(manager.rid_to_state.__contains__)


def _give_up(problem: Exception) -> None:
    logger.error("fairprefix failed, SGLang chooses ranks itself: %r", problem, exc_info=problem)
