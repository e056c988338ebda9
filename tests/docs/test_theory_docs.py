"""docs/theory.md names tests that exist: whoever doubts a statement can run the check beside it."""

from __future__ import annotations

import re
from pathlib import Path

from tests.docs.pages import text_of

ROOT = Path(__file__).parents[2]
FORMAL = ROOT / "tests" / "formal"
PAGE = "theory.md"


def checks() -> list[tuple[str, str]]:
    """Return (file, test) for each check that the page names; `..` is the file that was named last."""
    found = []
    file = ""
    for name, test in re.findall(r"(?<=[\s`(])(\.\.|[\w/]+\.py)(?:::(\w+))?", text_of(PAGE)):
        file = file if name == ".." else name
        if name != ".." or test:
            found.append((file, test))
    return found


def place_of(file: str) -> Path:
    """Return where a file lies that is named by its place in tests/formal, in the sources or in the repository."""
    places = [folder / file for folder in (FORMAL, ROOT, ROOT / "src" / "fairprefix")]
    return next((place for place in places if place.is_file()), places[0])


def test_every_check_that_the_page_names_exists() -> None:
    """Each file is there, and has the test."""
    named = checks()
    assert len(named) > 30
    assert [file for file, _ in named if not place_of(file).is_file()] == []
    tests = [(file, test) for file, test in named if test]
    assert [pair for pair in tests if f"def {pair[1]}(" not in place_of(pair[0]).read_text(encoding="utf-8")] == []


def test_every_theorem_names_its_check() -> None:
    """Before the next theorem begins a test file has been named, or the theorem that it follows from."""
    blocks = re.split(r"^(?=> \*\*(?:Lemma|Theorem|Corollary) )", text_of(PAGE), flags=re.MULTILINE)[1:]
    unchecked = [block for block in blocks if ".py" not in block and "It is theorem 5" not in block]
    assert [block.splitlines()[0] for block in unchecked] == []


def test_every_theorem_is_in_the_ledger() -> None:
    """Section 9 says of each lemma, theorem and corollary how it is checked."""
    page = text_of(PAGE)
    stated = re.findall(r"^> \*\*(Lemma|Theorem|Corollary) (\w+)", page, re.MULTILINE)
    ledger = page.split("## 9. Ledger")[1].split("## References")[0].lower()
    names = [f"{kind.lower()} {number}" for kind, number in stated]
    assert len(names) >= 19
    assert [name for name in names if not re.search(rf"{name}\b", ledger)] == []
