"""Claims about wrong input: exit code 2, one message that says what is wrong and what would be right."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fairprefix.cli import main as main_module
from fairprefix.cli.main import main

Refused = Callable[..., str]
TraceFile = Callable[..., Path]


def line(**fields: object) -> str:
    """Return a valid line of a trace, but for these fields."""
    valid = {"arrival_s": 0, "client": "a", "input_tokens": 40, "output_tokens": 5}
    return json.dumps(valid | fields)


class TestTraces:
    """A trace that cannot be run is refused with file, line and field."""

    def test_a_missing_file(self, refused: Refused, tmp_path: Path) -> None:
        """The message names the file."""
        assert refused("simulate", tmp_path / "nothing.jsonl") == f"{tmp_path / 'nothing.jsonl'}: no such file"

    def test_an_empty_file(self, refused: Refused, trace_file: TraceFile) -> None:
        """An empty trace is an error, and not a run without requests."""
        path = trace_file()
        assert refused("simulate", path) == f"{path}: the file is empty"

    def test_a_bad_line(self, refused: Refused, trace_file: TraceFile) -> None:
        """A broken line is named by its number."""
        path = trace_file(line(), "{")
        assert refused("simulate", path).startswith(f"{path}:2: is not valid JSON")

    @pytest.mark.parametrize("field", ["input_tokens", "output_tokens"])
    def test_negative_lengths(self, refused: Refused, trace_file: TraceFile, field: str) -> None:
        """A negative length is refused with its field and the valid range."""
        path = trace_file(line(), line(), line(**{field: -1}))
        assert refused("simulate", path) == f"{path}:3: {field} = -1 is not valid: expected an integer >= 1"

    def test_hashes_that_do_not_cover_the_prompt(self, refused: Refused, trace_file: TraceFile) -> None:
        """Too few hashes would silently mean fewer cache hits."""
        path = trace_file(line(block_size=16, hash_ids=[1]))
        message = refused("simulate", path)
        assert message.startswith(f"{path}:1: hash_ids")
        assert "40" in message

    def test_a_request_that_can_never_fit(self, refused: Refused, trace_file: TraceFile) -> None:
        """The message gives both sizes, and both ways out."""
        message = refused("simulate", trace_file(line(), line(input_tokens=5000)), "--kv-tokens", "2000")
        assert "5000 in" in message
        assert "holds 2000" in message
        assert "--kv-tokens" in message
        assert "--oversize reject" in message

    def test_clients_for_a_trace_that_has_them(self, refused: Refused, trace_file: TraceFile) -> None:
        """Recorded clients are never overwritten by composed ones."""
        message = refused("simulate", trace_file(line()), "--clients", "4")
        assert message == "--clients 4: trace trace.jsonl has clients of its own; leave --clients out"

    def test_a_format_without_a_file(self, refused: Refused) -> None:
        """The packaged trace has the format that it has."""
        assert "--format azure" in refused("simulate", "--format", "azure")


class TestOptions:
    """An option that makes no sense is refused by name, with its value and what is valid."""

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            (["--policy", "dlmp"], ["--policy", "'dlmp'", "did you mean 'dlpm'?"]),
            (["--policy", "dlpm,dlpm"], ["--policy", "given twice"]),
            (["--policy", ""], ["--policy", "fcfs, lpm, vtc, dlpm"]),
            (["--model", "llama-3.1-7b"], ["--model", "did you mean 'llama-3.1-8b'?"]),
            (["--gpu", "a10"], ["--gpu", "did you mean 'a10"]),
            (["--format", "moncake", "x"], ["--format", "did you mean 'mooncake'?"]),
            (["--gate", "credits"], ["--gate", "did you mean 'credit'?"]),
            (["--reservation", "ful"], ["--reservation", "did you mean 'full'?"]),
            (["--oversize", "drop"], ["--oversize", "one of error, reject"]),
            (["--quantum", "0"], ["--quantum", "'0'", "an integer >= 1"]),
            (["--quantum", "abc"], ["--quantum", "'abc'", "an integer >= 1"]),
            (["--quantum", "1.5"], ["--quantum", "'1.5'", "an integer >= 1"]),
            (["--slack", "-1"], ["--slack", "'-1'", "an integer >= 0"]),
            (["--seed", "-1"], ["--seed", "'-1'", "an integer >= 0"]),
            (["--time-scale", "0"], ["--time-scale", "'0'", "a finite number > 0"]),
            (["--time-scale", "nan"], ["--time-scale", "'nan'", "a finite number > 0"]),
            (["--time-scale", "fast"], ["--time-scale", "'fast'", "a finite number > 0"]),
            (["--weight", "flood"], ["--weight", "'flood'", "NAME=W"]),
            (["--weight", "flood=0"], ["--weight", "'flood=0'", "NAME=W"]),
            (["--weight", "flod=2"], ["--weight flod=2", "did you mean 'flood'?"]),
            (["--gate", "credit", "--overdraft", "5"], ["overdraft = 5", "gate 'credit'"]),
            (["--quantm", "5"], ["unknown argument '--quantm'", "did you mean '--quantum'?"]),
            (["--quant", "5"], ["unknown argument '--quant'"]),
            (["one", "two"], ["unknown argument 'two'"]),
            (["--json"], ["--json", "expected one argument"]),
        ],
    )
    def test_bad_values(self, refused: Refused, arguments: list[str], parts: list[str]) -> None:
        """Option, value and what is valid all stand in the message."""
        message = refused("simulate", *arguments)
        for part in parts:
            assert part in message

    def test_unknown_commands(self, refused: Refused) -> None:
        """The nearest command is suggested, at both levels."""
        assert "did you mean 'simulate'?" in refused("simulat")
        assert "did you mean 'check'?" in refused("config", "chek")

    def test_missing_commands(self, refused: Refused, capsys: pytest.CaptureFixture[str]) -> None:
        """Without a command the message lists what there is, at both levels."""
        assert main([]) == 2
        assert "expected one of simulate" in capsys.readouterr().err
        assert "expected one of check, show" in refused("config")


class TestTargets:
    """An output that cannot be written is refused before the simulation, and not after it."""

    @pytest.fixture(autouse=True)
    def no_simulation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Fail if anything is simulated."""
        monkeypatch.setattr("fairprefix.cli.simulate.simulate", lambda *_: pytest.fail("simulated all the same"))

    @pytest.mark.parametrize(("option", "name"), [("--json", "r.json"), ("--plot", "r.png")])
    def test_a_missing_directory(self, refused: Refused, tmp_path: Path, option: str, name: str) -> None:
        """Directories are not made up."""
        message = refused("simulate", option, tmp_path / "absent" / name)
        assert message.endswith(f"there is no directory {(tmp_path / 'absent').resolve()}")

    def test_a_directory(self, refused: Refused, tmp_path: Path) -> None:
        """A directory is no file."""
        assert "is a directory" in refused("simulate", "--json", tmp_path)

    def test_a_picture_of_unknown_kind(self, refused: Refused, tmp_path: Path) -> None:
        """The suffix decides the format."""
        assert ".png, .svg, .pdf" in refused("simulate", "--plot", tmp_path / "runs.jpg")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_directory_without_leave_to_write(self, refused: Refused, tmp_path: Path) -> None:
        """Leave to write is checked too."""
        tmp_path.chmod(0o500)
        try:
            assert "may not be written" in refused("simulate", "--json", tmp_path / "r.json")
        finally:
            tmp_path.chmod(0o700)

    def test_an_input(self, refused: Refused, trace_file: TraceFile) -> None:
        """A trace is not overwritten by its own result."""
        path = trace_file(line())
        assert "is an input of this command" in refused("simulate", path, "--json", path)
        assert path.read_text(encoding="utf-8") == f"{line()}\n"


