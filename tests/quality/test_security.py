"""SECURITY.md names a test for each defence; two of them are here.

`make test-defences` takes each defence out, and sees that its test fails.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.history import RecordedIndex, Recorder, opening
from fairprefix.core.prefixes import chain_hashes
from fairprefix.core.request import Request
from tests.quality.defences import NAMED as NAMED_TESTS
from tests.quality.defences import REMOVALS, SOURCES, Removal

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(?:(\w+)::)?(\w+)`")
EXECUTING = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}


def test_each_defence_has_a_test() -> None:
    """Every test that SECURITY.md names exists, and there are at least twenty."""
    named = NAMED.findall((ROOT / "SECURITY.md").read_text(encoding="utf-8"))
    assert len(named) >= 20
    for file, group, name in named:
        body: list[ast.stmt] = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
        if group:
            body = next(node.body for node in body if isinstance(node, ast.ClassDef) and node.name == group)
        functions = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in functions, f"{file}::{name}"


def test_each_defence_can_be_taken_out() -> None:
    """Every test that SECURITY.md names has its removal, and no other test has one."""
    named = set(NAMED_TESTS.findall((ROOT / "SECURITY.md").read_text(encoding="utf-8")))
    assert named == {removal.test for removal in REMOVALS}


@pytest.mark.parametrize("removal", REMOVALS, ids=lambda removal: removal.test.rpartition("::")[2])
def test_what_is_taken_out_is_there(removal: Removal) -> None:
    """The text of each defence stands in its file, once; so a removal removes something."""
    for file, defence, _instead in removal.changes:
        assert (SOURCES / "fairprefix" / file).read_text(encoding="utf-8").count(defence) == 1


def test_a_history_holds_no_prompt() -> None:
    """What is recorded of a request has lengths and hashes; its tokens are in none of it."""
    events = [opening(PolicyConfig(policy="dlpm"), 4)]
    index = RecordedIndex(4, events.append)
    policy = Recorder(make_policy(PolicyConfig(policy="dlpm"), index), events.append)
    tokens = [7_654_321 + number for number in range(8)]
    blocks = chain_hashes(tokens, 4)
    policy.arrive(Request(id="r", client="alice", input_tokens=8, max_output=2, blocks=tuple(blocks)))
    index.cached(tuple(blocks))
    policy.take("r", extend=8, reserve=2)
    policy.produced({"alice": 2})
    policy.finish("r", output=2)
    written = json.dumps(events)
    assert "alice" in written
    assert not any(str(token) in written for token in tokens)


def test_nothing_that_is_read_can_be_executed() -> None:
    """No module unpickles, evaluates text, or reads YAML other than safely."""
    for file in (ROOT / "src").rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                assert not EXECUTING & {alias.name for alias in node.names}, file
            if isinstance(node, ast.ImportFrom):
                assert node.module not in EXECUTING, file
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "yaml.load", "torch.load"), f"{file}: {called}"
