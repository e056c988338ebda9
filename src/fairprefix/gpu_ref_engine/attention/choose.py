"""Which attention backend runs, and whether decoding can be captured with it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

from fairprefix.core.errors import one_of, reject
from fairprefix.gpu_ref_engine.attention import BACKENDS
from fairprefix.gpu_ref_engine.attention.base import Attention, KvMemory
from fairprefix.gpu_ref_engine.attention.sdpa import SdpaAttention
from fairprefix.gpu_ref_engine.errors import need

Fixed = Callable[[int], Attention]
"""From a number of decoding sequences to a backend that can be captured in a CUDA graph."""


def make_attention(name: str, memory: KvMemory) -> tuple[Attention, Fixed | None]:
    """Return the backend of this name, and how to make ones for CUDA graphs (None: it cannot be captured).

    `auto` is sdpa on a CPU; on a GPU flashinfer where it is installed, else triton.

    Raises:
        ConfigError: there is no such backend, or it does not run on this device.
        MissingExtraError: its library is not installed.
    """
    one_of("backend", name, BACKENDS)
    on_gpu = memory.device.type == "cuda"
    if name == "auto" and on_gpu:
        name = "flashinfer" if importlib.util.find_spec("flashinfer") else "triton"
    if name == "flashinfer":
        return _flashinfer(memory)
    if name == "triton":
        return _triton(memory)
    return SdpaAttention(memory), None


def _flashinfer(memory: KvMemory) -> tuple[Attention, Fixed]:
    need("flashinfer", "gpu")
    if memory.device.type != "cuda":
        raise reject("backend", "flashinfer", "'sdpa' or 'auto' on a CPU: FlashInfer needs a GPU")
    from fairprefix.gpu_ref_engine.attention.flashinfer import FlashInferAttention  # noqa: PLC0415 (an extra)

    first = FlashInferAttention(memory)
    return first, lambda rows: FlashInferAttention(memory, rows, first.workspace)


def _triton(memory: KvMemory) -> tuple[Attention, Fixed]:
    triton = need("triton", "gpu")
    if memory.device.type != "cuda" and not triton.knobs.runtime.interpret:
        raise reject("backend", "triton", "'sdpa' or 'auto' on a CPU (or TRITON_INTERPRET=1, which is for tests)")
    from fairprefix.gpu_ref_engine.attention.paged import PagedAttention  # noqa: PLC0415 (an extra)

    return PagedAttention(memory), lambda rows: PagedAttention(memory, rows)
