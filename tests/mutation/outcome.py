"""The outcome of mutation testing as data: read from the tool's records, written to docs/mutation.json."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from attrs import asdict, field, frozen

from tests.mutation.reasons import REASONS

ROOT = Path(__file__).parents[2]
CORE = Path("src/fairprefix/core")
RESULT = ROOT / "docs" / "mutation.json"
PAGE = ROOT / "docs" / "mutation.md"
SCHEMA = 1

SEPARATOR = "ǁ"
"""Stands between class and method in the tool's names."""


@frozen
class Survivor:
    """A mutant that no test noticed."""

    file: str
    function: str
    number: int
    """Of the mutant within its function."""
    change: tuple[str, ...]
    """The lines that differ, with - and + in front."""

    def reason(self) -> str:
        """Return why it is equivalent; empty when nobody has said."""
        name = f"{Path(self.file).stem}.{self.function}"
        text = "\n".join(self.change)
        return next((each.why for each in REASONS if each.holds_for(name, text)), "")


@frozen
class Function:
    """What became of the mutants of one function."""

    hash: str
    """Of its syntax tree: results are good as long as it is the same."""
    mutants: int
    survived: tuple[int, ...] = ()
    timeout: tuple[int, ...] = ()


@frozen
class Measured:
    """What became of the mutants of one file."""

    file: str
    sha256: str
    functions: dict[str, Function] = field(factory=dict)
    pending: tuple[str, ...] = ()
    """Functions that are new, or have changed, and have not been measured yet."""

    @property
    def mutants(self) -> int:
        """How many there are."""
        return sum(function.mutants for function in self.functions.values())

    @property
    def survived(self) -> int:
        """How many no test noticed."""
        return sum(len(function.survived) for function in self.functions.values())

    @property
    def timeout(self) -> int:
        """How many ran out of time, which counts as noticed."""
        return sum(len(function.timeout) for function in self.functions.values())


@frozen
class Outcome:
    """All of it."""

    tool: str
    files: tuple[Measured, ...]
    survivors: tuple[Survivor, ...]

    @property
    def mutants(self) -> int:
        """How many there are."""
        return sum(measured.mutants for measured in self.files)

    @property
    def pending(self) -> int:
        """How many functions have not been measured yet."""
        return sum(len(measured.pending) for measured in self.files)

    @property
    def killed_share(self) -> float:
        """Share of the mutants that tests noticed."""
        return 1 - len(self.survivors) / self.mutants

    def to_json(self) -> str:
        """Return everything as text, a line for each function."""
        files = ",\n".join(_file_lines(measured) for measured in self.files)
        survivors = ",\n".join(f"  {_line(asdict(survivor))}" for survivor in self.survivors)
        head = f'"schema": {SCHEMA},\n "tool": {_line(self.tool)}'
        return f'{{{head},\n "files": [\n{files}\n ],\n "survivors": [\n{survivors}\n ]}}\n'


def _line(data: Any) -> str:  # noqa: ANN401 (plain data)
    return json.dumps(data, ensure_ascii=False)


def _file_lines(measured: Measured) -> str:
    functions = ",\n".join(
        f"   {_line(name)}: {_line(asdict(function))}" for name, function in measured.functions.items()
    )
    head = (
        f'"file": {_line(measured.file)}, "sha256": {_line(measured.sha256)}, "pending": {_line(measured.pending)}'
    )
    return f'  {{{head}, "functions": {{\n{functions}\n  }}}}'


def read_outcome(path: Path = RESULT) -> Outcome:
    """Return a written outcome."""
    data = json.loads(path.read_text(encoding="utf-8"))
    files = [
        Measured(
            each["file"],
            each["sha256"],
            {
                name: Function(f["hash"], f["mutants"], tuple(f["survived"]), tuple(f["timeout"]))
                for name, f in each["functions"].items()
            },
            tuple(each["pending"]),
        )
        for each in data["files"]
    ]
    survivors = [Survivor(s["file"], s["function"], s["number"], tuple(s["change"])) for s in data["survivors"]]
    return Outcome(data["tool"], tuple(files), tuple(survivors))


def sha256_of(file: str) -> str:
    """Return the hash of a file of the core as it is now."""
    return hashlib.sha256((ROOT / CORE / file).read_bytes()).hexdigest()


def core_files() -> list[str]:
    """Return the files of the core."""
    return sorted(path.name for path in (ROOT / CORE).glob("*.py"))


def readable(mangled: str) -> str:
    """Return "Class.method" or "function" for the tool's name of it."""
    if SEPARATOR not in mangled:
        return mangled.removeprefix("x_")
    return mangled.removeprefix(f"x{SEPARATOR}").replace(SEPARATOR, ".")


def mangled(name: str) -> str:
    """Return the tool's name of a function."""
    if "." not in name:
        return f"x_{name}"
    owner, _, method = name.rpartition(".")
    return f"x{SEPARATOR}{owner}{SEPARATOR}{method}"
