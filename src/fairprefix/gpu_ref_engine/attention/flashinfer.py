"""Attention by FlashInfer (https://docs.flashinfer.ai): one plan for mixed steps, decoding that can be captured.

Always backend "fa2": "auto" picks "fa3" on Hopper, which takes from ten to forty minutes to compile. `plan` of
FlashInfer reads its index arrays on the host, so they are built there, and only page indices are sent ahead.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from attrs import frozen
from numpy.typing import NDArray
from torch import Tensor

from fairprefix.gpu_ref_engine.attention.base import KvMemory
from fairprefix.gpu_ref_engine.batch import StepBatch
from fairprefix.gpu_ref_engine.errors import need
from fairprefix.gpu_ref_engine.transfer import mark, pinned, to_device

_WORKSPACE_BYTES = 256 << 20
_LAYOUT = "HND"
_TENSOR_CORES_FROM = 4
"""Query heads per key head from which FlashInfer's tensor-core kernel decodes faster than the plain one."""


@frozen(eq=False)
class _Pages:
    """The page tables of a step as FlashInfer wants them: int32, sequence after sequence."""

    starts: NDArray[np.int32]
    """[B + 1]"""
    indices: NDArray[np.int32]
    last: NDArray[np.int32]
    """[B] tokens in the last page."""

    @classmethod
    def of(cls, batch: StepBatch, page_size: int) -> _Pages:
        counts = -(-batch.context_lens // page_size)
        starts = np.zeros(len(counts) + 1, np.int32)
        np.cumsum(counts, out=starts[1:])
        used = np.arange(batch.page_table.shape[1]) < counts[:, None]
        last = (batch.context_lens - 1) % page_size + 1
        return cls(starts, batch.page_table[used], last.astype(np.int32))


class FlashInferAttention:
    """See `Attention`.

    Args:
        memory: keys and values.
        rows: None, or so many decoding sequences in every step: then `run` can be captured in a CUDA graph.
        workspace: shared by all that never run at the same time; None: a new one.
    """

    def __init__(self, memory: KvMemory, rows: int | None = None, workspace: Tensor | None = None) -> None:
        library: Any = need("flashinfer", "gpu")
        self._memory = memory
        if workspace is None:  # zeros, as its first use demands
            workspace = torch.zeros(_WORKSPACE_BYTES, dtype=torch.uint8, device=memory.device)
        self.workspace = workspace
        tensor_cores = memory.shape.heads // memory.shape.kv_heads >= _TENSOR_CORES_FROM
        fixed = {} if rows is None else self._buffers(rows)
        self._decode = library.BatchDecodeWithPagedKVCacheWrapper(
            workspace, _LAYOUT, use_tensor_cores=tensor_cores, backend="fa2", **fixed
        )
        self._prefill: Any = None
        if rows is None:
            self._prefill = library.BatchPrefillWithPagedKVCacheWrapper(workspace, _LAYOUT, backend="fa2")
        self._current = self._decode
        self._copied: torch.cuda.Event | None = None
        """When the last plan's arrays have left the host memory that the next plan writes to."""

    def _buffers(self, rows: int) -> dict[str, object]:
        pages = rows * -(-self._memory.longest // self._memory.page_size)
        sizes = {"indptr": rows + 1, "indices": min(pages, rows * self._memory.pages), "last_page_len": rows}
        return {"use_cuda_graph": True} | {
            f"paged_kv_{name}_buffer": torch.zeros(size, dtype=torch.int32, device=self._memory.device)
            for name, size in sizes.items()
        }

    def plan(self, batch: StepBatch) -> None:
        """Plan the step: as decoding where every sequence has one query, else as prefill."""
        if self._copied is not None:
            self._copied.synchronize()
        device, shape = self._memory.device, self._memory.shape
        pages = _Pages.of(batch, self._memory.page_size)
        common = {
            "q_data_type": self._memory.dtype,
            "kv_data_type": self._memory.dtype,
            "seq_lens": torch.from_numpy(batch.context_lens.astype(np.int32)),
            "non_blocking": True,
        }
        table = (pinned(pages.starts, device), to_device(pages.indices, device), pinned(pages.last, device))
        sizes = (shape.heads, shape.kv_heads, shape.head_dim, self._memory.page_size)
        if (batch.query_lens == 1).all():
            self._current = self._decode
            self._decode.plan(*table, *sizes, **common)
        else:
            starts = np.zeros(len(batch.query_lens) + 1, np.int32)
            np.cumsum(batch.query_lens, out=starts[1:])
            self._current = self._prefill
            self._prefill.plan(pinned(starts, device), *table, *sizes, causal=True, **common)
        self._copied = mark(device)

    def run(self, layer: int, query: Tensor) -> Tensor:
        """Return [T, heads * head_dim]; see `Attention.run`."""
        found: Tensor = self._current.run(query, (self._memory.keys[layer], self._memory.values[layer]))
        return found.reshape(len(query), -1)
