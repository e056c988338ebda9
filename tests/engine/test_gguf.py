"""GGUF files: every block type against the reference formulae, and every kind of damage named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fairprefix.gpu_ref_engine.errors import ModelError
from fairprefix.gpu_ref_engine.gguf import GgufFile, dequantised
from fairprefix.gpu_ref_engine.sources import gguf_architecture, gguf_name

TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8, "BF16": 30}


def values(rows: int, columns: int) -> NDArray[np.float32]:
    """Return random numbers of rows of very different size."""
    draws = np.random.default_rng(0)
    return (draws.standard_normal((rows, columns)) * 10.0 ** draws.integers(-3, 3, (rows, 1))).astype(np.float32)


def written(path: Path, *, family: str = "llama", change: Callable[[gguf.GGUFWriter], None] | None = None) -> Path:
    """Write a file with the reference library."""
    writer = gguf.GGUFWriter(path, family)
    writer.add_context_length(64)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(96)
    writer.add_block_count(1)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_array("an.array", ["a", "\u00e9", ""])
    writer.add_array("numbers", [1, -2, 3])
    if change:
        change(writer)
    for name, kind in TYPES.items():
        quantised = gguf.quants.quantize(values(3, 64), gguf.GGMLQuantizationType(kind))
        writer.add_tensor(f"{name}.weight", quantised, raw_dtype=gguf.GGMLQuantizationType(kind))
    writer.add_tensor("token_embd.weight", values(5, 64))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("kind", TYPES)
def test_tensors_are_those_of_the_reference(kind: str, tmp_path: Path) -> None:
    """Each type, written and read by the reference library, is read the same by ours."""
    path = written(tmp_path / "model.gguf")
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}[f"{kind}.weight"]
    expected = gguf.quants.dequantize(stored.data, stored.tensor_type)
    found = GgufFile(path).tensor(f"{kind}.weight")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, expected.reshape(3, 64))


@given(
    scale=st.floats(-8, 8, width=16), least=st.floats(-8, 8, width=16), quanta=st.binary(min_size=16, max_size=16)
)
def test_four_bits_are_unpacked_by_the_formula(scale: float, least: float, quanta: bytes) -> None:
    """Byte i holds the quanta of i (low) and i + 16 (high): Q4_1 is d * q + m, Q4_0 is d * (q - 8)."""
    d, m = np.float16(scale), np.float16(least)
    q = [byte & 15 for byte in quanta] + [byte >> 4 for byte in quanta]
    raw = np.frombuffer(d.tobytes() + m.tobytes() + quanta, np.uint8)
    expected = [np.float32(d) * np.float32(one) + np.float32(m) for one in q]
    np.testing.assert_array_equal(dequantised("Q4_1", raw), np.array(expected, np.float32))
    raw = np.frombuffer(d.tobytes() + quanta, np.uint8)
    np.testing.assert_array_equal(dequantised("Q4_0", raw), [np.float32(d) * np.float32(one - 8) for one in q])


@given(scale=st.floats(-8, 8, width=16), quanta=st.lists(st.integers(-128, 127), min_size=32, max_size=32))
def test_eight_bits_are_scaled(scale: float, quanta: list[int]) -> None:
    """Q8_0 is d * q."""
    d = np.float16(scale)
    raw = np.frombuffer(d.tobytes() + np.array(quanta, np.int8).tobytes(), np.uint8)
    np.testing.assert_array_equal(dequantised("Q8_0", raw), [np.float32(d) * np.float32(one) for one in quanta])


def test_metadata_are_read(tmp_path: Path) -> None:
    """Numbers, texts and arrays of both arrive as they were written, and make an architecture."""
    file = GgufFile(written(tmp_path / "model.gguf"))
    assert file.metadata["an.array"] == ["a", "\u00e9", ""]
    assert file.metadata["numbers"] == [1, -2, 3]
    shape = gguf_architecture(file)
    assert (shape.layers, shape.hidden, shape.heads, shape.kv_heads, shape.head_dim) == (1, 64, 4, 2, 16)
    assert (shape.intermediate, shape.longest, shape.vocabulary, shape.tied) == (96, 64, 5, True)


def test_names_of_tensors_are_translated() -> None:
    """Names of Hugging Face's layout have their counterparts."""
    assert gguf_name("model.embed_tokens.weight") == "token_embd.weight"
    assert gguf_name("model.layers.12.self_attn.q_proj.bias") == "blk.12.attn_q.bias"
    assert gguf_name("model.layers.0.post_attention_layernorm.weight") == "blk.0.ffn_norm.weight"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.5])
def test_a_file_that_is_cut_off_is_damaged(share: float, tmp_path: Path) -> None:
    """A file whose end is missing is refused in one sentence that names it, wherever it was cut."""
    path = written(tmp_path / "model.gguf")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ModelError, match=r"model\.gguf: "):
        GgufFile(path).tensor("token_embd.weight")


@given(position=st.integers(4, 900), byte=st.integers(0, 255))
def test_a_damaged_header_is_never_a_traceback(
    position: int, byte: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever byte of the header is changed, reading gives a model error or succeeds."""
    folder = tmp_path_factory.mktemp("damaged")
    path = written(folder / "model.gguf")
    content = bytearray(path.read_bytes())
    content[position] = byte
    path.write_bytes(content)
    try:
        file = GgufFile(path)
        gguf_architecture(file)
        for name in file.tensors:
            file.tensor(name)
    except ModelError as problem:
        assert "model.gguf" in str(problem) or "heads" in str(problem) or "head_dim" in str(problem)  # noqa: PT017


def test_other_files_are_refused(tmp_path: Path) -> None:
    """A file that is missing, is no GGUF, or is of another version, type or family is refused by name."""
    with pytest.raises(ModelError, match=r"none\.gguf: cannot be read"):
        GgufFile(tmp_path / "none.gguf")
    (tmp_path / "other").write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(ModelError, match="is not a GGUF file"):
        GgufFile(tmp_path / "other")
    content = written(tmp_path / "model.gguf").read_bytes()
    (tmp_path / "old").write_bytes(b"GGUF\x01\x00\x00\x00" + content[8:])
    with pytest.raises(ModelError, match="version 1 is not supported"):
        GgufFile(tmp_path / "old")
    with pytest.raises(ModelError, match="has no tensor 'blk'"):
        GgufFile(tmp_path / "model.gguf").tensor("blk")
    with pytest.raises(ModelError, match="architecture 'gemma' is not supported"):
        gguf_architecture(GgufFile(written(tmp_path / "gemma", family="gemma")))
    scaled = written(tmp_path / "s", change=lambda writer: writer.add_rope_scaling_type(gguf.RopeScalingType.YARN))
    with pytest.raises(ModelError, match="rope scaling 'yarn' is not supported"):
        gguf_architecture(GgufFile(scaled))


def test_a_type_that_is_not_supported_is_named(tmp_path: Path) -> None:
    """A tensor in another quantisation is refused with the tensor's name and the types that there are."""

    def add(writer: gguf.GGUFWriter) -> None:
        blocks = np.zeros((3, 210), np.uint8)
        writer.add_tensor("blk.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.Q6_K)

    file = GgufFile(written(tmp_path / "model.gguf", change=add))
    with pytest.raises(
        ModelError, match=r"'blk\.weight' is stored as Q6_K, which is not supported: expected one of F32"
    ):
        file.tensor("blk.weight")
