"""The tables of docs/theory.md, so that what is printed there is what the tests find."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "theory.md"


def table(number: int) -> list[tuple[str, ...]]:
    """Return the rows of "Table NUMBER." as they are printed there, without the head."""
    below = PAGE.read_text(encoding="utf-8").split(f"\nTable {number}. ")[1]
    lines = re.findall(r"^\|(.*)\|$", below.split("\nTable ")[0].split("\n## ")[0], re.MULTILINE)
    return [tuple(cell.strip() for cell in line.split("|")) for line in lines[2:]]
