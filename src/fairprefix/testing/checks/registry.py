"""What a check is, and when it applies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import frozen
from hypothesis import strategies as st

from fairprefix.core.config import PolicyConfig
from fairprefix.testing.claims import Claims
from fairprefix.testing.lab import Lab, Subject

UNIVERSAL = "always"


def _always(_claims: Claims, _config: PolicyConfig) -> bool:
    return True


@frozen(kw_only=True)
class Check:
    """A named property, and the histories that it is tried on."""

    name: str
    claim: str
    """What it checks, in one sentence."""
    run: Callable[[Lab, Any], None]
    """Raises AssertionError with the story when the property does not hold."""
    data: Callable[[Subject], st.SearchStrategy[Any]] | None
    """What to try it on, usually histories; None: it runs once, with None."""
    enabled_by: str = UNIVERSAL
    """The claim that switches it on."""
    applies: Callable[[Claims, PolicyConfig], bool] = _always
