"""FlashInfer's documented interface, computed by the definition: what our calls mean, checked without a GPU.

Only what the engine uses, with FlashInfer's names and order of parameters, and its rules: index arrays that `plan`
reads lie in host memory as int32, a workspace begins as zeros, and with CUDA graphs the batch size never changes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _Wrapper:
    causal = False

    def __init__(self, float_workspace_buffer: Tensor, kv_layout: str = "NHD", *, backend: str = "auto") -> None:
        assert not float_workspace_buffer.any(), "the workspace must be zeroed for its first use"
        assert backend == "fa2", "auto takes fa3 on Hopper, which compiles for half an hour"
        assert kv_layout == "HND"
        self.table: list[tuple[int, int, Tensor, int]] = []

    def _plan(self, starts: Tensor, indptr: Tensor, indices: Tensor, last: Tensor, sizes: tuple[int, ...]) -> None:
        for one in (starts, indptr, indices, last):
            assert one.dtype == torch.int32
            assert one.device.type == "cpu"
        self.heads, self.kv_heads, self.dim, self.page_size = sizes
        self.table = []
        for at in range(len(last)):
            pages = indices[indptr[at] : indptr[at + 1]].long()
            assert 1 <= last[at] <= self.page_size
            length = (len(pages) - 1) * self.page_size + int(last[at])
            self.table.append((int(starts[at]), int(starts[at + 1]), pages, length))

    def run(self, q: Tensor, paged_kv_cache: tuple[Tensor, Tensor]) -> Tensor:
        """Return [T, heads, head_dim]."""
        out = torch.empty_like(q)
        for start, stop, pages, length in self.table:
            keys, values = (
                one[pages].transpose(0, 1).flatten(1, 2)[:, :length].double() for one in paged_kv_cache
            )
            group = self.heads // self.kv_heads
            for row in range(start, stop):
                seen = length - (stop - row - 1) if self.causal else length
                for head in range(self.heads):
                    scores = keys[head // group, :seen] @ q[row, head].double() * self.dim**-0.5
                    out[row, head] = (scores.softmax(0) @ values[head // group, :seen]).to(q.dtype)
        return out


class BatchDecodeWithPagedKVCacheWrapper(_Wrapper):
    """One query per sequence."""

    def __init__(
        self,
        float_workspace_buffer: Tensor,
        kv_layout: str = "NHD",
        use_cuda_graph: bool = False,  # noqa: FBT001, FBT002
        use_tensor_cores: bool = False,  # noqa: ARG002, FBT001, FBT002
        paged_kv_indptr_buffer: Tensor | None = None,
        paged_kv_indices_buffer: Tensor | None = None,
        paged_kv_last_page_len_buffer: Tensor | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(float_workspace_buffer, kv_layout, backend=backend)
        self.fixed: tuple[Tensor, Tensor, Tensor] | None = None
        if use_cuda_graph:
            assert paged_kv_indptr_buffer is not None
            assert paged_kv_indices_buffer is not None
            assert paged_kv_last_page_len_buffer is not None
            assert len(paged_kv_indptr_buffer) == len(paged_kv_last_page_len_buffer) + 1
            self.fixed = paged_kv_indptr_buffer, paged_kv_indices_buffer, paged_kv_last_page_len_buffer

    def plan(
        self,
        indptr: Tensor,
        indices: Tensor,
        last_page_len: Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim: int,
        page_size: int,
        *,
        q_data_type: torch.dtype,
        kv_data_type: torch.dtype,
        seq_lens: Tensor,
        non_blocking: bool,
    ) -> None:
        """Prepare a step."""
        del q_data_type, kv_data_type, non_blocking
        if self.fixed is not None:
            assert len(last_page_len) == len(self.fixed[2]), "the batch size is fixed"
            assert len(indices) <= len(self.fixed[1])
        starts = torch.arange(len(last_page_len) + 1, dtype=torch.int32)
        self._plan(starts, indptr, indices, last_page_len, (num_qo_heads, num_kv_heads, head_dim, page_size))
        assert seq_lens.tolist() == [length for *_, length in self.table]


class BatchPrefillWithPagedKVCacheWrapper(_Wrapper):
    """Any number of queries per sequence."""

    def plan(
        self,
        qo_indptr: Tensor,
        paged_kv_indptr: Tensor,
        paged_kv_indices: Tensor,
        paged_kv_last_page_len: Tensor,
        num_qo_heads: int,
        num_kv_heads: int,
        head_dim_qk: int,
        page_size: int,
        *,
        causal: bool,
        **common: Any,  # noqa: ANN401
    ) -> None:
        """Prepare a step."""
        self.causal = causal
        sizes = (num_qo_heads, num_kv_heads, head_dim_qk, page_size)
        self._plan(qo_indptr, paged_kv_indptr, paged_kv_indices, paged_kv_last_page_len, sizes)
        assert common["seq_lens"].tolist() == [length for *_, length in self.table]
