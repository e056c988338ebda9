"""Pages of the site that are files at the top of the repository: a stub in docs/ is replaced by the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TOP = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md", "security.md": "SECURITY.md"}


def on_page_markdown(markdown: str, *, page: Any, **_others: object) -> str:  # noqa: ANN401 (mkdocs is not typed)
    """Return a page's text; links into docs/ are links beside it there."""
    name = TOP.get(page.file.src_uri)
    if name is None:
        return markdown
    return (Path(__file__).parents[1] / name).read_text(encoding="utf-8").replace("](docs/", "](")
