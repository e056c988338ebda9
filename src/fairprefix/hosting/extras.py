"""Libraries that belong to an optional extra: imported when needed, with one clear sentence if missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from fairprefix.core.errors import FairprefixError


class MissingExtraError(FairprefixError, ImportError):
    """A library is not installed; the message is the command that installs it."""


def need(module: str, extra: str) -> ModuleType:
    """Import a library that belongs to an optional extra.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as problem:
        raise MissingExtraError(
            f"{module.partition('.')[0]} is missing ({problem}): pip install 'fairprefix[{extra}]'"
        ) from None
