"""Claims about `fairprefix simulate --workers`: runs, figures, the picture, and wrong input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

THREE = ("--workers", "3", "--limit", "60", "--time-scale", "0.2")


@pytest.fixture
def simulated(call: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Return a function that runs `simulate`, and gives its text and its JSON."""

    def run(*arguments: str) -> Any:  # noqa: ANN401  # JSON
        path = tmp_path / "runs.json"
        outcome = call("simulate", *arguments, "--quiet", "--json", path)
        assert (outcome.code, outcome.err) == (0, "")
        return outcome.out, json.loads(path.read_text(encoding="utf-8"))

    return run


def test_every_policy_runs_with_every_router(simulated: Callable[..., Any]) -> None:
    """The table has a column for each pair, and a line for each worker of each."""
    text, answer = simulated(*THREE, "--policy", "dlpm,lpm", "--router", "d2lpm,rr")
    columns = ["dlpm+d2lpm", "dlpm+rr", "lpm+d2lpm", "lpm+rr"]
    assert columns in [line.split() for line in text.splitlines()]
    assert [(run["policy"], run["router"]) for run in answer["runs"]] == [
        tuple(name.split("+")) for name in columns
    ]
    assert text.count(" w2 ") == 4
    assert "3 x llama-3.1-8b on a10g" in text
    assert [len(run["workers"]) for run in answer["runs"]] == [3] * 4


def test_d2lpm_is_the_router_unless_told(simulated: Callable[..., Any]) -> None:
    """And the configuration is in the JSON."""
    _, answer = simulated(
        *THREE, "--policy", "dlpm", "--router-option", "quantum=777", "--router-option", "index=exact"
    )
    assert answer["config"]["routers"] == ["d2lpm"]
    assert answer["config"]["workers"]["router_settings"]["quantum"] == 777
    assert answer["config"]["workers"]["router_settings"]["index"] == "exact"


def test_workers_may_have_different_gpus(simulated: Callable[..., Any]) -> None:
    """They are given in turn, and so is their memory."""
    text, answer = simulated(*THREE, "--policy", "dlpm", "--worker-gpu", "a10g,a100")
    names = [worker["step_time"] for worker in answer["runs"][0]["workers"]]
    assert names == [f"llama-3.1-8b on {gpu}" for gpu in ("a10g", "a100", "a10g")]
    assert "3 x llama-3.1-8b on a10g and a100" in text
    assert "37,486 or 447,676 tokens" in text


def test_workers_fail_and_recover(simulated: Callable[..., Any]) -> None:
    """What was lost and what was sent again has a row, when there is any."""
    text, answer = simulated(*THREE, "--policy", "dlpm", "--fail", "1@5:20.5", "--fail", "0@40")
    run = answer["runs"][0]
    assert [worker["failures"] for worker in run["workers"]] == [1, 1, 0]
    assert run["completed"] + run["lost"] == 60
    assert run["rerouted"] > 0
    assert "sent again" in text
    assert answer["config"]["workers"]["faults"][1] == {"at_ns": 20_500_000_000, "worker": 1, "recovers": True}


def test_missed_refills_and_the_bound_without_them_are_shown(simulated: Callable[..., Any]) -> None:
    """Binding on arrival misses refills; a pool has no such row."""
    text, answer = simulated(
        "--time-scale", "0.2", "--workers", "3", "--policy", "dlpm", "--router", "cache_aware"
    )
    run = answer["runs"][0]
    assert run["bound"] == run["bound_without_misses"] + run["missed_refills"] * 2048
    assert "missed refills" in text
    text, answer = simulated(*THREE, "--policy", "dlpm", "--router", "central_pool")
    assert answer["runs"][0]["missed_refills"] is None
    assert "missed refills" not in text


def test_the_shared_ledger_runs_with_dlpm_alone(simulated: Callable[..., Any]) -> None:
    """Other policies are left out of that column; staleness is an option."""
    _, answer = simulated(*THREE, "--policy", "lpm,dlpm", "--router", "shared_ledger,rr", "--staleness", "0.5")
    pairs = [(run["policy"], run["router"]) for run in answer["runs"]]
    assert pairs == [("lpm", "rr"), ("dlpm", "shared_ledger"), ("dlpm", "rr")]
    assert answer["config"]["workers"]["staleness_ms"] == 0.5


def test_a_cluster_is_drawn_like_a_single_worker(simulated: Callable[..., Any], tmp_path: Path) -> None:
    """One column per run, whatever is in its name."""
    picture = tmp_path / "runs.png"
    simulated(*THREE, "--policy", "dlpm", "--router", "d2lpm,client_rr", "--plot", str(picture))
    assert picture.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--router rr", "--router is for several workers: give their number with --workers"),
        ("--fail 0@1", "--fail is for several workers"),
        ("--router-option seed=1", "--router-option is for several workers"),
        ("--worker-gpu a10g", "--worker-gpu is for several workers"),
        ("--workers 0", "expected an integer >= 1"),
        ("--workers 2 --router d2lmp", "did you mean 'd2lpm'?"),
        ("--workers 2 --router-option quantun=3", "did you mean 'quantum'?"),
        ("--workers 2 --router-option quantum=0", "quantum = 0 is not valid"),
        ("--workers 2 --router-option quantum", "expected NAME=VALUE"),
        ("--workers 2 --worker-gpu a10g,a100,h100", "--worker-gpu names 3 GPUs for --workers 2"),
        ("--workers 2 --worker-gpu a10f", "did you mean 'a10g'?"),
        ("--workers 2 --fail 2@1", "the workers are 0 to 1"),
        ("--workers 2 --fail 1", "expected WORKER@SECONDS"),
        ("--workers 2 --fail 1@x", "expected WORKER@SECONDS"),
        ("--workers 2 --fail 1@5:4", "RECOVER later than SECONDS"),
        ("--workers 2 --fail -1@5", "expected WORKER@SECONDS"),
        ("--workers 2 --fail 1@5 --fail 1@9", "worker 1 is down already at that time"),
        ("--workers 2 --fail 1@5:10 --fail 1@9", "worker 1 is down already at that time"),
        ("--workers 1 --fail 0@5", "every worker has failed for good"),
        ("--workers 2 --policy lpm --router shared_ledger", "--router shared_ledger: needs --policy dlpm"),
        ("--workers 2 --gate credit --router shared_ledger", "--router shared_ledger: needs --gate deficit"),
        ("--workers 2 --policy dlpm --record x.jsonl", "--record takes the history of one worker"),
        ("--workers 2 --staleness 0", "expected a finite number > 0"),
    ],
)
def test_wrong_input_is_one_message_that_says_what_would_be_right(
    refused: Callable[..., str], arguments: str, message: str
) -> None:
    """Exit code 2, nothing on standard output, no traceback."""
    split = arguments.replace("--fail -1", "--fail=-1").split()
    assert message in refused("simulate", *split)
