"""Settings of a deployment, and what is said where Ray is missing."""

from __future__ import annotations

import ast
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from fairprefix.adapters.ray import fair_options, options
from fairprefix.adapters.ray.settings import LedgerSettings
from fairprefix.core.errors import ConfigError


def test_settings_survive_json() -> None:
    """What the ledger is sent is what the replicas were given."""
    made = LedgerSettings.from_mapping({"policy": {"quantum": 7, "weights": {"a": 2}}, "window": 3})
    assert LedgerSettings.from_mapping(made.to_mapping()) == made


def test_the_dispatcher_counts_as_the_gates_do() -> None:
    """Weights, costs and the size of the cache are said once."""
    made = LedgerSettings.from_mapping(
        {"policy": {"weights": {"a": 2}, "cost_output": 5}, "router": {"quantum": 9}, "cache_blocks": 77}
    ).dispatcher()
    assert (made.weights, made.cost_output, made.quantum, made.worker_blocks) == ({"a": 2}, 5, 9, 77)
    assert made.output_charge == "finish"
    assert LedgerSettings().dispatcher().output_charge == "average"


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"windw": 3}, "windw.*window"),
        ({"window": 0}, "window = 0"),
        ({"timeout_s": 0}, "timeout_s = 0"),
        ({"report_period_s": "1"}, "report_period_s = '1'"),
        ({"cache_blocks": 0}, "cache_blocks = 0"),
        ({"policy": {"quantm": 1}}, "quantm"),
        ({"router": {"quantum": 0}}, "quantum = 0"),
    ],
)
def test_mistakes_are_named(given: dict[str, object], problem: str) -> None:
    """An unknown or impossible setting is one sentence that names it."""
    with pytest.raises(ConfigError, match=problem):
        LedgerSettings.from_mapping(given)


def test_a_missing_ray_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named; importing the package needs no Ray at all."""
    monkeypatch.setattr(options, "find_spec", lambda _name: None)
    with pytest.raises(options.MissingRayError, match=r"pip install 'fairprefix\[ray\]'"):
        fair_options()


def test_an_old_ray_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A version without the interfaces is refused, with its number."""
    monkeypatch.setattr(options, "find_spec", lambda name: sys.modules[__name__] if name else None)
    monkeypatch.setattr(options, "version", lambda _name: "2.49.2")
    with pytest.raises(options.MissingRayError, match=r"found Ray 2\.49\.2"):
        options.need_ray()


@pytest.mark.parametrize(("module", "name"), [("router", "D2LPMRouter"), ("ledger", "Ledger")])
def test_what_ray_pickles_by_value_is_alone_in_its_module(module: str, name: str) -> None:
    """One class, constants and a logger: state or identity in such a module would exist once per process."""
    found = find_spec(f"fairprefix.adapters.ray.{module}")
    assert found is not None
    assert found.origin is not None
    tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
    made = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)]
    assert [node.name for node in made] == [name]
    # And nobody imports it for anything else, which would make a second one of it.
    users = [
        path.name
        for path in Path(found.origin).parents[2].rglob("*.py")
        if f"adapters.ray.{module} import" in path.read_text(encoding="utf-8")
    ]
    assert users == ([] if module == "router" else ["options.py"])
