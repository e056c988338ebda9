"""Claims about the installed program: it starts, also where attrs is all that is installed."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

from fairprefix.cli.main import main, make_parser

SCRIPT = Path(sys.executable).with_name("fairprefix")

BLOCK = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"matplotlib", "rich", "yaml", "numpy"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
from fairprefix.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
"""Runs the program as if the extras were not installed."""

INTERRUPTED_WHILE_COLLECTING = """
import gc, signal, sys, time
from fairprefix.cli import config
from fairprefix.cli.main import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs have it ignored

def collect_and_wait(_args):
    gc.callbacks.append(lambda phase, info: phase == "stop" and signal.raise_signal(signal.SIGINT))
    gc.collect()
    del gc.callbacks[:]
    time.sleep(20)
    return 0

config.run_show = collect_and_wait
sys.exit(main(["config", "show"]))
"""
"""Runs a command during whose work the user interrupts, at the worst moment."""


def program(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(  # noqa: S603  # our own program
        [str(word) for word in command], capture_output=True, text=True, check=False, timeout=120
    )


class TestInstalled:
    """The program as users start it."""

    @pytest.mark.parametrize("start", [[SCRIPT], [sys.executable, "-m", "fairprefix"]], ids=["script", "module"])
    def test_it_runs(self, start: list[str | Path]) -> None:
        """The console script and `python -m fairprefix` do the same."""
        done = program(*start, "simulate", "--limit", "40", "--policy", "dlpm", "--json", "-", "--quiet")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["runs"][0]["completed"] == 40

    def test_errors_reach_the_shell(self) -> None:
        """Exit code 2, a message, no traceback."""
        done = program(SCRIPT, "simulate", "no-such-file.jsonl")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "fairprefix: error: no-such-file.jsonl: no such file\n"

    def test_a_closed_pipe_is_silent(self) -> None:
        """`fairprefix ... | head` complains about nothing."""
        command = [str(SCRIPT), "config", "show"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # noqa: S603
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""
        assert process.returncode == 141


class TestBareInstall:
    """What works with attrs alone: everything but pictures, YAML and the progress bar."""

    def test_simulate(self) -> None:
        """Table and JSON need no extra."""
        done = program(sys.executable, "-c", BLOCK, "simulate", "--limit", "50", "--json", "-")
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)["runs"]) == 4
        assert "prefix hit rate" in done.stderr

    def test_plot(self, tmp_path: Path) -> None:
        """A picture needs matplotlib: one sentence, before anything is simulated."""
        target = tmp_path / "runs.png"
        done = program(sys.executable, "-c", BLOCK, "simulate", "--limit", "50", "--plot", target)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "fairprefix: error: a plot needs matplotlib: pip install 'fairprefix[report]'\n"
        assert not target.exists()

    def test_yaml(self, tmp_path: Path) -> None:
        """A YAML file needs PyYAML, and the message says how to get it."""
        path = tmp_path / "fair.yaml"
        path.write_text("quantum: 5", encoding="utf-8")
        done = program(sys.executable, "-c", BLOCK, "config", "check", path)
        assert done.returncode == 2
        assert done.stderr == f"fairprefix: error: {path}: YAML needs PyYAML: pip install 'fairprefix[yaml]'\n"


class TestHelp:
    """Help for people who have read nothing else."""

    @pytest.mark.parametrize(
        "command",
        [[], ["simulate"], ["replay"], ["verify"], ["config"], ["config", "check"], ["config", "show"]],
        ids=" ".join,
    )
    def test_every_command_has_examples(self, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        """--help ends with 0 and shows how to use the command."""
        assert main([*command, "--help"]) == 0
        out = capsys.readouterr().out
        assert "example" in out
        assert f"  fairprefix {' '.join(command)}".rstrip() in out

    def test_version(self, capsys: pytest.CaptureFixture[str]) -> None:
        """--version is the package's."""
        assert main(["--version"]) == 0
        assert capsys.readouterr().out == f"fairprefix {version('fairprefix')}\n"


def test_ctrl_c_is_not_lost_while_garbage_is_collected() -> None:
    """Python drops what is raised in the collector's callbacks, and the program would run on: it is told again."""
    done = program(sys.executable, "-c", INTERRUPTED_WHILE_COLLECTING)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "fairprefix: interrupted\n"


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the commands that do something."""
    below = [choice for action in parser._actions if isinstance(action, argparse._SubParsersAction)
             for choice in action.choices.values()]  # fmt: skip
    if not below:
        yield parser
    for each in below:
        yield from leaves(each)


@pytest.mark.parametrize("command", list(leaves(make_parser())), ids=lambda command: command.prog)
def test_every_command_explains_itself(command: argparse.ArgumentParser) -> None:
    """It has a description and examples that name it, and each option says what it does."""
    assert command.description
    assert command.epilog, "no examples"
    assert "\nexample" in f"\n{command.epilog}"
    assert command.prog in command.epilog
    for action in command._actions:
        assert action.help, action
