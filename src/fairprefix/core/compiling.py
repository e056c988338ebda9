"""What only mypyc looks at (docs/performance.md): for everybody else it is nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from mypy_extensions import mypyc_attr
else:
    Decorated = TypeVar("Decorated")

    def mypyc_attr(**_attributes: object) -> Callable[[Decorated], Decorated]:
        """Return a decorator that changes nothing."""
        return lambda decorated: decorated


__all__ = ["mypyc_attr"]
