"""A reader of GGUF files: metadata, and tensors as F32, F16, BF16, Q8_0, Q4_0 or Q4_1.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Quantised tensors come in blocks of 32
values along the last dimension: a scale d (and in Q4_1 a minimum m) in half precision, then the quanta q:
Q8_0 is d * q, Q4_0 is d * (q - 8), Q4_1 is d * q + m; of 4-bit quanta, byte i holds those of i and i + 16.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from fairprefix.gpu_ref_engine.errors import ModelError

BLOCK = 32
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MOST_DIMENSIONS = 4
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_TYPE_NAMES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 30: "BF16",
}  # fmt: skip
_LAYOUTS: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "Q8_0": np.dtype([("d", "<f2"), ("q", "i1", (BLOCK,))]),
    "Q4_0": np.dtype([("d", "<f2"), ("q", "u1", (BLOCK // 2,))]),
    "Q4_1": np.dtype([("d", "<f2"), ("m", "<f2"), ("q", "u1", (BLOCK // 2,))]),
}
"""What lies in the file, by type: a value, or a block of values."""

Floats = NDArray[np.float32]


@frozen
class TensorEntry:
    """Where a tensor lies."""

    shape: tuple[int, ...]
    """Slowest dimension first, as everywhere but in the file itself."""
    type: str
    offset: int
    """From the start of the data section, bytes."""


class GgufFile:
    """A GGUF file: metadata at once, tensors when asked for.

    Raises:
        ModelError: it is missing, damaged or of an unknown version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as problem:
            raise ModelError(f"{path}: cannot be read: {problem}") from None
        self._at = 0
        self.metadata: dict[str, Any] = {}
        self.tensors: dict[str, TensorEntry] = {}
        try:
            self._read_header()
        except (struct.error, UnicodeDecodeError, MemoryError, OverflowError):
            raise ModelError(f"{path}: the header of this GGUF file is damaged or cut off") from None

    def _read_header(self) -> None:
        if self._take(4) != _MAGIC:
            raise ModelError(f"{self.path}: is not a GGUF file")
        version = self._scalar("I")
        if version not in _VERSIONS:
            raise ModelError(f"{self.path}: GGUF version {version} is not supported: expected 2 or 3")
        tensors, pairs = self._scalar("Q"), self._scalar("Q")
        for _ in range(pairs):
            key = self._string()
            self.metadata[key] = self._value(self._scalar("I"))
        for _ in range(tensors):
            name = self._string()
            dimensions = self._scalar("I")
            if dimensions > _MOST_DIMENSIONS:
                raise struct.error
            shape = tuple(self._scalar("Q") for _ in range(dimensions))[::-1]
            kind = self._scalar("I")
            self.tensors[name] = TensorEntry(shape, _TYPE_NAMES.get(kind, f"type {kind}"), self._scalar("Q"))
        alignment = int(self.metadata.get("general.alignment", BLOCK))
        self._data = -(-self._at // alignment) * alignment

    def _take(self, size: int) -> bytes:
        piece = self._bytes[self._at : self._at + size]
        if len(piece) != size:
            raise struct.error
        self._at += size
        return piece

    def _scalar(self, code: str) -> Any:  # noqa: ANN401 (whatever the file holds)
        size = struct.calcsize(code)
        value = struct.unpack_from(f"<{code}", self._bytes, self._at)[0]
        self._at += size
        return value

    def _string(self) -> str:
        return self._take(self._scalar("Q")).decode()

    def _value(self, kind: int) -> Any:  # noqa: ANN401 (whatever the file holds)
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            inner, count = self._scalar("I"), self._scalar("Q")
            if inner in _SCALARS:
                code = _SCALARS[inner]
                return list(struct.unpack(f"<{count}{code}", self._take(count * struct.calcsize(code))))
            return [self._value(inner) for _ in range(count)]
        if kind not in _SCALARS:
            raise struct.error
        return self._scalar(_SCALARS[kind])

    def entry(self, name: str) -> TensorEntry:
        """Return where a tensor lies.

        Raises:
            ModelError: there is none of this name.
        """
        if name not in self.tensors:
            raise ModelError(f"{self.path}: has no tensor {name!r}")
        return self.tensors[name]

    def tensor(self, name: str) -> Floats:
        """Return a tensor in float32.

        Raises:
            ModelError: there is none of this name, its type is not supported, or the file is cut off.
        """
        entry = self.entry(name)
        layout = _LAYOUTS.get(entry.type)
        if layout is None:
            raise ModelError(
                f"{self.path}: tensor {name!r} is stored as {entry.type}, which is not supported: expected one of "
                + ", ".join(_LAYOUTS)
            )
        block = BLOCK if layout.names else 1
        size = math.prod(entry.shape) // block * layout.itemsize
        start = self._data + entry.offset
        raw = np.frombuffer(self._bytes, np.uint8)[start : start + size]
        if len(raw) != size or entry.shape[-1] % block:
            raise ModelError(f"{self.path}: tensor {name!r} is damaged or cut off")
        return dequantised(entry.type, raw).reshape(entry.shape)


def dequantised(kind: str, raw: NDArray[np.uint8]) -> Floats:
    """Return the values, in float32, of bytes that hold whole blocks of a type that this module reads."""
    stored: Any = raw.view(_LAYOUTS[kind])
    if kind == "BF16":
        return np.asarray((stored.astype(np.uint32) << 16).view(np.float32))
    if kind in ("F32", "F16"):
        return np.asarray(stored, np.float32)
    scale = stored["d"].astype(np.float32)[:, None]
    if kind == "Q8_0":
        return np.asarray(stored["q"] * scale).reshape(-1)
    values = np.empty((len(stored), BLOCK), np.float32)
    np.bitwise_and(stored["q"], 15, out=values[:, : BLOCK // 2], casting="unsafe")
    np.right_shift(stored["q"], 4, out=values[:, BLOCK // 2 :], casting="unsafe")
    if kind == "Q4_0":
        values -= 8
    values *= scale
    if kind == "Q4_1":
        values += stored["m"].astype(np.float32)[:, None]
    return values.reshape(-1)
