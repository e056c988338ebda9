"""`fairprefix verify` gives a verdict on any policy, and a story when it is wrong."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from attrs import evolve

from fairprefix.cli.main import main
from fairprefix.cli.timeline import text_timeline
from fairprefix.testing.events import Arrive, EngineLimits, History
from fairprefix.testing.story import Story
from fairprefix.testing.timeline import Timeline

QUICK = ("--examples", "30")

BROKEN = """
from fairprefix import DLPM

class NoCharge(DLPM):
    def _spend(self, entry, units, reserve):
        super()._spend(entry, 0, reserve)

def make_policy(config, prefixes):
    return NoCharge(config, prefixes)

class Newest(DLPM):
    def _candidate(self):
        waiting = [entry for entry in self._entries.values() if entry.stage.value == "queued"]
        return max(waiting, key=lambda entry: entry.seq, default=None)

def make_newest(config, prefixes):
    return Newest(config, prefixes)

def raises(config, prefixes):
    raise RuntimeError("no such luck")

def exits(config, prefixes):
    raise SystemExit(0)

class ExitsLater(DLPM):
    def peek(self):
        raise SystemExit(0)

class Talks(DLPM):
    def begin_pass(self):
        print("looking around")
        super().begin_pass()

class Shop:
    @property
    def make(self):
        raise ValueError("closed")

shop = Shop()
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Write a module with a broken policy where the command looks for it."""
    (tmp_path / "faulty_policy.py").write_text(BROKEN)
    monkeypatch.chdir(tmp_path)
    return "faulty_policy"


def test_a_shipping_policy_keeps_its_promises(capsys: pytest.CaptureFixture[str]) -> None:
    """DLPM passes every check that it claims: exit code 0, and a line for each."""
    assert main(["verify", "dlpm", *QUICK]) == 0
    out = capsys.readouterr().out
    assert out.startswith("dlpm: 29 passed, 2 skipped")
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


CREDIT_IGNORED = ("--claim", "bound=dlpm", "--only", "bound", *QUICK)


def test_a_story_shows_who_was_served_when(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Under a story stand queue, service and counter of each client, a column a step, and where it broke."""
    assert main(["verify", f"{module}:make_newest", *CREDIT_IGNORED]) == 1
    lines = capsys.readouterr().out.splitlines()
    verdict = next(line for line in lines if "=> step" in line)
    broke_at = int(verdict.split("=> step ")[1].split(":")[0])
    below = lines[lines.index(verdict) + 1 :]
    assert below[0].startswith("     one column a step, ")
    rows = {line[2:16].strip(): line[16:] for line in below[1:]}
    assert below[-1].index("^") == 16 + broke_at
    assert set(rows) == {"a waits", "b waits", "served", "q", ""}
    longest = max(len(row) for label, row in rows.items() if label.endswith("waits"))
    assert broke_at < longest
    assert any(line[2:16].strip() == "q" and line[16] == "\u2588" for line in below)


def test_a_timeline_falls_back_to_ascii() -> None:
    """A stream that cannot show block characters gets plain ones, of the same meaning."""
    points = ((0, 0), (1, 4), (2, 8))
    timeline = Timeline(end=3, broke_at=2, service={"a": points}, backlogged={"a": ((0, 2),)})
    story = Story(History(EngineLimits(), (Arrive("a"),)), (), "step 2: broke", timeline=timeline)
    plain = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    assert text_timeline(story, plain) == [
        "   one column a step, 3 steps in all:",
        "   a waits    ##",
        "     served   _~#  8",
        "                ^ step 2",
    ]
    assert text_timeline(story, io.StringIO())[2] == "     served   ▁▄█  8"
    assert text_timeline(evolve(story, timeline=Timeline()), plain) == []


def test_a_long_timeline_is_squeezed() -> None:
    """However long a history is, its timeline has at most sixty columns, and names at most six clients."""
    service = {f"c{n}": ((0, 0), (900, n)) for n in range(8)}
    timeline = Timeline(end=1000, broke_at=950, service=service, backlogged={"c1": ((17, 34),)})
    story = Story(History(EngineLimits(), (Arrive("a"),)), (), "", timeline=timeline)
    lines = text_timeline(story, io.StringIO())
    assert lines[0] == "   one column 17 steps, 1000 steps in all:"
    assert lines[-2] == "   and 2 clients more"
    assert lines[-1].index("^") == 14 + 950 // 17
    assert lines[3] == "   c1 waits    █"
    assert max(len(line) for line in lines[:-1]) <= 14 + 60 + len("  7")


