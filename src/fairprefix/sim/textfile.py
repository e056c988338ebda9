"""Read a text file, plain or gzip-compressed, with errors that say what is wrong with it."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path

from fairprefix.core.errors import FairprefixError

GZIP_MAGIC = b"\x1f\x8b"

ErrorType = Callable[[str], FairprefixError]


def read_text(path: Path, error: ErrorType) -> str:
    """Return the text of a UTF-8 file; gzip is recognised by the file's first bytes.

    Raises:
        FairprefixError: as built by `error`: the file is missing, empty, a directory, unreadable, not UTF-8,
        or its name ends
            in .gz and it is not gzip.
    """
    data = _unpacked(path, _read_bytes(path, error), error)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        byte = data[problem.start]
        raise error(f"{path}:{line}: byte {byte:#04x} is not valid: expected text in UTF-8") from problem
    if not text.strip():
        raise error(f"{path}: the file is empty")
    return text


def _read_bytes(path: Path, error: ErrorType) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as problem:
        raise error(f"{path}: no such file") from problem
    except IsADirectoryError as problem:
        raise error(f"{path}: is a directory, expected a file") from problem
    except OSError as problem:
        raise error(f"{path}: cannot be read: {problem.strerror}") from problem


def _unpacked(path: Path, data: bytes, error: ErrorType) -> bytes:
    if not data.startswith(GZIP_MAGIC):
        if path.suffix == ".gz" and data:
            raise error(f"{path}: the name ends in .gz but the content is not gzip")
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as problem:
        raise error(f"{path}: the gzip data is damaged or cut short: {problem}") from problem
