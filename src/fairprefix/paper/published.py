"""The paper's own figures, as data with their source; and why some of its claims do not hold here."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def published() -> dict[str, Any]:
    """Return what `data/published.json` holds: by figure, with the source and how it was read."""
    return _data("published.json")


@cache
def explanations() -> dict[tuple[str, str], str]:
    """Return by figure and claim why the claim does not hold, as seen in the full run."""
    return {(one["figure"], one["claim"]): one["why"] for one in _data("explanations.json")["explanations"]}


def _data(name: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((files("fairprefix.paper") / "data" / name).read_text(encoding="utf-8"))
    return data
