"""Real processes for the gateway's tests: mock workers, and `fairprefix gateway` in front of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from attrs import define

_MOCK = Path(__file__).with_name("mock_worker.py")
_AT = re.compile(r"at (http://[^/\s]+)")


@define(eq=False)
class Process:
    """A server."""

    process: subprocess.Popen[str]
    url: str

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.url.rpartition(":")[2])

    def kill(self) -> None:
        """Kill it as `kill -9` does."""
        self.process.kill()
        self.process.wait()


@define(eq=False)
class Running(Process):
    """A gateway."""

    admin: str

    def state(self) -> dict[str, Any]:
        """Return what /admin/state says."""
        answer: dict[str, Any] = httpx.get(f"{self.admin}/admin/state", timeout=30).json()
        return answer

    def client(self, name: str) -> dict[str, Any]:
        """Return the figures of one client."""
        return next(client for client in self.state()["clients"] if client["name"] == name)

    def metrics(self) -> dict[str, float]:
        """Return the figures by name and labels."""
        lines = httpx.get(f"{self.admin}/metrics", timeout=30).text.splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def settled(self) -> dict[str, Any]:
        """Wait until no request is under way; return the state.

        Raises:
            AssertionError: a place in a window or a queue has leaked.
        """
        wait_until(lambda: self.metrics()["fairprefix_requests_open"] == 0, 20)
        state = self.state()
        assert state["waiting"] == 0, state
        for worker in state["workers"]:
            assert (worker["in_flight"], worker["queued"], worker["policy_failed"]) == (0, 0, False), worker
        for client in state["clients"]:
            assert (client["running"], client["queued"]) == (0, 0), client
        return state


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    """Wait until something holds.

    Raises:
        AssertionError: it does not in so many seconds.
    """
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it does not become true"
        time.sleep(0.05)


@contextmanager
def mock(**options: float) -> Iterator[Process]:
    """Start a mock worker; options are those of its command line."""
    words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    with _started([sys.executable, str(_MOCK), *words]) as (process, line):
        yield Process(process, _address(line))


@contextmanager
def gateway(
    *workers: str,
    settings: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    options: tuple[str, ...] = (),
) -> Iterator[Running]:
    """Start a gateway in front of workers, given as on its command line.

    Args:
        workers: URLs, with options after commas.
        settings: further ones, written to a file in `folder`.
        folder: for the file.
        options: further ones of the command line.
    """
    command = [sys.executable, "-m", "fairprefix", "gateway", "--port", "0", "--admin-port", "0", *options]
    if settings is not None:
        assert folder is not None
        file = folder / "gateway.json"
        file.write_text(json.dumps(settings))
        command += ["--config", str(file)]
    for worker in workers:
        command += ["--worker", worker]
    with _started(command) as (process, line):
        assert process.stdout is not None
        admin = _address(process.stdout.readline())
        process.stdout.readline()
        yield Running(process, _address(line), admin)


@contextmanager
def _started(command: list[str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FAIRPREFIX")}
    with subprocess.Popen(  # noqa: S603 (our own commands)
        command, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline()
        finally:
            process.kill()


def _address(line: str) -> str:
    found = _AT.search(line)
    assert found, line
    return found[1]
