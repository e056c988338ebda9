"""CI, the workflow and the Makefile are one: the same targets under the same names, each with its line of help."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
MAKEFILES = [ROOT / "Makefile", *sorted((ROOT / "make").glob("*.mk"))]
TARGETS = {
    target
    for file in MAKEFILES
    for target in re.findall(r"^([a-z][a-z-]*):(?:.*##)?", file.read_text(encoding="utf-8"), re.MULTILINE)
}
WORKFLOW = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
PARTS_OF_TEST = {"test-core", "test-others"}
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
NIGHT = re.findall(r"^PARTS := (.*)", (ROOT / "make" / "nightly.mk").read_text(encoding="utf-8"), re.MULTILINE)[
    0
].split()


def workflow_targets() -> set[str]:
    """Return what the workflow makes."""
    jobs = yaml.safe_load(WORKFLOW)["jobs"].values()
    return {target.split()[0] for job in jobs for target in job["strategy"]["matrix"].get("target", ())}


def test_the_workflow_makes_what_there_is() -> None:
    """Every target of the workflow and of CI is one of the Makefile's, or a part of the night."""
    known = TARGETS | {f"nightly-{part}" for part in NIGHT}
    assert workflow_targets() <= known
    assert set(re.findall(r"^make ([a-z-]+)", CI, re.MULTILINE)) <= known


def test_the_workflow_leaves_out_nothing_that_ci_makes() -> None:
    """Contributors see all that has to pass, and every part of the night."""
    needed = set(re.findall(r"^make ([a-z-]+)", CI, re.MULTILINE)) - {"venv", "test-pythons"}
    assert needed <= workflow_targets()
    assert "make/pythons.py" in WORKFLOW
    assert {f"nightly-{part}" for part in NIGHT} <= workflow_targets()


def test_every_target_has_a_line_of_help() -> None:
    """`make help` lists whatever can be typed."""
    for file in MAKEFILES:
        text = file.read_text(encoding="utf-8")
        for line in re.findall(r"^\.PHONY: (.*)", text, re.MULTILINE):
            for target in line.split():
                told = re.search(rf"^{target}:.*## \S", text, re.MULTILINE)
                assert told or target in PARTS_OF_TEST, f"{file.name}: {target}"
