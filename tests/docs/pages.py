"""Pages of the documentation, and the code in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"


def text_of(page: str) -> str:
    """Return a page."""
    return (DOCS / page).read_text(encoding="utf-8")


def code_of(page: str, language: str = "python") -> list[str]:
    """Return the code blocks of a page."""
    return re.findall(rf"```{language}\n(.*?)```", text_of(page), re.DOTALL)


def executed(page: str) -> dict[str, Any]:
    """Execute the code of a page in order, in one namespace, and return that."""
    namespace: dict[str, Any] = {"__name__": "page"}
    for code in code_of(page):
        exec(compile(code, page, "exec"), namespace)  # noqa: S102 (that is the point)
    return namespace
