"""What survives a restart: deficits, debts and counters, and where they are kept."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import orjson

from fairprefix.core.errors import ConfigError

SCHEMA = 1
FORMAT = "fairprefix.gateway"


class StateStore(Protocol):
    """Keeps one state: the seam for other places than a file."""

    async def load(self) -> Mapping[str, Any] | None:
        """Return what was saved last; None when nothing was.

        Raises:
            ConfigError: there is something, but no state of ours; the message names place and fix.
        """
        ...

    async def save(self, state: Mapping[str, Any]) -> None:
        """Replace what was saved, all at once."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class NoStore:
    """Keeps nothing."""

    async def load(self) -> None:
        """Return None."""

    async def save(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""

    async def close(self) -> None:
        """Do nothing."""


class FileStore:
    """Keeps the state in a file, which is replaced at once: a reader, or a crash, finds the old state or the new.

    Args:
        path: the file; its directory has to exist.

    Raises:
        ConfigError: the directory does not exist or cannot be written to.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        folder = self._path.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise ConfigError(
                f"state = {str(path)!r} is not valid: {folder} is no directory that can be written to"
            )

    async def load(self) -> Mapping[str, Any] | None:
        """Return what the file holds; None if there is no file."""
        try:
            data = await asyncio.to_thread(self._path.read_bytes)
        except FileNotFoundError:
            return None
        except OSError as problem:
            raise ConfigError(f"state = {str(self._path)!r}: cannot be read: {problem.strerror}") from problem
        return open_state(data, str(self._path))

    async def save(self, state: Mapping[str, Any]) -> None:
        """Write the file anew."""
        await asyncio.to_thread(self._replace, orjson.dumps(state, option=orjson.OPT_NON_STR_KEYS))

    async def close(self) -> None:
        """Do nothing."""

    def _replace(self, data: bytes) -> None:
        handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self._path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise


def open_state(data: bytes, source: str) -> Mapping[str, Any]:
    """Return the state that `data` holds as JSON.

    Raises:
        ConfigError: it is none, or of another version.
    """
    try:
        state = orjson.loads(data)
    except orjson.JSONDecodeError as problem:
        raise ConfigError(f"state = {source!r}: is damaged ({problem}): remove it to start afresh") from None
    if not isinstance(state, dict) or (state.get("format"), state.get("schema")) != (FORMAT, SCHEMA):
        raise ConfigError(f"state = {source!r}: is no state of this gateway's version: remove it to start afresh")
    return state
