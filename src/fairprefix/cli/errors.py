"""What a user of the command line can get wrong."""

from __future__ import annotations

from fairprefix.core.errors import FairprefixError


class UsageError(FairprefixError):
    """The command line cannot be carried out; the message says which part of it, and what would be right."""
