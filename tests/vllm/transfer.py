"""A KV connector of vLLM's own kind: prompts are computed elsewhere, and their KV cache comes some steps later.

Only the scheduler's half: there is no model, so nothing is really carried over. Whoever carries out the steps says
which transfers are done, as vLLM's workers do.
"""

from __future__ import annotations

from typing import Any, ClassVar

from vllm.distributed.kv_transfer.kv_connector.v1 import base
from vllm.v1.outputs import KVConnectorOutput

from tests.vllm import rig

Bases: Any = tuple(getattr(base, name) for name in ("KVConnectorBase_V1", "SupportsHMA") if hasattr(base, name))
"""What this version knows of."""


class Transfers(*Bases):  # type: ignore[misc]
    """The scheduler's side of prefill/decode disaggregation."""

    made: ClassVar[list[Transfers]] = []

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 (they vary)
        super().__init__(*args, **kwargs)
        self.loading: list[str] = []
        self.sending: list[str] = []
        self.sends = bool(self._kv_transfer_config.is_kv_producer)
        self.made.append(self)

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int, bool]:  # noqa: ANN401
        """Decode: whatever full blocks of the prompt are not here come from the engine that has computed them."""
        if self.sends or request.num_preemptions:
            return 0, False
        elsewhere = (request.num_prompt_tokens - 1) // rig.BLOCK * rig.BLOCK - num_computed_tokens
        return max(elsewhere, 0), elsewhere > 0

    def update_state_after_alloc(self, request: Any, blocks: object, num_external_tokens: int) -> None:  # noqa: ANN401, ARG002
        """There is room for a prompt: begin to load it."""
        if num_external_tokens:
            self.loading.append(request.request_id)

    def request_finished(self, request: Any, block_ids: object) -> tuple[bool, None]:  # noqa: ANN401, ARG002
        """Prefill: keep the blocks until they have been fetched."""
        if self.sends:
            self.sending.append(request.request_id)
        return self.sends, None

    def request_finished_all_groups(self, request: Any, block_ids: object) -> tuple[bool, None]:  # noqa: ANN401
        """The same for several cache groups."""
        return self.request_finished(request, block_ids)

    def build_connector_meta(self, scheduler_output: object) -> base.KVConnectorMetadata:  # noqa: ARG002
        """Nothing has to be told to workers that do not exist."""
        return base.KVConnectorMetadata()

    def done(self) -> KVConnectorOutput:
        """Let the oldest transfer of either kind end."""
        received, self.loading = set(self.loading[:1]), self.loading[1:]
        sent, self.sending = set(self.sending[:1]), self.sending[1:]
        return KVConnectorOutput(finished_recving=received or None, finished_sending=sent or None)

    # The workers' half.

    def start_load_kv(self, *_: Any, **__: Any) -> None:  # noqa: ANN401, D102
        raise NotImplementedError

    wait_for_layer_load = save_kv_layer = wait_for_save = start_load_kv


def settings(role: str) -> rig.Settings:
    """Return vLLM's `--kv-transfer-config` for a role: kv_producer computes prompts, kv_consumer goes on."""
    return rig.Settings(
        kv_connector="Transfers",
        kv_connector_module_path=__name__,
        kv_role=role,
        is_kv_producer=role == "kv_producer",
        is_kv_consumer=role == "kv_consumer",
        kv_load_failure_policy="fail",
        engine_id=role,
        kv_connector_extra_config={},
        get_from_extra_config=lambda _name, default: default,
    )
