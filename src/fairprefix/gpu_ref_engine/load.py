"""From the name of a model to a runner and a tokenizer."""

from __future__ import annotations

from pathlib import Path

import attrs
import torch

from fairprefix.core.errors import at_least, nearest, one_of, reject
from fairprefix.gpu_ref_engine.architecture import Architecture, from_hugging_face
from fairprefix.gpu_ref_engine.attention.base import KvMemory
from fairprefix.gpu_ref_engine.attention.choose import make_attention
from fairprefix.gpu_ref_engine.errors import ModelError, need
from fairprefix.gpu_ref_engine.gguf import GgufFile
from fairprefix.gpu_ref_engine.graphs import DecodeGraphs, cuda_recorder
from fairprefix.gpu_ref_engine.library import LIBRARY, is_here, model_file
from fairprefix.gpu_ref_engine.model import Model
from fairprefix.gpu_ref_engine.ops import Ops, Rotary, TorchOps
from fairprefix.gpu_ref_engine.runner import ModelRunner
from fairprefix.gpu_ref_engine.shapes import SHAPES
from fairprefix.gpu_ref_engine.sources import (
    gguf_architecture,
    gguf_source,
    random_source,
    read_json,
    safetensors_source,
)
from fairprefix.gpu_ref_engine.tokenizer import Tokenizer, byte_tokenizer
from fairprefix.gpu_ref_engine.vocabulary import gguf_tokenizer, hugging_face_tokenizer
from fairprefix.gpu_ref_engine.weights import Source, pack

RANDOM = "random"
"""The model that is always there: `random`, or `random:SHAPE` for another shape than the tiny one."""
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_CPU_TOKENS = 16_384
"""KV memory on a CPU, unless told otherwise."""
_GPU_SHARE = 0.88
"""Of a GPU's memory, for weights and KV memory; the rest is for activations and graphs."""


@attrs.frozen(eq=False, kw_only=True)
class Found:
    """A model before its tensors are read."""

    name: str
    shape: Architecture
    source: Source
    tokenizer: Tokenizer
    random: bool
    """Whether it knows nothing: its weights are random numbers."""


def find_model(name: str, *, device: torch.device, seed: int = 0) -> Found:
    """Find a model, and read everything but its tensors.

    Args:
        name: `random`, `random:SHAPE`, a model of `fairprefix model list`, a GGUF file, or a directory with
            config.json, tokenizer.json and *.safetensors.
        device: where random tensors are drawn.
        seed: of random tensors.

    Raises:
        ModelError: there is no such model, or it is not supported.
    """
    if name == RANDOM or name.startswith(f"{RANDOM}:"):
        shape = SHAPES[one_of("random model", name.partition(":")[2] or "tiny", SHAPES)]
        return Found(
            name=name,
            shape=shape,
            source=random_source(seed, device),
            tokenizer=byte_tokenizer(shape.vocabulary),
            random=True,
        )
    path = Path(name).expanduser()
    if name in LIBRARY and not path.exists():
        path = model_file(name)
        if not is_here(name):
            raise ModelError(f"model {name!r} is not here yet: fairprefix model get {name}")
    if path.is_dir():
        config = read_json(path / "config.json")
        shape = from_hugging_face(config)
        source, tokenizer = safetensors_source(path), hugging_face_tokenizer(path, config)
    elif path.is_file():
        file = GgufFile(path)
        shape = gguf_architecture(file)
        source, tokenizer = gguf_source(file, shape), gguf_tokenizer(file)
    else:
        raise ModelError(
            f"there is no model {name!r}{nearest(name, [RANDOM, *LIBRARY])}: "
            f"expected {RANDOM}, {', '.join(LIBRARY)}, a GGUF file or a directory of safetensors"
        )
    return Found(name=path.stem, shape=shape, source=source, tokenizer=_padded(tokenizer, shape), random=False)


def _padded(tokenizer: Tokenizer, shape: Architecture) -> Tokenizer:
    """Give a text, empty, to the tokens that pad a model's vocabulary to a round size."""
    missing = shape.vocabulary - len(tokenizer.pieces)
    return attrs.evolve(tokenizer, pieces=[*tokenizer.pieces, *[b""] * missing]) if missing > 0 else tokenizer


