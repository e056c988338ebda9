"""What survives a restart, and what is refused before the gateway starts."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from fairprefix.cli.main import main
from fairprefix.core.catalog import make_policy
from fairprefix.core.config import PolicyConfig
from fairprefix.core.dlpm import DLPM
from fairprefix.core.errors import ConfigError
from fairprefix.core.prefixes import NoPrefixes
from fairprefix.core.request import Request
from fairprefix.gateway.gateway import restored_policy
from fairprefix.gateway.keys import hash_key
from fairprefix.gateway.state import FORMAT, SCHEMA, FileStore
from tests.gateway.rig import Running, gateway, mock, wait_until

TRUSTED: dict[str, Any] = {"trusted": ["127.0.0.1"]}


def spend(front: Running, name: str, *, tokens: int) -> None:
    """Let a client use something up."""
    body = {"prompt": f"{name} " * 40, "max_tokens": tokens}
    headers = {"x-tenant-id": name}
    assert httpx.post(f"{front.url}/v1/completions", json=body, headers=headers, timeout=30).status_code == 200


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_deficits_and_counters_survive_a_restart(tmp_path: Path, how: signal.Signals) -> None:
    """A gateway that is stopped, or killed, goes on with the debts that its clients had."""
    limits = {**TRUSTED, "state": str(tmp_path / "state.json"), "state_interval_s": 0.2}
    settings = {"quantum": 100_000, "gateway": limits}
    with mock(step_ms=1) as worker:
        address = f"{worker.url},window=4,name=one"
        with gateway(address, settings=settings, folder=tmp_path) as front:
            spend(front, "alice", tokens=30)
            spend(front, "bob", tokens=3)
            before = {name: front.client(name) for name in ("alice", "bob")}
            bound = front.state()["bound"]
            saved = tmp_path / "state.json"
            wait_until(lambda: saved.exists() and json.loads(saved.read_text())["tally"].get("bob", {}).get(
                "output_tokens") == 3, 10)  # fmt: skip
            front.process.send_signal(how)
            front.process.wait(20)
        with gateway(address, settings=settings, folder=tmp_path) as front:
            assert front.state()["bound"] == bound > 0, "debts have come from what was seen before"
            spend(front, "alice", tokens=1)
            alice, bob = front.client("alice"), front.client("bob")
    assert bob["deficit"] == before["bob"]["deficit"] > 0
    assert alice["deficit"] < before["alice"]["deficit"]
    assert alice["output_tokens"] == 31
    assert bob["service"] == before["bob"]["service"]
    assert (tmp_path / "state.json").stat().st_mode & 0o077 == 0


def test_requests_that_were_under_way_hold_nothing_after_a_restart() -> None:
    """What had been charged stays charged; what was set aside for output is given back."""
    config = PolicyConfig(gate="credit", quantum=1000)
    policy = make_policy(config)
    assert isinstance(policy, DLPM)
    for id in ("inside", "waiting"):
        policy.arrive(Request(id=id, client="a", input_tokens=10, max_output=100))
    policy.begin_pass()
    policy.take("inside", extend=10, reserve=100)
    policy.produced({"a": 7})
    again = restored_policy(json.loads(json.dumps(policy.snapshot())), config, NoPrefixes())
    assert isinstance(again, DLPM)
    assert again.deficit("a") == policy.deficit("a") == 1000 - 10 - 14
    assert again.peek() is None
    again.validate()


def test_other_settings_begin_anew_and_other_weights_go_on() -> None:
    """A deficit means something under the settings it came from; a weight may change over night."""
    config = PolicyConfig(quantum=1000, weights={"a": 2})
    policy = make_policy(config)
    policy.arrive(Request(id="x", client="a", input_tokens=10, max_output=10))
    policy.take("x", extend=10, reserve=10)
    saved = policy.snapshot()
    heavier = restored_policy(saved, PolicyConfig(quantum=1000, weights={"a": 5}), NoPrefixes())
    assert isinstance(heavier, DLPM)
    assert heavier.deficit("a") == 2000 - 10
    other = restored_policy(saved, PolicyConfig(quantum=999, weights={"a": 2}), NoPrefixes())
    assert isinstance(other, DLPM)
    assert other.deficit("a") == 0


def test_the_file_is_replaced_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves the state before it, and no litter."""
    store = FileStore(tmp_path / "state.json")
    state: Mapping[str, Any] = {"format": FORMAT, "schema": SCHEMA, "tally": {"a": 1}}
    asyncio.run(store.save(state))

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        asyncio.run(store.save({**state, "tally": {}}))
    assert asyncio.run(store.load()) == state
    assert [file.name for file in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": "other"}', '{"format": "fairprefix.gateway", "schema": 9}']
)
def test_a_damaged_state_stops_the_start_and_says_what_to_do(tmp_path: Path, text: str) -> None:
    """Nobody's debts vanish silently: the operator is told which file to remove."""
    file = tmp_path / "state.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"state.json.*remove it to start afresh"):
        asyncio.run(FileStore(file).load())


