"""`fairprefix serve` as a process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from fairprefix.cli import serve
from fairprefix.cli.main import main, make_parser

COMMAND = [sys.executable, "-m", "fairprefix", "serve"]
ADDRESS = re.compile(r"at (http://\S+)/v1 under (\w+)")


@contextmanager
def process(*options: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """Start a server; give the process, its address and its startup line."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FAIRPREFIX")}
    with subprocess.Popen(  # noqa: S603 (our own command)
        [*COMMAND, "random", "--port", "0", "--dtype", "float32", "--kv-tokens", "8192", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as server:  # fmt: skip
        assert server.stdout is not None
        line = server.stdout.readline()
        found = ADDRESS.search(line)
        try:
            assert found, (line, server.stderr.read() if server.stderr else "")
            yield server, found[1], line
        finally:
            server.kill()


def test_it_says_where_it_listens_and_how_clients_are_told_apart() -> None:
    """The startup lines name model, address, policy, memory, and where identity comes from."""
    with process("--policy", "vtc", "--trust", "127.0.0.1", "--name", "tiny") as (server, _, line):
        assert "serving tiny at http://127.0.0.1:" in line
        assert "under vtc; KV memory of 8,192 tokens, reservation none" in line
        assert server.stdout is not None
        second = server.stdout.readline()
        assert "header:x-tenant-id from 127.0.0.1" in second


def test_sigterm_lets_requests_finish_and_refuses_new_ones(tmp_path: Path) -> None:
    """A stream that is under way comes to its end, the profile is written, and the process ends with 0."""
    profile = tmp_path / "trace.json"
    with process("--profile", str(profile)) as (server, address, _):
        body = {"prompt": "hello", "max_tokens": 600, "ignore_eos": True, "stream": True}
        events: list[str] = []
        with httpx.stream("POST", f"{address}/v1/completions", json=body, timeout=60) as stream:
            for line in stream.iter_lines():
                if line and not events:
                    server.send_signal(signal.SIGTERM)
                events += [line] if line else []
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/health")
        assert server.wait(20) == 0
    assert events[-1] == "data: [DONE]"
    assert json.loads(events[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"
    assert json.loads(profile.read_text())["traceEvents"]


def test_a_second_signal_ends_it_at_once() -> None:
    """Whoever does not want to wait for requests to finish sends the signal again."""
    with process() as (server, address, _), httpx.Client(timeout=60) as client:
        body = {"prompt": "hello", "max_tokens": 3000, "ignore_eos": True, "stream": True}
        request = client.build_request("POST", f"{address}/v1/completions", json=body)
        lines = client.send(request, stream=True).iter_lines()
        next(lines)
        server.send_signal(signal.SIGTERM)
        assert server.stderr is not None
        while "stopping" not in server.stderr.readline():
            pass
        server.send_signal(signal.SIGTERM)
        with pytest.raises(httpx.RemoteProtocolError):
            list(lines)
        assert server.wait(20) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere"], "there is no model 'nowhere'"),
        (["random", "--policy", "fair"], "'fair' is not valid: expected one of fcfs, lpm, vtc, dlpm"),
        (["random", "--trust", "nowhere"], "trusted = 'nowhere' is not valid"),
        (["random", "--chunk", "8"], "chunk = 8 is not valid: expected an integer >= max_batch = 64"),
        (["random", "--api-keys", "absent.txt"], "--api-keys absent.txt: cannot be read"),
        (["random", "--profile", "absent/trace.json"], "--profile absent/trace.json: there is no directory"),
        (["random", "--config", "absent.toml"], "absent.toml: cannot be read"),
        (["random", "--port", "-1"], "argument --port: '-1' is not valid"),
    ],
)
def test_bad_options_are_one_clear_error(options: list[str], message: str, tmp_path: Path) -> None:
    """Exit code 2 and one line that names the option, the value and the fix."""
    done = subprocess.run([*COMMAND, *options], capture_output=True, text=True, cwd=tmp_path, check=False)  # noqa: S603
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_file_of_keys_is_checked_line_by_line(tmp_path: Path) -> None:
    """The error names file and line."""
    keys = tmp_path / "keys.txt"
    keys.write_text("# clients\nalice secret\nbob\n")
    done = subprocess.run(  # noqa: S603
        [*COMMAND, "random", "--api-keys", str(keys)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "keys.txt:3: expected CLIENT KEY" in done.stderr


@pytest.mark.parametrize(
    ("options", "environment", "expected"),
    [
        ([], {}, ("dlpm", "credit", "none", {})),
        (["--policy", "vtc", "--reservation", "full"], {}, ("vtc", "credit", "full", {})),
        (["--config", "fair.toml"], {}, ("lpm", "deficit", "full", {"a": 3})),
        (["--config", "fair.toml", "--policy", "dlpm", "--weight", "b=2"], {},
         ("dlpm", "deficit", "full", {"a": 3, "b": 2})),
        ([], {"FAIRPREFIX_CONFIG": '{"quantum": 99, "reservation": "none"}'}, ("dlpm", "credit", "none", {})),
        ([], {"FAIRPREFIX_POLICY": "fcfs"}, ("fcfs", "credit", "none", {})),
    ],
)  # fmt: skip
def test_options_have_the_last_word_over_file_and_environment(
    options: list[str],
    environment: dict[str, str],
    expected: tuple[str, str, str, dict[str, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Settings come from the file, else from the environment; options override single ones of them."""
    monkeypatch.chdir(tmp_path)
    Path("fair.toml").write_text('policy = "lpm"\ngate = "deficit"\nreservation = "full"\nweights = {a = 3}\n')
    for name in ("FAIRPREFIX_CONFIG", "FAIRPREFIX_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = serve._policy(make_parser().parse_args(["serve", "random", *options]))
    assert (found.policy, found.gate, found.reservation, dict(found.weights)) == expected


def test_a_port_that_is_taken_is_told_before_a_model_is_loaded() -> None:
    """One message that names address and port, and exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run([*COMMAND, "random", "--port", port], capture_output=True, text=True, check=False)  # noqa: S603
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"fairprefix: error: cannot listen on 127.0.0.1 port {port}: ")
    assert "loading" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["serve", "random"], ["gateway", "--worker", "http://127.0.0.1:1"]])
def test_a_port_that_cannot_be_is_refused(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The message names the option and what would be valid; the same for both servers."""
    for port in ("70000", "-1", "http"):
        assert main([*command, "--port", port]) == 2
        err = capsys.readouterr().err
        assert f"argument --port: '{port}' is not valid: expected a port from 0 to 65535" in err
