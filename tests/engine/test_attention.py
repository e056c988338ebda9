"""Every attention backend computes the same: causal attention over pages."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from fairprefix.core.errors import ConfigError
from fairprefix.gpu_ref_engine.architecture import Architecture
from fairprefix.gpu_ref_engine.attention import flashinfer
from fairprefix.gpu_ref_engine.attention.base import Attention, KvMemory
from fairprefix.gpu_ref_engine.attention.choose import make_attention
from fairprefix.gpu_ref_engine.attention.paged import PagedAttention
from fairprefix.gpu_ref_engine.attention.sdpa import SdpaAttention
from fairprefix.gpu_ref_engine.batch import StepBatch
from fairprefix.gpu_ref_engine.errors import MissingExtraError
from tests.engine import flashinfer_standin
from tests.engine.steps import CPU

CASES = {
    "decode": ([1, 1, 1], [1, 17, 130]),
    "prefill": ([5, 33], [5, 33]),
    "behind a prefix": ([7, 70], [20, 100]),
    "mixed": ([1, 40, 1, 3], [64, 90, 5, 3]),
    "one long": ([1], [700]),
}
"""Query and context lengths."""


def memory(heads: int, kv_heads: int, dim: int, page_size: int, *, dtype: torch.dtype = torch.float32) -> KvMemory:
    """Return a memory full of random keys and values, for contexts of up to 1024 tokens."""
    shape = Architecture(
        family="llama", layers=2, hidden=1, heads=heads, kv_heads=kv_heads, head_dim=dim, intermediate=1,
        vocabulary=1, longest=1024,
    )  # fmt: skip
    made = KvMemory(shape=shape, pages=1024 // page_size, page_size=page_size, dtype=dtype, device=CPU)
    generator = torch.Generator().manual_seed(0)
    made.keys.copy_(torch.randn(made.keys.shape, generator=generator))
    made.values.copy_(torch.randn(made.values.shape, generator=generator))
    return made


def batch_of(kept: KvMemory, queries: list[int], contexts: list[int]) -> StepBatch:
    """Return a step with random pages; only what attention looks at."""
    draws = np.random.default_rng(0)
    widest = max(-(-one // kept.page_size) for one in contexts)
    table = np.zeros((len(contexts), widest), np.int32)
    for row, context in zip(table, contexts, strict=True):
        used = -(-context // kept.page_size)
        row[:used] = draws.permutation(kept.pages)[:used]
    total = np.zeros(sum(queries), np.int64)
    return StepBatch(
        tokens=total, positions=total, slots=total, query_lens=np.array(queries), context_lens=np.array(contexts),
        page_table=table, sample_at=total[:0], samples=(),
    )  # fmt: skip


def literal(kept: KvMemory, layer: int, query: Tensor, batch: StepBatch) -> Tensor:
    """Return what attention is by definition, in float64: query by query, head by head."""
    shape, out, row = kept.shape, [], 0
    for queries, context, pages in zip(batch.query_lens, batch.context_lens, batch.page_table, strict=True):
        used = torch.from_numpy(pages).long()
        keys = kept.keys[layer, used].transpose(0, 1).flatten(1, 2)[:, :context].double()
        values = kept.values[layer, used].transpose(0, 1).flatten(1, 2)[:, :context].double()
        for at in range(queries):
            seen = int(context - queries + at + 1)
            for head in range(shape.heads):
                group = head // (shape.heads // shape.kv_heads)
                scores = keys[group, :seen] @ query[row, head].double() * shape.head_dim**-0.5
                out.append(scores.softmax(0) @ values[group, :seen])
            row += 1
    return torch.stack(out).view(row, -1)


def check(kept: KvMemory, backend: Attention, batch: StepBatch, tolerance: float) -> None:
    """Compare a backend with the definition."""
    query = torch.randn(
        (int(batch.query_lens.sum()), kept.shape.heads, kept.shape.head_dim),
        generator=torch.Generator().manual_seed(1),
    ).to(kept.dtype)
    backend.plan(batch)
    for layer in range(2):
        found = backend.run(layer, query.clone()).double()
        torch.testing.assert_close(found, literal(kept, layer, query, batch), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", ["sdpa", "triton"])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "page_size"), [(9, 3, 64, 16), (4, 4, 24, 1), (8, 1, 16, 64)]
)
def test_a_backend_is_attention(name: str, case: str, heads: int, kv_heads: int, dim: int, page_size: int) -> None:
    """In float32 each backend agrees with the definition, for shared heads, odd sizes and any page size."""
    kept = memory(heads, kv_heads, dim, page_size)
    backend, _ = make_attention(name, kept)
    check(kept, backend, batch_of(kept, *CASES[case]), 1e-5)


@pytest.mark.parametrize("case", CASES)
def test_bfloat16_is_as_good_as_its_digits(case: str) -> None:
    """In bfloat16 the backend of the CPU is off by a few of its digits (8 bits) at most."""
    kept = memory(6, 2, 32, 16, dtype=torch.bfloat16)
    check(kept, SdpaAttention(kept), batch_of(kept, *CASES[case]), 3e-2)


def test_fixed_memory_takes_any_step() -> None:
    """A backend made for capture keeps its buffers from step to step, and still follows the step's lengths."""
    kept = memory(4, 2, 16, 8)
    backend = PagedAttention(kept, rows=3)
    held = [tensor.data_ptr() for tensor in backend._fixed or ()]
    for contexts in ([3, 9, 500], [1000, 1, 2], [8, 8, 8]):
        check(kept, backend, batch_of(kept, [1, 1, 1], contexts), 1e-5)
    assert [tensor.data_ptr() for tensor in backend._fixed or ()] == held


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("fixed", [False, True])
def test_flashinfer_is_called_by_its_rules(case: str, monkeypatch: pytest.MonkeyPatch, *, fixed: bool) -> None:
    """FlashInfer, replaced by its definition, gets arrays that mean the same attention, captured or not."""
    monkeypatch.setitem(sys.modules, "flashinfer", flashinfer_standin)
    monkeypatch.setattr(flashinfer, "_WORKSPACE_BYTES", 1 << 10)
    kept = memory(8, 2, 16, 16)
    queries, contexts = CASES[case]
    if fixed:
        queries = [1] * len(contexts)
    backend = flashinfer.FlashInferAttention(kept, len(contexts) if fixed else None)
    check(kept, backend, batch_of(kept, queries, contexts), 1e-5)
    check(kept, backend, batch_of(kept, queries, [one + 1 for one in contexts]), 1e-5)


def test_a_backend_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend whose library is missing, that needs a GPU or that nobody knows is refused with the way out."""
    kept = memory(4, 2, 16, 8)
    with pytest.raises(ConfigError, match="did you mean 'triton'"):
        make_attention("tritn", kept)
    monkeypatch.setitem(sys.modules, "flashinfer", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fairprefix\[gpu\]'"):
        make_attention("flashinfer", kept)
    monkeypatch.setitem(sys.modules, "flashinfer", pytest)  # anything that can be imported
    with pytest.raises(ConfigError, match="FlashInfer needs a GPU"):
        make_attention("flashinfer", kept)


def test_a_cpu_takes_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU `auto` is torch's own attention, which cannot be captured; Triton is refused unless interpreted."""
    kept = memory(4, 2, 16, 8)
    backend, fixed = make_attention("auto", kept)
    assert isinstance(backend, SdpaAttention)
    assert fixed is None
    import triton  # noqa: PLC0415

    monkeypatch.setattr(triton.knobs.runtime, "interpret", False)
    with pytest.raises(ConfigError, match="TRITON_INTERPRET"):
        make_attention("triton", kept)
