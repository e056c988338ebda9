"""Fragments of release notes are ones that the next release can be made of."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fairprefix.configfile import read_settings

ROOT = Path(__file__).parents[2]
SETTINGS = read_settings(ROOT / "pyproject.toml")["tool"]["towncrier"]
KINDS = {kind["directory"] for kind in SETTINGS["type"]}
FRAGMENTS = sorted(file for file in (ROOT / "changelog.d").iterdir() if file.name != "README.md")


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda file: file.name)
def test_a_fragment_can_be_read(fragment: Path) -> None:
    """It is named after an issue (or +NAME) and a kind, and says something in at most three lines."""
    name = re.fullmatch(r"(\d+|\+[\w-]+)\.(\w+)\.md", fragment.name)
    assert name, fragment
    assert name[2] in KINDS
    lines = fragment.read_text(encoding="utf-8").splitlines()
    assert 1 <= len(lines) <= 3
    assert lines[0].strip()


def test_releases_have_their_place() -> None:
    """CHANGELOG.md has the line below which releases are put; the page that tells how names every kind."""
    assert (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").count(SETTINGS["start_string"].strip()) == 1
    told = (ROOT / "changelog.d" / "README.md").read_text(encoding="utf-8")
    assert all(kind in told for kind in KINDS)
