"""What the pages on policies of one's own show is true: their code runs, and the kit says what is shown."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import SkipTest

import pytest
from attrs import fields
from hypothesis import settings

from fairprefix.cli.main import main
from fairprefix.cli.verify import SCHEMA
from fairprefix.testing.checks import CHECKS, NAMES
from fairprefix.testing.checks.registry import UNIVERSAL
from fairprefix.testing.claims import Claims
from tests.docs.pages import DOCS, code_of, executed, text_of

WRITE, TEST = "write-a-policy.md", "test-your-policy.md"
MODULE = "my_policy"
BROKEN = "broken_policy"
"""What the pages call the modules of the examples."""

WIDEST = 115


@pytest.fixture(scope="module", autouse=True)
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Put the example where the pages put it: into a module that can be imported."""
    folder = tmp_path_factory.mktemp("example")
    (folder / f"{MODULE}.py").write_text(code_of(WRITE)[0], encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        importlib.invalidate_caches()
        yield folder
    for name in (MODULE, BROKEN):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def tested(example: Path) -> dict[str, Any]:  # noqa: ARG001 (the page imports it)
    """Return what the page on testing has defined: it runs the kit, once for all tests here."""
    return executed(TEST)


def test_the_example_runs() -> None:
    """Every snippet of the page on writing a policy runs, and the example serves in the order shown."""
    assert executed(WRITE)["order"] == ["a-short", "b-mid", "a-mid", "a-long"]


def test_the_example_keeps_its_claims(tested: dict[str, Any]) -> None:
    """The example passes all checks that its claims switch on, as many as the page shows."""
    report = tested["report"]
    assert report.ok, report.to_text()
    shown = re.search(r"my_policy:make_policy: (.*) \(seed 0\)", text_of(TEST))
    assert shown
    assert shown[1] in report.to_text().splitlines()[0]


def test_the_broken_variant_is_caught(tested: dict[str, Any]) -> None:
    """The variant that ignores credit breaks the bound, and the story ends with one client ahead of the other."""
    story = tested["verdict"].story
    assert tested["broken"].failed == (tested["verdict"],)
    assert re.search(r"units ahead of \w while both wait; promised", story.lines[-1])


def test_the_suite_has_a_test_per_check(tested: dict[str, Any]) -> None:
    """The class of the page has one test for each check; one that is not claimed is skipped."""
    suite = tested["TestMine"]()
    assert {name for name in dir(suite) if name.startswith("test_")} == {f"test_{name}" for name in NAMES}
    suite.test_looking()
    with pytest.raises(SkipTest, match="locality_aware"):
        suite.test_prefix_order()


def test_the_state_machine_runs(tested: dict[str, Any]) -> None:
    """The test case of the page is a test, and passes."""
    case = tested["TestLongHistories"]
    case.settings = settings(case.settings, max_examples=2, stateful_step_count=10)
    case("runTest").runTest()


def test_shown_verdicts_are_those_of_the_kit() -> None:
    """Every verdict shown names a check that exists, and says what that one says."""
    claim_of = {check.name: check.claim for check in CHECKS}
    shown = re.findall(r"^  (?:passed|failed) +(\w+) +(.*?)(?: \.\.\.)?$", text_of(TEST), re.MULTILINE)
    assert len(shown) > 5
    assert [claim for name, claim in shown if not claim_of[name].startswith(claim)] == []


def test_the_shown_story_is_what_the_command_prints(
    example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The story, its timeline and the replay on the page are those of the commands beside them."""
    (example / f"{BROKEN}.py").write_text(code_of(TEST)[0], encoding="utf-8")
    monkeypatch.chdir(example)
    claims = ("--claim", "bound=dlpm", "--only", "bound")
    assert main(["verify", f"{BROKEN}:make_broken", *claims, "--logs", "broken"]) == 1
    shown = text_of(TEST).split("bound (found with seed 0):\n")[1].split("\n\n")[0].splitlines()
    out = capsys.readouterr().out
    assert len(shown) > 12
    assert [line for line in shown if line.removesuffix("...") not in out] == []
    assert main(["replay", "broken/bound.jsonl", "--policy", f"{MODULE}:make_policy"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] in text_of(TEST)


def test_the_shown_json_has_the_keys_that_are_written(tested: dict[str, Any]) -> None:
    """On the page and in the command's output: the same keys, at each level."""

    def keys(data: Any) -> Any:  # noqa: ANN401 (plain data of any form)
        if isinstance(data, list):
            return [keys(item) for item in data]
        return {key: keys(value) if key in ("verdicts", "story") else None for key, value in data.items()}

    (shown,) = (json.loads(code) for code in code_of(TEST, "json"))
    failed = tested["broken"].to_mapping()
    failed["verdicts"] = [verdict for verdict in failed["verdicts"] if verdict["status"] == "failed"]
    assert keys(shown) == keys({"schema": SCHEMA, **failed})


def test_the_table_names_every_check() -> None:
    """Universal checks are named as such; each of the others stands in the table of claims."""
    section = text_of(TEST).split("## What each claim switches on")[1].split("## Read a story")[0]
    universal, table = section.split("Claims add to them:")
    always = {check.name for check in CHECKS if check.enabled_by == UNIVERSAL}
    assert set(re.findall(r"`(\w+)`", universal)) == always
    assert set(NAMES) - always <= set(re.findall(r"`(\w+)`", table))
    assert [claim.name for claim in fields(Claims) if f"| `{claim.name}" not in table] == []


@pytest.mark.parametrize("page", [WRITE, TEST])
def test_links_and_lines(page: str) -> None:
    """Every linked file exists, and no line is too long."""
    text = text_of(page)
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (DOCS / target).exists(), target
    assert [line for line in text.splitlines() if len(line) > WIDEST] == []
