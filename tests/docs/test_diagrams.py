"""The pictures of the imports and of the life cycle are those of the sources."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "make" / "diagrams.py"


@pytest.fixture(scope="module")
def diagrams() -> Iterator[ModuleType]:
    """Return the script as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPT.parent)
        yield loaded()


def loaded() -> ModuleType:
    """Load the script as Python does when it is started."""
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


def test_the_picture_shows_the_life_cycle_of_today(diagrams: ModuleType) -> None:
    """docs/life-cycle.svg has the moves that the contract allows today, found by trying all of them."""
    found = diagrams.moves()
    assert diagrams.LIFE_CYCLE.read_text(encoding="utf-8") == diagrams.life_cycle_drawing(found)
    assert found["queued", "running"] == ("take",)
    assert found["running", "held"] == ("preempt(keep_hold)",)
    assert ("blocked", "running") not in found
    assert {start for start, end in found if end == "forgotten"} == {
        "queued",
        "deferred",
        "blocked",
        "running",
        "held",
    }
