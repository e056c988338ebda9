"""Starts SGLang as users do, `python -m sglang.launch_server`, on the CPU."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from attrs import frozen

STUBS = Path(__file__).parent / "stubs"
FLAGS = (
    *("--device", "cpu", "--attention-backend", "torch_native", "--sampling-backend", "pytorch"),
    *("--grammar-backend", "none", "--dtype", "bfloat16", "--disable-cuda-graph", "--skip-server-warmup"),
    *("--max-total-tokens", "16384", "--context-length", "4096", "--mem-fraction-static", "0.3"),
    *(
        "--max-running-requests",
        "8",
        "--sleep-on-idle",
        "--enable-metrics",
        "--enable-cache-report",
        "--log-level",
        "info",
    ),
)
_START_S = 240


@frozen
class Server:
    """A running server."""

    url: str
    log: Path

    def metrics(self) -> dict[str, float]:
        """Return what its Prometheus endpoint says, by name and labels as printed."""
        with urlopen(f"{self.url}/metrics", timeout=30) as reply:
            lines = reply.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in pairs}


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a server: nothing of fairprefix but these settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FAIRPREFIX_")}
    own = {
        "SGLANG_USE_CPU_ENGINE": "1",
        # What else is on the path may be another version of SGLang than the installed one.
        "PYTHONPATH": os.pathsep.join(filter(None, [str(STUBS), os.environ.get("PYTHONPATH")])),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONUNBUFFERED": "1",
    }
    return {**inherited, **own, **settings}


LAUNCH = ("python", "-m", "sglang.launch_server", "--model-path", "MODEL")


def start(
    model: Path, log: Path, *flags: str, command: Sequence[str] = LAUNCH, **settings: str
) -> subprocess.Popen[bytes]:
    """Start a server process with a process group of its own, by this command and further flags."""
    words = {"python": sys.executable, "MODEL": str(model)}
    command = [words.get(word, word) for word in command] + [*FLAGS, *flags]
    with log.open("wb") as output:
        return subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=environment(settings), start_new_session=True
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and its children."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)


@contextmanager
def running(
    model: Path, log: Path, *flags: str, command: Sequence[str] = LAUNCH, **settings: str
) -> Iterator[Server]:
    """Run a server until the block ends."""
    port = _free_port()
    process = start(model, log, "--port", str(port), *flags, command=command, **settings)
    try:
        server = Server(f"http://127.0.0.1:{port}", log)
        _wait(server, process)
        yield server
    finally:
        stop(process)


def _free_port() -> int:
    """Return a port that nobody listens on, to which SGLang can add 10,000 for another one."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def _wait(server: Server, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"the server ended with {process.returncode}: {_tail(server.log)}")
        try:
            with urlopen(f"{server.url}/v1/models", timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.25)
    raise AssertionError(f"the server did not start in {_START_S} s: {_tail(server.log)}")


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]
