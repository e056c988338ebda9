"""The picture of the imports is that of the sources."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "make" / "diagrams.py"


@pytest.fixture(scope="module")
def diagrams() -> ModuleType:
    """Return the script as a module."""
    spec = importlib.util.spec_from_file_location("diagrams", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_shows_the_imports_of_today(diagrams: ModuleType) -> None:
    """docs/imports.svg is what `python make/diagrams.py` writes."""
    assert diagrams.IMPORTS.read_text(encoding="utf-8") == diagrams.drawing(diagrams.package_imports())


def test_what_follows_from_others_is_not_drawn(diagrams: ModuleType) -> None:
    """An import that can be reached over another package gets no arrow of its own."""
    imports = {"a": {"b", "c"}, "b": {"c"}, "c": set()}
    assert diagrams.direct(imports) == {"a": {"b"}, "b": {"c"}, "c": set()}
    assert diagrams.levels(imports) == [["a"], ["b"], ["c"]]


def test_a_circle_is_told(diagrams: ModuleType) -> None:
    """Packages that import each other have no order."""
    with pytest.raises(ValueError, match="circle"):
        diagrams.levels({"a": {"b"}, "b": {"a"}, "c": set()})
