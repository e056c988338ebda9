"""Every block of code in the README and the documentation, taken apart into what can be run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELLS = {"sh", "bash", "console"}
PROGRAMS = (
    "fairprefix",
    "make",
    "pip",
    "python",
    "pytest",
    "vllm",
    "curl",
    "git",
    "export",
    "serve",
    "FAIRPREFIX_",
    ".venv",
)

_FENCED = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:\A|^\n)((?:    .*\n(?:\n(?=    ))?)+)", re.MULTILINE)
_REMARK = re.compile(r"\s+# .*$|(?<=\S)\s{4,}\S.*$")
"""Behind a command: a comment, or words set apart by a wide gap."""


@frozen
class Snippet:
    """One command, or one block of anything else."""

    page: str
    language: str
    """`sh` for a command; empty for text."""
    text: str

    @property
    def start(self) -> str:
        """Its first line."""
        return self.text.splitlines()[0]

    @property
    def words(self) -> list[str]:
        """A command as the shell sees it."""
        return shlex.split(self.text)

    def __str__(self) -> str:
        return f"{self.page}: {self.start}"


def snippets() -> Iterator[Snippet]:
    """Yield all of them."""
    for file in PAGES:
        page, text = str(file.relative_to(ROOT)), file.read_text(encoding="utf-8")
        for language, code in _FENCED.findall(text):
            yield from _parts(page, language, code)
        for block in _INDENTED.findall(_FENCED.sub("", text)):
            code = re.sub(r"^    ", "", block, flags=re.MULTILINE)
            yield from _parts(
                page, "sh" if code.startswith(PROGRAMS) and not code.startswith("fairprefix:") else "", code
            )


def _parts(page: str, language: str, code: str) -> Iterator[Snippet]:
    if language not in SHELLS:
        yield Snippet(page, language, code)
        return
    command = ""
    for line in re.sub(r"\\\n\s*", " ", code).splitlines():
        command = f"{command} {_REMARK.sub('', line.removeprefix('$ ')).strip()}".strip()
        if command and command.count("'") % 2 == 0:  # or what is quoted goes on
            yield Snippet(page, "sh", command)
            command = ""