GOOD = {"workers": [{"url": "http://127.0.0.1:1"}]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "workers: there is none: give --worker URL"),
        ({"workers": [{"url": "ftp://x"}]}, "worker url = 'ftp://x' is not valid: expected http://HOST:PORT"),
        ({"workers": [{"url": "http://me:secret@x"}]}, "use api_key_env"),
        ({"workers": [{}]}, "[[workers]]: url is missing"),
        ({"workers": {"url": "http://x"}}, "expected tables, each under [[workers]]"),
        ({"workers": [{"url": "http://x", "windw": 3}]}, "unknown setting 'windw' (did you mean 'window'?)"),
        ({"workers": [{"url": "http://x", "window": 0}]}, "window = 0 is not valid: expected an integer >= 1"),
        ({"workers": [{"url": "http://x", "fairprefix": "vlm"}]}, "did you mean 'vllm'?"),
        ({"workers": [{"url": "http://x"}, {"url": "http://x/"}]}, "is given twice"),
        (
            {**GOOD, "gateway": {"trusted": ["10.0.0/33"]}},
            "trusted = '10.0.0/33' is not valid: expected an address",
        ),
        ({**GOOD, "gateway": {"trusted": "10.0.0.0/8"}}, "expected a list of texts"),
        ({**GOOD, "gateway": {"port": 70000}}, "expected a port from 0 to 65535"),
        ({**GOOD, "gateway": {"health_interval_s": 0}}, "expected a number of seconds > 0"),
        ({**GOOD, "gateway": {"state": "/nowhere/at/all"}}, "is no directory that can be written to"),
        ({**GOOD, "keys": [{"client": "a", "sha256": "xyz"}]}, "fairprefix gateway --hash-key"),
        ({**GOOD, "router": {"router": "d2lmp"}}, "did you mean 'd2lpm'?"),
        ({**GOOD, "quantm": 3}, "unknown setting 'quantm' (did you mean 'quantum'?)"),
    ],
)
def test_bad_settings_are_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, Any], message: str
) -> None:
    """The exit code is 2, and the message names field, value and fix."""
    file = tmp_path / "gateway.json"
    file.write_text(json.dumps(settings))
    assert main(["gateway", "--config", str(file)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert "secret" not in error


def test_an_address_in_use_is_one_clear_error(capsys: pytest.CaptureFixture[str]) -> None:
    """Who starts it twice is told so."""
    with mock() as worker:
        assert main(["gateway", "--worker", worker.url, "--port", str(worker.port)]) == 2
    assert f"cannot listen on 127.0.0.1 port {worker.port}" in capsys.readouterr().err


def test_a_key_is_hashed_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is not on the command line, where everybody on the machine could read it."""
    import io  # noqa: PLC0415

    monkeypatch.setattr("sys.stdin", io.StringIO("sk-1\n"))
    assert main(["gateway", "--hash-key"]) == 0
    assert capsys.readouterr().out.strip() == hash_key("sk-1")


def test_without_the_extra_the_command_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, with the command to type."""
    monkeypatch.setitem(__import__("sys").modules, "aiohttp", None)
    assert main(["gateway", "--worker", "http://127.0.0.1:1"]) == 2
    assert "pip install 'fairprefix[gateway]'" in capsys.readouterr().err
