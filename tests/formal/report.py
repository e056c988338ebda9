"""What the formal tests have to tell besides "passed": tables, printed when all tests have run."""

from __future__ import annotations

from attrs import Factory, define


@define
class Table:
    """A table of the report."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]] = Factory(list)
    notes: list[str] = Factory(list)

    def add(self, *cells: object) -> None:
        """Append a row."""
        self.rows.append(tuple(str(cell) for cell in cells))

    def lines(self) -> list[str]:
        """Return the table as text, one column below the other."""
        rows = [self.head, *self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(self.head))]
        padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
        return [*("  ".join(row).rstrip() for row in padded), *self.notes]


EXHAUSTIVE = Table(
    "exhaustive search over the shipping classes",
    ("scope", "states", "transitions", "smallest q", "of", "largest gap", "bound", "lead over f", "bound"),
)
TIGHTNESS = Table(
    "histories that come close to the bounds", ("policy, gate", "reservation", "history", "bound", "reached", "%")
)
MEASURED = Table(
    "measured A10G runs: largest gap while both clients are backlogged",
    ("run", "requests", "clients", "charged at admission", "charged when computed", "bound"),
)
TABLES = (EXHAUSTIVE, TIGHTNESS, MEASURED)


def share(part: int, whole: int) -> str:
    """Return a percentage."""
    return f"{100 * part / whole:.1f}"
