"""Tokenizers that come with a model: tokenizer.json beside safetensors, or the metadata of a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairprefix.gpu_ref_engine.chat import CHATML, ChatTemplate
from fairprefix.gpu_ref_engine.errors import ModelError, need
from fairprefix.gpu_ref_engine.gguf import GgufFile
from fairprefix.gpu_ref_engine.sources import read_json
from fairprefix.gpu_ref_engine.tokenizer import Tokenizer

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_CUTS = {
    "default": None,
    "gpt-2": None,
    "smollm": "digits",
    "llama-bpe": _LLAMA3,
    "qwen2": _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}"),
}
"""How text is cut into words, by GGUF's name for it: by this expression, or as GPT-2 does, single digits first."""
_CONTROL, _USER_DEFINED = 3, 4
"""GGUF's types of tokens that are matched in the text as a whole."""
_NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")


def hugging_face_tokenizer(folder: Path, config: Mapping[str, Any]) -> Tokenizer:
    """Read tokenizer.json, tokenizer_config.json, generation_config.json and chat_template.jinja of a directory.

    Args:
        folder: of the model.
        config: its parsed config.json.

    Raises:
        ModelError: tokenizer.json is missing or not valid, or decodes in a way that is not supported.
    """
    library = need("tokenizers", "engine")
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ModelError(f"{folder}: has no tokenizer.json")
    try:
        tokenizer = library.Tokenizer.from_file(str(path))
    except Exception as problem:  # noqa: BLE001 (the library raises plain Exception)
        raise ModelError(f"{path}: is not a valid tokenizer: {problem}") from None
    settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
    named = {name: _content(settings[name]) for name in _NAMED if settings.get(name)}
    return _wrapped(
        tokenizer,
        eos=_ends(folder, config, tokenizer.token_to_id(named.get("eos_token", ""))),
        lead=tuple(tokenizer.encode("").ids),
        template=ChatTemplate(_template(folder, settings), named),
    )


def _content(token: str | Mapping[str, Any]) -> str:
    return token if isinstance(token, str) else str(token["content"])


def _template(folder: Path, settings: Mapping[str, Any]) -> str:
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    found = settings.get("chat_template") or CHATML
    if isinstance(found, str):
        return found
    by_name = {one["name"]: one["template"] for one in found}
    return str(by_name.get("default") or next(iter(by_name.values())))


def _ends(folder: Path, config: Mapping[str, Any], named: int | None) -> frozenset[int]:
    """Return every token that one of the model's files calls the end of an answer."""
    path = folder / "generation_config.json"
    generation = read_json(path) if path.is_file() else {}
    ends: set[int] = set() if named is None else {named}
    for found in (config.get("eos_token_id"), generation.get("eos_token_id")):
        if found is not None:
            ends.update(found if isinstance(found, list) else [found])
    return frozenset(ends)


def gguf_tokenizer(file: GgufFile) -> Tokenizer:
    """Build the tokenizer that the metadata of a GGUF file describe: byte-level BPE.

    Raises:
        ModelError: it is of another kind, cuts text in an unknown way, or a key is missing.
    """
    meta = file.metadata
    kind, cut = meta.get("tokenizer.ggml.model"), meta.get("tokenizer.ggml.pre", "default")
    if kind != "gpt2":
        raise ModelError(f"{file.path}: tokenizer {kind!r} is not supported: expected 'gpt2' (byte-level BPE)")
    if cut not in _CUTS:
        raise ModelError(
            f"{file.path}: pre-tokenizer {cut!r} is not supported: expected one of {', '.join(_CUTS)}"
        )
    try:
        names, merges = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.merges"]
        eos = int(meta["tokenizer.ggml.eos_token_id"])
        bos = int(meta.get("tokenizer.ggml.bos_token_id", eos))
    except KeyError as missing:
        raise ModelError(f"{file.path}: the metadata have no {missing.args[0]!r}") from None
    tokenizer = _byte_pairs(names, merges, meta.get("tokenizer.ggml.token_type", ()), _CUTS[cut])
    return _wrapped(
        tokenizer,
        eos=frozenset({eos, int(meta.get("tokenizer.ggml.eot_token_id", eos))}),
        lead=(bos,) if meta.get("tokenizer.ggml.add_bos_token", False) else (),
        template=ChatTemplate(
            meta.get("tokenizer.chat_template", CHATML), {"bos_token": names[bos], "eos_token": names[eos]}
        ),
    )