def test_stories_are_drawn(module: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --plot the stories go into a picture instead of letters; where nothing failed none is written."""
    target = tmp_path / "broken.png"
    assert main(["verify", f"{module}:make_newest", *CREDIT_IGNORED, "--plot", str(target)]) == 1
    out = capsys.readouterr().out
    assert out.endswith(f"{target}: bound\n")
    assert "one column" not in out
    assert target.read_bytes().startswith(b"\x89PNG")
    target.unlink()
    assert main(["verify", "fcfs", "--only", "termination", "--plot", str(target), *QUICK]) == 0
    assert capsys.readouterr().out.endswith(f"{target}: nothing to draw\n")
    assert list(tmp_path.glob("*.png")) == []


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


@pytest.mark.parametrize("factory", ["exits", "ExitsLater"])
def test_a_policy_cannot_end_the_command(factory: str, module: str, capsys: pytest.CaptureFixture[str]) -> None:
    """SystemExit in the factory or in the policy is a verdict like any other exception: exit code 1, never 0."""
    assert main(["verify", f"{module}:{factory}", "--only", "termination,looking", *QUICK]) == 1
    assert "raised SystemExit: 0" in capsys.readouterr().out


def test_what_a_policy_prints_is_not_among_the_verdicts(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json - standard output is JSON and nothing else."""
    assert main(["verify", f"{module}:Talks", "--only", "termination", "--json", "-", *QUICK]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["subject"] == f"{module}:Talks"
    assert "looking around" in captured.err


def test_a_module_that_ends_the_program_is_no_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A script without a main guard, say, gives exit code 2 and not its own."""
    (tmp_path / "a_script.py").write_text("raise SystemExit(0)")
    monkeypatch.chdir(tmp_path)
    assert main(["verify", "a_script:make"]) == 2
    assert "cannot import 'a_script': SystemExit: 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./faulty_policy.py:make_policy", "did you mean 'faulty_policy:make_policy'?"),
        ("policies/mine.py:make", "did you mean 'policies.mine:make'?"),
        ("../mine.py:make", "a module is given by its name, and looked for in the current directory"),
        ("faulty_policy:shop.make", "cannot look up 'shop.make' in 'faulty_policy': ValueError: closed"),
        ("faulty_policy:shop.made", "has no 'shop.made' (did you mean 'make'?)"),
    ],
)
@pytest.mark.usefixtures("module")
def test_a_wrong_path_to_a_factory_is_explained(
    name: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file in place of a module, and an attribute that raises, are told as what they are."""
    assert main(["verify", name]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fcfs", "--only", "bound"], "--only bound: it needs the claim bound"),
        (["fcfs", "--only", "inputs", "--skip", "inputs"], "--skip inputs: --only asks for it"),
        (["fcfs", "--only", "termination", "--logs", __file__], "is a file, expected a directory"),
        (["fcfs", "--only", "termination", "--logs", f"{__file__}/logs"], "is a file, expected a directory"),
        (["dlmp"], "did you mean 'dlpm'?"),
        (["no_such_module:make"], "cannot import 'no_such_module'"),
        (["os:sep"], "os:sep is '/', expected a function (config, prefixes) that returns a policy"),
        (["json:dump5"], "has no 'dump5' (did you mean 'dump'?)"),
        (["dlpm", "--claim", "bond=dlpm"], "there is no claim 'bond' (did you mean 'bound'?)"),
        (["dlpm", "--claim", "bound"], "a value is missing"),
        (["dlpm", "--claim", "weighted=maybe"], "expected true or false"),
        (["dlpm", "--claim", "bound=best"], "expected"),
        (["dlpm", "--only", "bonud"], "did you mean 'bound'?"),
        (["dlpm", "--examples", "0"], "expected an integer >= 1"),
        (["dlpm", "--plot", "broken.txt"], "expected a name that ends in .png, .svg, .pdf"),
    ],
)
def test_a_wrong_command_line_is_explained(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every mistake gives exit code 2 and one message that names it."""
    assert main(["verify", *arguments]) == 2
    assert message in capsys.readouterr().err
