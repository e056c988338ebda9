"""Fixtures of the command line's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import frozen

from fairprefix.cli.main import main


@frozen
class Outcome:
    """What one call of the program did."""

    code: int
    out: str
    err: str


Call = Callable[..., Outcome]
"""(*arguments) -> what the program did."""


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Return a function that runs the program in this process."""

    def run(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture
def refused(call: Call) -> Callable[..., str]:
    """Return a function that runs the program on wrong input, and gives its one message."""

    def run(*arguments: str | Path) -> str:
        outcome = call(*arguments, *(("--quiet",) if arguments[0] == "simulate" else ()))
        assert (outcome.code, outcome.out) == (2, ""), outcome
        assert outcome.err.startswith("fairprefix: error: ")
        assert outcome.err.count("fairprefix: error: ") == 1
        assert "Traceback" not in outcome.err
        return outcome.err.removeprefix("fairprefix: error: ").rstrip("\n")

    return run


@pytest.fixture
def trace_file(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a trace of the given lines."""

    def write(*lines: str, name: str = "trace.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return write
