"""Can a request that was set aside be admitted now? Looked up without side effects, before it is offered."""

from __future__ import annotations

from fairprefix.adapters.vllm.shapes import (
    PREEMPTED,
    WAITING,
    WAITS_FOR_INPUT,
    WAITS_FOR_KV,
    EngineRequest,
    Theirs,
)


class Readiness:
    """Looks up readiness in a scheduler.

    Args:
        scheduler: vLLM's.
    """

    def __init__(self, scheduler: Theirs) -> None:
        self._scheduler = scheduler
        self._seats = int(getattr(scheduler, "max_num_active_reqs", scheduler.max_num_running_reqs))

    def seats_left(self) -> bool:
        """Return whether one more request may run; False only if it surely may not."""
        return len(self._scheduler.running) < self._seats

    def of(self, request: EngineRequest) -> bool:
        """Return whether a request can be admitted, as far as it can be told; False only if it surely cannot."""
        status = request.status.name
        if status in (WAITING, PREEMPTED):
            return self._adapter_fits(request)
        if status == WAITS_FOR_KV:
            return request.request_id in self._scheduler.finished_recving_kv_req_ids
        if status == WAITS_FOR_INPUT:
            return False
        # What is left is a grammar being compiled. A failed one counts as ready: the scheduler refuses it then.
        structured: Theirs = getattr(request, "structured_output_request", None)
        return structured is None or structured.grammar is not None

    def _adapter_fits(self, request: EngineRequest) -> bool:
        limits = self._scheduler.lora_config
        if not limits or not request.lora_request:
            return True
        loaded = {
            running.lora_request.lora_int_id
            for running in self._scheduler.running
            if running.lora_request and running.lora_request.lora_int_id > 0
        }
        return len(loaded) < limits.max_loras or request.lora_request.lora_int_id in loaded
