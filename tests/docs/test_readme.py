"""What the README shows is true: its code runs, and its figures come out."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from fairprefix.core.config import PolicyConfig
from fairprefix.sim.engine import EngineConfig
from fairprefix.sim.simulate import simulate
from fairprefix.sim.steptime import step_time_model
from fairprefix.sim.trace import load_sample

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
POLICIES = ("fcfs", "lpm", "vtc", "dlpm")


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_every_snippet_runs(code: str) -> None:
    """A snippet of the README runs as it stands."""
    exec(compile(code, "README.md", "exec"), {})  # noqa: S102 (that is the point)


@cache
def figures(policy: str) -> dict[str, Any]:
    """Return what `make demo` finds."""
    model = step_time_model("llama-3.1-8b", "a10g")
    engine = EngineConfig(kv_tokens=model.kv_tokens)
    return simulate(load_sample(), PolicyConfig(policy=policy), engine, model).figures


def row(label: str) -> list[str]:
    """Return the fields of a row of the README's table, without emphasis."""
    line = next(line for line in README.splitlines() if line.startswith(f"| {label}"))
    return [field.strip(" *") for field in line.split("|")[2:-1]]


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("prompt tokens from the cache", lambda run: f"{100 * run['prefix_hit_rate']:.0f} %"),
        ("tokens per second", lambda run: f"{run['total_token_throughput']:,.0f}"),
        ("Jain's fairness index", lambda run: f"{run['jain_index']:.2f}"),
        (
            "largest gap between two clients",
            lambda run: f"{run['bound_ratio']:.1f} x" if run["bound_ratio"] > 1 else f"{run['bound_ratio']:.2f} x",
        ),
        (
            "median time to first token of the chat",
            lambda run: f"{run['clients']['chat']['median_ttft_ms'] / 1000:.0f} s",
        ),
    ],
)
def test_the_table_shows_what_the_demo_finds(label: str, shown: Any) -> None:  # noqa: ANN401 (a formatter)
    """Each row of the README's table is what the simulation of the packaged trace gives."""
    assert row(label) == [shown(figures(policy)) for policy in POLICIES]


def test_linked_files_exist() -> None:
    """Every file that the README links to is there."""
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