class TestEnds:
    """However the program ends, it ends without a traceback."""

    @pytest.mark.parametrize(
        ("error", "code", "message"),
        [
            (KeyboardInterrupt(), 130, "fairprefix: interrupted\n"),
            (BrokenPipeError(), 141, ""),
            (OSError(28, "No space left on device"), 2, "fairprefix: error: [Errno 28] No space left on device\n"),
        ],
    )
    def test_exit_codes(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        error: BaseException,
        code: int,
        message: str,
    ) -> None:
        """Ctrl-C is one line, a closed pipe is silent, a full disk is an error."""

        def fail(_argv: list[str]) -> int:
            raise error

        monkeypatch.setattr(main_module, "_run", fail)
        assert main([]) == code
        assert capsys.readouterr().err == message


class TestIdleOptions:
    """An option that would be ignored is refused: whoever gives it expects something of it."""

    @pytest.mark.parametrize(
        ("given", "needs"),
        [
            (("--programs", "5"), "--workload"),
            (("--rate", "2"), "--workload"),
            (("--slack", "5"), "--gate credit"),
            (("--staleness", "50"), "--workers"),
            (("--workers", "2", "--staleness", "50"), "--router shared_ledger"),
        ],
    )
    def test_of_simulate(self, refused: Refused, given: tuple[str, ...], needs: str) -> None:
        """The message names the option, its value, and what it belongs to."""
        message = refused("simulate", "--limit", "10", *given)
        assert message.startswith(given[-2])
        assert needs in message

    @pytest.mark.parametrize(
        ("where", "idle"),
        [
            (("--url", "http://127.0.0.1:9"), ("--policy", "lpm")),
            (("--url", "http://127.0.0.1:9"), ("--kv-tokens", "100")),
            (("--engine", "random"), ("--model", "other")),
            (("--engine", "random"), ("--timeout", "5")),
        ],
    )
    def test_of_bench(self, refused: Refused, where: tuple[str, str], idle: tuple[str, str]) -> None:
        """Options of an endpoint say nothing to an engine, and the other way round."""
        assert refused("bench", *where, *idle).startswith(f"{idle[0]} {idle[1]}")

    def test_a_key_that_is_not_there(self, refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
        """A variable that is named but not set is no key: requests would be sent without one."""
        monkeypatch.delenv("NO_SUCH_KEY", raising=False)
        message = refused("bench", "--url", "http://127.0.0.1:9", "--key-env", "NO_SUCH_KEY")
        assert message == "--key-env NO_SUCH_KEY: there is no such variable in the environment"

    def test_a_url_without_http(self, refused: Refused) -> None:
        """The message shows the form."""
        message = refused("bench", "--url", "localhost:8000")
        assert message == "--url localhost:8000: expected http://HOST:PORT or https://HOST"


def test_a_weight_for_nobody_lists_the_clients(refused: Refused) -> None:
    """Whoever misspells a name sees those that there are."""
    message = refused("simulate", "--limit", "640", "--weight", "nobody=2")
    assert message.startswith("--weight nobody=2: trace sample.jsonl.gz has no such client")
    assert message.endswith("; it has agent, chat, flood")


@pytest.mark.parametrize(
    ("command", "extras"), [(("serve", "random"), "engine,server"), (("demo",), "engine,report")]
)
def test_all_extras_that_a_command_needs_are_named_at_once(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], extras: str
) -> None:
    """One install, not one after each message."""
    monkeypatch.setitem(sys.modules, "torch", None)
    assert refused(*command).endswith(f"pip install 'fairprefix[{extras}]'")
