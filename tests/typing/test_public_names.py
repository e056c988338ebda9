"""What docs/stability.md promises is there, and what the documentation imports is promised."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[2]
STABILITY = (ROOT / "docs" / "stability.md").read_text(encoding="utf-8")
TABLE = STABILITY.split("| module | for whom |")[1].split("##")[0]
PUBLIC = sorted(set(re.findall(r"`(fairprefix[\w.]*)`", TABLE)) - {"fairprefix.bounds"})
ENGINES = {
    "fairprefix.adapters.ray": "ray",
    "fairprefix.adapters.ray.llm": "ray",
    "fairprefix.adapters.ray.lookup": "ray",
}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

INSIDE = {
    "fairprefix.core.lane": "policies that live in this tree: the page says so",
    "fairprefix.core.heap": "likewise",
    "fairprefix.core.refill": "likewise",
    "fairprefix.gpu_ref_engine.engine": "the reference engine is a program, and is read: its modules move",
    "fairprefix.gpu_ref_engine.load": "likewise",
    "fairprefix.gpu_ref_engine.sampling": "likewise",
    "fairprefix.adapters.ray.lookup": "the handle of an actor, for operators",
}
"""What the documentation imports beside that, and why."""


def imports() -> Iterator[tuple[str, str, str]]:
    """Yield each page, module and name that a snippet imports from us."""
    for page in PAGES:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for node in ast.walk(ast.parse(dedent(block))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fairprefix"):
                    for alias in node.names:
                        yield str(page.relative_to(ROOT)), node.module or "", alias.name


@pytest.mark.parametrize("module", PUBLIC)
def test_a_public_module_lists_its_names(module: str) -> None:
    """It has a sorted `__all__`, every name in it exists, and each class and function says what it is."""
    if module in ENGINES:
        pytest.importorskip(ENGINES[module])
    loaded = importlib.import_module(module)
    names = list(loaded.__all__)
    assert names
    assert len(names) == len(set(names))
    for name in names:
        thing = getattr(loaded, name)
        if callable(thing) and getattr(thing, "__module__", "").startswith("fairprefix"):
            assert thing.__doc__, f"{module}.{name}"


def test_there_are_public_modules() -> None:
    """The page names at least the core, the kit and the hosts' part."""
    assert {"fairprefix", "fairprefix.testing", "fairprefix.hosting"} <= set(PUBLIC)


@pytest.mark.parametrize(("page", "module", "name"), sorted(set(imports())))
def test_the_documentation_imports_what_is_promised(page: str, module: str, name: str) -> None:
    """A snippet takes names from a public module's `__all__`, or from one that is excused above."""
    assert module in PUBLIC or module in INSIDE, f"{page}: {module} is not promised by docs/stability.md"
    if module in PUBLIC:
        file = ROOT / "src" / Path(*module.split("."))
        source = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
        assert f'"{name}"' in source.read_text(encoding="utf-8").split("__all__")[1], f"{page}: {module}.{name}"


def test_every_excuse_is_needed() -> None:
    """What no page imports any more needs no excuse."""
    assert {module for _, module, _ in imports()} >= INSIDE.keys()
