"""What every rank decided, a file of JSON lines for each: for comparing ranks, and for bug reports."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairprefix.adapters.sglang.engine import Ranks

LOG_VARIABLE = "FAIRPREFIX_DECISION_LOG"
"""Names a folder; unset: nothing is written."""


class DecisionLog:
    """Appends events to a file, each at once, since schedulers are killed rather than closed."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8", buffering=1)

    def __call__(self, event: dict[str, Any]) -> None:
        """Write one event."""
        self._file.write(json.dumps(event, separators=(",", ":")) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def log_for(environ: Mapping[str, str], ranks: Ranks) -> DecisionLog | None:
    """Return the log of a rank, if one is wanted."""
    folder = environ.get(LOG_VARIABLE, "").strip()
    return DecisionLog(Path(folder) / f"dp{ranks.data}-tp{ranks.tensor}.jsonl") if folder else None
