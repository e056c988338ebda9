"""The guides to Ray and Dynamo name what there is: options, settings, figures, modules."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from fairprefix.adapters.dynamo.__main__ import parser
from fairprefix.adapters.ray.settings import LedgerSettings
from fairprefix.core.bounds import Engine
from fairprefix.core.config import PolicyConfig
from fairprefix.hosting.fleet import FleetMonitor

DOCS = Path(__file__).parents[2] / "docs"
RAY, DYNAMO = DOCS / "integrate/ray.md", DOCS / "integrate/dynamo.md"
DYNAMO_S_OWN = {"--model", "--served-model-name", "--http-port"}


def figures() -> set[str]:
    """Return the names of the figures of a fleet with a bound."""
    limits = Engine(reservation="none", kv_tokens=100, max_running=2, longest_input=10, longest_output=10)
    monitor = FleetMonitor(PolicyConfig(), limits)
    monitor.joined("w")
    return {sample.name for sample in monitor.samples()}


@pytest.mark.parametrize("guide", [RAY, DYNAMO], ids=lambda guide: guide.stem)
def test_figures_in_the_guides_exist(guide: Path) -> None:
    """Every metric that is named is one that a fleet has."""
    named = set(re.findall(r"`(fairprefix_\w+)`", guide.read_text(encoding="utf-8")))
    assert named
    assert named <= figures()


@pytest.mark.parametrize("guide", [RAY, DYNAMO], ids=lambda guide: guide.stem)
def test_modules_in_the_guides_exist(guide: Path) -> None:
    """Every module of ours that is named can be found."""
    for name in re.findall(r"\b(fairprefix\.[a-z_.]+[a-z])", guide.read_text(encoding="utf-8")):
        assert find_spec(name), name


def test_options_of_the_component_exist() -> None:
    """Every flag in the guide is the component's, or Dynamo's own."""
    known = {option for action in parser()._actions for option in action.option_strings}
    named = set(re.findall(r"(--[a-z][a-z-]+)", DYNAMO.read_text(encoding="utf-8")))
    assert "--window" in named
    assert named <= known | DYNAMO_S_OWN, named - known


def test_settings_in_the_guide_are_valid() -> None:
    """The settings of the example are taken as they stand."""
    found = re.search(r"SETTINGS = (\{.*\})", RAY.read_text(encoding="utf-8"))
    assert found
    made = LedgerSettings.from_mapping(eval(found[1]))  # noqa: S307 (our own guide)
    assert made.policy.weights == {"premium": 3}