def _byte_pairs(names: list[str], merges: list[str], types: list[int], cut: str | None) -> Any:  # noqa: ANN401
    library = need("tokenizers", "engine")
    words, pairs = library.pre_tokenizers, [tuple(merge.split(" ", 1)) for merge in merges]
    tokenizer = library.Tokenizer(
        library.models.BPE(vocab={name: at for at, name in enumerate(names)}, merges=pairs)
    )
    byte_level = words.ByteLevel(add_prefix_space=False, use_regex=cut in (None, "digits"))
    if cut == "digits":
        tokenizer.pre_tokenizer = words.Sequence([words.Digits(individual_digits=True), byte_level])
    elif cut is None:
        tokenizer.pre_tokenizer = byte_level
    else:
        split = words.Split(library.Regex(cut), behavior="isolated")
        tokenizer.pre_tokenizer = words.Sequence([split, byte_level])
    tokenizer.decoder = library.decoders.ByteLevel()
    tokenizer.add_special_tokens([name for name, type_ in zip(names, types, strict=False) if type_ == _CONTROL])
    tokenizer.add_tokens([name for name, type_ in zip(names, types, strict=False) if type_ == _USER_DEFINED])
    return tokenizer


def _wrapped(tokenizer: Any, *, eos: frozenset[int], lead: tuple[int, ...], template: ChatTemplate) -> Tokenizer:  # noqa: ANN401
    pieces, strip = _pieces(tokenizer)
    return Tokenizer(
        encode_text=lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids),
        pieces=pieces,
        lead=lead,
        eos=eos,
        template=template,
        strip_first_space=strip,
    )


def _pieces(tokenizer: Any) -> tuple[list[bytes], bool]:  # noqa: ANN401 (an extra's type)
    """Return the bytes of every token, and whether a text's first space is not there."""
    described = json.loads(tokenizer.to_str())
    decoder = described.get("decoder") or {}
    kinds = {part["type"] for part in decoder.get("decoders", [decoder]) if "type" in part}
    to_bytes = (
        _byte_level if "ByteLevel" in kinds else _sentence_piece if kinds & {"ByteFallback", "Metaspace"} else None
    )
    if to_bytes is None:
        raise ModelError(
            f"a tokenizer that decodes by {' and '.join(sorted(kinds)) or 'nothing'} is not supported"
        )
    pieces = [b""] * (max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1)
    table = _byte_alphabet()
    for text, at in tokenizer.get_vocab(with_added_tokens=True).items():
        pieces[at] = to_bytes(text, table)
    for added in described.get("added_tokens", ()):
        pieces[added["id"]] = b"" if added["special"] else added["content"].encode()
    return pieces, bool(kinds & {"Strip", "Metaspace"})


def _byte_alphabet() -> dict[str, int]:
    """Return the byte for each of the 256 printable characters that stand for bytes in byte-level vocabularies.

    Printable characters of Latin-1 stand for themselves; the other bytes, in order, for characters from U+0100 on.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + at): byte for at, byte in enumerate(rest)}


def _byte_level(text: str, table: Mapping[str, int]) -> bytes:
    return bytes([table[char] for char in text]) if all(char in table for char in text) else text.encode()


def _sentence_piece(text: str, _table: Mapping[str, int]) -> bytes:
    if len(text) == len("<0x00>") and text.startswith("<0x") and text.endswith(">"):
        return bytes([int(text[3:5], 16)])
    return text.replace("\u2581", " ").encode()
