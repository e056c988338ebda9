"""`fairprefix simulate --record` writes a history, and `fairprefix replay` re-executes it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from fairprefix.cli.main import main

SHORT = ("--limit", "30", "--quiet")


@pytest.fixture
def history(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Return the history of a short run under DLPM."""
    path = tmp_path / "run.jsonl"
    assert main(["simulate", "--policy", "dlpm", "--record", str(path), *SHORT]) == 0
    capsys.readouterr()
    return path


def test_a_recorded_run_is_decided_the_same_again(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Replaying a run under its own policy prints every decision, and none differs."""
    assert main(["replay", str(history)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 31
    assert all(line.endswith(": as recorded") for line in lines[:-1])
    assert lines[-1] == "30 admissions under dlpm, 0 would have differed"


def test_another_policy_says_where_it_differs(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Replaying under FCFS shows whom FCFS would have offered instead."""
    assert main(["replay", str(history), "--policy", "fcfs", "--json", "-"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["policy"], result["admissions"]) == ("fcfs", 30)
    assert result["differs"] == sum(entry["taken"] != entry["offered"] for entry in result["decisions"])
    assert result["state"]["policy"] == "fcfs"


def test_histories_may_be_packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that ends in .gz is written and read packed; --json writes to a file, --limit cuts the list."""
    path, target = tmp_path / "run.jsonl.gz", tmp_path / "decisions.json"
    assert main(["simulate", "--policy", "vtc", "--record", str(path), *SHORT]) == 0
    with gzip.open(path, "rt") as lines:
        assert json.loads(next(lines))["event"] == "open"
    capsys.readouterr()
    assert main(["replay", str(path), "--limit", "3", "--json", str(target)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert len(json.loads(target.read_text())["decisions"]) == 30


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("not json\n", ":1: is not valid JSON"),
        ("[1]\n", ":1: expected an object"),
        ('{"event": "arrive"}\n', ":1: a history begins with an event 'open', found 'arrive'"),
        ('{"event": "open", "schema": 99}\n', "schema = 99, expected 1"),
    ],
)
def test_a_file_that_is_no_history_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    """A file that is no history gives exit code 2 and one message with file and line."""
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    assert main(["replay", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_a_broken_line_is_named(history: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An event that cannot be is reported with its line."""
    lines = history.read_text().splitlines()
    history.write_text("\n".join([*lines[:5], '{"event": "finish", "id": "nobody", "output": 0}']))
    assert main(["replay", str(history)]) == 2
    assert "run.jsonl:6: request 'nobody' is unknown" in capsys.readouterr().err


def test_bad_arguments_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing file, an unknown policy, several policies to record, an impossible target: one message each."""
    missing, target = str(tmp_path / "missing.jsonl"), str(tmp_path / "no" / "x.jsonl")
    for arguments, message in (
        (["replay", missing], "cannot be read"),
        (["replay", missing, "--policy", "lmp"], "did you mean 'lpm'?"),
        (["simulate", "--record", str(tmp_path / "x")], "takes the history of one policy, not of 4"),
        (["simulate", "--policy", "lpm", "--record", target], "there is no directory"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


OWN = """
from fairprefix import FCFS

class Newest(FCFS):
    def _candidate(self):
        waiting = [entry for entry in self._entries.values() if entry.stage.value == "queued"]
        return max(waiting, key=lambda entry: entry.seq, default=None)

class Breaks(FCFS):
    def produced(self, tokens):
        raise ZeroDivisionError("no tokens")

def make_policy(config, prefixes):
    return Newest(config, prefixes)

def breaks(config, prefixes):
    return Breaks(config, prefixes)

def raises(config, prefixes):
    raise RuntimeError("no such luck")

def exits(config, prefixes):
    raise SystemExit(0)

class ExitsLater(FCFS):
    def produced(self, tokens):
        raise SystemExit(0)

def nothing(config, prefixes):
    return None
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module with policies of one's own where the command looks for it."""
    (tmp_path / "own_policy.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return "own_policy"


def test_a_policy_of_ones_own_replays_a_history(
    history: Path, own: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """--policy MODULE:FACTORY shows whom that policy would have offered, the youngest request of all here."""
    assert main(["replay", str(history), "--policy", f"{own}:make_policy"]) == 0
    out = capsys.readouterr().out
    assert "would offer" in out
    last = out.splitlines()[-1]
    assert last.startswith(f"30 admissions under {own}:make_policy, ")
    assert not last.endswith(" 0 would have differed")
    assert main(["replay", str(history), "--policy", f"{own}:make_policy", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["policy"] == f"{own}:make_policy"


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("raises", "own_policy:raises: called with (config, prefixes) it raised RuntimeError: no such luck"),
        ("nothing", "it returned None, which is no fairprefix.Policy: it lacks arrive, begin_pass,"),
        ("exits", "own_policy:exits: called with (config, prefixes) it raised SystemExit: 0"),
        ("ExitsLater", "produced() of the policy raised SystemExit: 0"),
        ("breaks", "produced() of the policy raised ZeroDivisionError: no tokens"),
    ],
)
def test_a_broken_policy_of_ones_own_is_a_verdict(
    history: Path, own: str, factory: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A factory or policy that raises gives exit code 1 and says where and what, without a traceback."""
    assert main(["replay", str(history), "--policy", f"{own}:{factory}"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err
    assert "Traceback" not in captured.err


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("no_such_module:make", "cannot import 'no_such_module': ModuleNotFoundError"),
        ("json:dump5", "module 'json' has no 'dump5' (did you mean 'dump'?)"),
        ("own_policy.make_policy", "expected MODULE:FACTORY or one of fcfs"),
    ],
)
def test_a_policy_that_cannot_be_imported_is_explained(
    history: Path, policy: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong module or name gives exit code 2 and one message that names it."""
    assert main(["replay", str(history), "--policy", policy]) == 2
    assert message in capsys.readouterr().err