def load_model(
    name: str,
    *,
    device: str = "auto",
    dtype: str = "auto",
    kv_tokens: int | None = None,
    page_size: int = 16,
    backend: str = "auto",
    graphs: bool = True,
    seed: int = 0,
) -> tuple[ModelRunner, Tokenizer]:
    """Load a model, ready to run.

    Args:
        name: see `find_model`.
        device: `cpu`, `cuda`, or `auto` for a GPU where there is one.
        dtype: `float32`, `bfloat16`, `float16`, or `auto` for what the device is fast at.
        kv_tokens: size of the KV memory in tokens, rounded up to pages; None: what the device has room for.
        page_size: tokens per page of KV memory.
        backend: of attention, see `make_attention`.
        graphs: whether decode steps are captured as CUDA graphs, on a GPU.
        seed: of random weights, and of requests without a seed of their own.

    Raises:
        ModelError: there is no such model, or it is not supported.
        ConfigError: a parameter is not valid.
    """
    place = _device(device)
    found = find_model(name, device=place, seed=seed)
    runner = assemble(
        found.shape,
        found.source,
        device=place,
        dtype=_dtype(dtype, place),
        kv_tokens=kv_tokens,
        page_size=page_size,
        backend=backend,
        graphs=graphs,
        seed=seed,
    )
    return runner, found.tokenizer


def assemble(
    shape: Architecture,
    source: Source,
    *,
    device: torch.device,
    dtype: torch.dtype,
    kv_tokens: int | None = None,
    page_size: int = 16,
    backend: str = "auto",
    graphs: bool = True,
    seed: int = 0,
) -> ModelRunner:
    """Read a model's tensors and put the runner together; for the arguments see `load_model`.

    Raises:
        ModelError: a tensor is missing or has the wrong shape.
        ConfigError: a parameter is not valid.
    """
    at_least("page_size", page_size, 1)
    with torch.inference_mode():
        weights = pack(shape, source, device=device, dtype=dtype)
        tokens = _room(shape, device, dtype) if kv_tokens is None else at_least("kv_tokens", kv_tokens, page_size)
        pages = -(-tokens // page_size)
        memory = KvMemory(shape=shape, pages=pages, page_size=page_size, dtype=dtype, device=device)
        ops = _ops(memory)
    attention, fixed = make_attention(backend, memory)
    model = Model(weights=weights, ops=ops, memory=memory)
    runner = ModelRunner(model, attention, seed=seed)
    if fixed is not None and graphs and device.type == "cuda":
        with torch.inference_mode():
            runner.graphs = DecodeGraphs(model, fixed, runner.previous, record=cuda_recorder())
    return runner


def _ops(memory: KvMemory) -> Ops:
    shape, device = memory.shape, memory.device
    if device.type != "cuda":
        return TorchOps(shape, Rotary.of(shape, memory.longest, device=device, dtype=memory.dtype))
    need("triton", "gpu")
    from fairprefix.gpu_ref_engine.kernels import TritonOps  # noqa: PLC0415 (an extra)

    # The kernel computes in float32 anyway, so the tables may as well be exact.
    return TritonOps(shape, Rotary.of(shape, memory.longest, device=device, dtype=torch.float32))


def _room(shape: Architecture, device: torch.device, dtype: torch.dtype) -> int:
    """Return how many tokens the key/value memory may have: what is left on a GPU, a fixed number on a CPU."""
    if device.type != "cuda":
        return _CPU_TOKENS
    free, total = torch.cuda.mem_get_info(device)
    return int((free - total * (1 - _GPU_SHARE)) // (2 * shape.layers * shape.kv_width * dtype.itemsize))


def _device(name: str) -> torch.device:
    one_of("device", name, ("auto", "cpu", "cuda"))
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise reject("device", name, "'cpu' or 'auto': torch finds no CUDA device here")
    return torch.device("cuda" if there and name != "cpu" else "cpu")


def _dtype(name: str, device: torch.device) -> torch.dtype:
    one_of("dtype", name, ("auto", *DTYPES))
    if name != "auto":
        return DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16
    # Without instructions for it, a CPU computes bfloat16 slower than float32.
    quick = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # noqa: SLF001
    return torch.bfloat16 if quick else torch.float32
