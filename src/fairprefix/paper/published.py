"""The paper's own figures, as data with their source."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def published() -> dict[str, Any]:
    """Return what `data/published.json` holds: by figure, with the source and how it was read."""
    text = (files("fairprefix.paper") / "data" / "published.json").read_text(encoding="utf-8")
    data: dict[str, Any] = json.loads(text)
    return data
