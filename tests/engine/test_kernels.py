"""Our Triton kernels: the interpreter agrees with torch, and the compiler accepts them for the GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fairprefix.gpu_ref_engine.architecture import Architecture
from fairprefix.gpu_ref_engine.kernels import TritonOps
from fairprefix.gpu_ref_engine.ops import Rotary, TorchOps
from tests.engine.steps import CPU

DTYPES = [torch.float32, torch.bfloat16]


def both(dtype: torch.dtype, dim: int = 16) -> tuple[TorchOps, TritonOps]:
    """Return the two implementations for one shape."""
    shape = Architecture(
        family="qwen3", layers=1, hidden=72, heads=6, kv_heads=2, head_dim=dim, intermediate=100, vocabulary=1,
        longest=64, qk_norm=True,
    )  # fmt: skip
    rotary, exact = (Rotary.of(shape, 64, device=CPU, dtype=one) for one in (dtype, torch.float32))
    return TorchOps(shape, rotary), TritonOps(shape, exact)


def random(*size: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Return random numbers."""
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(found: Tensor, expected: Tensor) -> None:
    """Compare: bfloat16 may differ by where it is rounded."""
    tolerance = 1e-5 if found.dtype == torch.float32 else 3e-2
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", DTYPES)
def test_norms_agree(dtype: torch.dtype) -> None:
    """The norm, alone and of a sum that becomes the new residual, is torch's."""
    reference, ours = both(dtype)
    values, residual, weight = (random(5, 72, dtype=dtype, seed=seed) for seed in range(3))
    close(ours.norm(values, weight[0]), reference.norm(values, weight[0]))
    found, kept = ours.add_norm(values, residual.clone(), weight[0])
    expected, summed = reference.add_norm(values, residual.clone(), weight[0])
    close(found, expected)
    close(kept, summed)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gates_agree(dtype: torch.dtype) -> None:
    """The gated activation is torch's, for a width that is no multiple of a block."""
    reference, ours = both(dtype)
    gate_up = random(3, 200, dtype=dtype)
    close(ours.gate(gate_up), reference.gate(gate_up.clone()))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("dim", [16, 24])
def test_rotation_and_store_agree(dtype: torch.dtype, dim: int, *, norm: bool) -> None:
    """Queries come back, keys and values go to their rows, and nothing else in the memory changes."""
    results = []
    for ops in both(dtype, dim):
        qkv = random(7, 10 * dim, dtype=dtype)
        weight = random(8, dim, dtype=dtype, seed=1) if norm else None
        keys, values = random(9, 2, 4, dim, dtype=dtype, seed=2), random(9, 2, 4, dim, dtype=dtype, seed=3)
        rows = torch.randperm(72, generator=torch.Generator().manual_seed(4))[:14].view(7, 2)
        query = ops.rotate_and_store(qkv, weight, torch.arange(40, 47), rows, keys, values)
        results.append((query.contiguous(), keys, values))
    for found, expected in zip(results[1], results[0], strict=True):
        close(found, expected)


COMPILE = """
import sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from fairprefix.gpu_ref_engine import kernels
from fairprefix.gpu_ref_engine.attention import paged


def build(function, signature, constants):
    types = {name: signature.get(name, "constexpr") for name in function.arg_names}
    found = triton.compile(ASTSource(function, types, constants), target=GPUTarget("cuda", 90, 32))
    assert found.asm["cubin"], function
    print(function.fn.__name__)


bf16, i64, i32 = "*bf16", "*i64", "*i32"
attend = dict(query=bf16, keys=bf16, values=bf16, out=bf16, weight=bf16, tiles=i32, table=i32, table_width="i32",
              scale="fp32")
sizes = dict(HEADS=32, KV_HEADS=8, DIM=128, PAGE=16, BLOCK_DIM=128, KEYS=64)
build(paged._attend, attend, sizes | dict(ROWS=64, SPLITS=1))
build(paged._attend, attend | dict(out="*fp32", weight="*fp32"), sizes | dict(ROWS=16, SPLITS=8))
norm = dict(values=bf16, residual=bf16, weight=bf16, out=bf16, width="i32", epsilon="fp32")
build(kernels._norm, norm, dict(ADD=True, BLOCK=4096))
rotate = dict(qkv=bf16, norm_weight=bf16, cosine="*fp32", sine="*fp32", positions=i64, rows=i64,
              keys=bf16, values=bf16, queries=bf16, epsilon="fp32")
build(kernels._rotate_and_store, rotate, dict(HEADS=16, KV_HEADS=8, DIM=128, HALF=64, NORM=True))
build(kernels._gate, dict(gate_up=bf16, out=bf16, width="i32"), dict(BLOCK=1024))
"""


def test_kernels_compile_for_the_gpu(tmp_path: Path) -> None:
    """Triton's compiler makes sm_90 machine code of every kernel, on a machine without a GPU."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(  # noqa: S603 (our own program)
        [sys.executable, "-c", COMPILE],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["_attend", "_attend", "_norm", "_rotate_and_store", "_gate"]
