"""`fairprefix completion` prints what a shell needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Call


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_commands_and_options_are_in_the_script(call: Call, shell: str) -> None:
    """Each shell's script names commands and options."""
    outcome = call("completion", shell)
    assert outcome.code == 0
    assert "simulate" in outcome.out
    assert "quantum" in outcome.out


def test_bash_completes(call: Call, tmp_path: Path) -> None:
    """A real bash that has read the script completes a command's name."""
    bash = shutil.which("bash")
    assert bash
    script = tmp_path / "completion"
    script.write_text(call("completion", "bash").out)
    lines = (
        f". {script}; COMP_WORDS=(fairprefix simu); COMP_CWORD=1; "
        "$(complete -p fairprefix | sed -E 's/.*-F ([^ ]+).*/\\1/'); echo ${COMPREPLY[@]}"
    )
    ran = subprocess.run([bash, "-c", lines], capture_output=True, text=True, check=True)  # noqa: S603
    assert ran.stdout.split() == ["simulate"]


def test_another_shell_is_refused(call: Call) -> None:
    """The message names those there are."""
    outcome = call("completion", "cmd")
    assert outcome.code == 2
    assert "bash" in outcome.err


def test_without_the_library_the_command_that_installs_it_is_told(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is an extra of its own."""
    monkeypatch.setitem(sys.modules, "shtab", None)
    outcome = call("completion", "bash")
    assert outcome.code == 2
    assert "pip install 'fairprefix[completion]'" in outcome.err
