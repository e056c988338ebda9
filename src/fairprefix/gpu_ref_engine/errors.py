"""What can be wrong with a model, or with what the engine needs to run it."""

from __future__ import annotations

from fairprefix.core.errors import FairprefixError
from fairprefix.hosting.extras import MissingExtraError, need

__all__ = ["MissingExtraError", "ModelError", "need"]


class ModelError(FairprefixError):
    """A model cannot be loaded: a file is missing or damaged, or its architecture is not supported."""
