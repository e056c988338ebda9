"""`fairprefix verify` gives a verdict on any policy, and a story when it is wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fairprefix.cli.main import main

QUICK = ("--examples", "30")

BROKEN = """
from fairprefix import DLPM

class NoCharge(DLPM):
    def _spend(self, entry, units, reserve):
        super()._spend(entry, 0, reserve)

def make_policy(config, prefixes):
    return NoCharge(config, prefixes)

def raises(config, prefixes):
    raise RuntimeError("no such luck")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module with a broken policy where the command looks for it."""
    (tmp_path / "broken_policy.py").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    return "broken_policy"


def test_a_shipping_policy_keeps_its_promises(capsys: pytest.CaptureFixture[str]) -> None:
    """DLPM passes every check that it claims: exit code 0, and a line for each."""
    assert main(["verify", "dlpm", *QUICK]) == 0
    out = capsys.readouterr().out
    assert " passed" in out.splitlines()[0]
    assert "passed   bound" in out


def test_a_broken_policy_gets_a_story(module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A policy that breaks its claim: exit code 1, a story, JSON, and a history that can be replayed."""
    target, logs = tmp_path / "verdicts.json", tmp_path / "logs"
    claims = ("--claim", "bound=dlpm", "--only", "bound,charge_prompt")
    assert main(["verify", f"{module}:make_policy", *claims, "--json", str(target), "--logs", str(logs)]) == 1
    out = capsys.readouterr().out
    assert "failed" in out
    assert "found with seed 0" in out
    result = json.loads(target.read_text())
    assert result["ok"] is False
    failed = [verdict["check"] for verdict in result["verdicts"] if verdict["status"] == "failed"]
    assert sorted(path.stem for path in logs.iterdir()) == sorted(failed)
    assert main(["replay", str(next(logs.iterdir()))]) == 0


def test_json_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json - the verdicts are on standard output, and the table on standard error."""
    assert main(["verify", "fcfs", "--only", "termination", "--json", "-", *QUICK]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["ok"] is True
    assert "termination" in captured.err


def test_a_factory_that_raises_is_a_verdict(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A factory that raises gives exit code 1 and says what it raised, without a traceback."""
    assert main(["verify", f"{module}:raises", *QUICK]) == 1
    out = capsys.readouterr().out
    assert "raised RuntimeError: no such luck" in out
    assert "Traceback" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dlmp"], "did you mean 'dlpm'?"),
        (["no_such_module:make"], "cannot import 'no_such_module'"),
        (["json:dump5"], "has no 'dump5' (did you mean 'dump'?)"),
        (["dlpm", "--claim", "bond=dlpm"], "there is no claim 'bond' (did you mean 'bound'?)"),
        (["dlpm", "--claim", "bound"], "a value is missing"),
        (["dlpm", "--claim", "weighted=maybe"], "expected true or false"),
        (["dlpm", "--claim", "bound=best"], "expected"),
        (["dlpm", "--only", "bonud"], "did you mean 'bound'?"),
        (["dlpm", "--examples", "0"], "expected an integer >= 1"),
    ],
)
def test_a_wrong_command_line_is_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every mistake gives exit code 2 and one message that names it."""
    assert main(["verify", *arguments]) == 2
    assert message in capsys.readouterr().err
