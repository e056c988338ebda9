"""A real server of vLLM's, started by a command line as the documentation shows it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

import httpx

PAGE = Path(__file__).parents[2] / "docs" / "integrate" / "vllm.md"
ON_A_CPU = (
    "--enforce-eager --block-size 32 --max-model-len 1024 --max-num-seqs 4 --kv-cache-memory-bytes 67108864 "
    "--served-model-name tiny --no-enable-log-requests --enable-prompt-tokens-details --disable-uvicorn-access-log"
)


def page_blocks(language: str = "sh") -> list[str]:
    """Return the code blocks of the documentation's page on vLLM."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


class Server:
    """A server, from its start to its end.

    Args:
        command: a line for the shell, in which $MODEL stands for the model.
        model: the model's folder.
        environ: environment variables besides those of the tests.
        folder: where it runs; by default a new one.
    """

    def __init__(
        self, command: str, model: Path, environ: dict[str, str] | None = None, folder: Path | None = None
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        folder = folder or Path(tempfile.mkdtemp(prefix="fairprefix-vllm-"))
        self._log = folder / f"{self.port}.log"
        here = Path(sys.executable).parent
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(  # noqa: S603 (our own command)
                ["bash", "-c", command],  # noqa: S607
                cwd=folder,
                env={
                    **os.environ,
                    "PATH": f"{here}:{os.environ['PATH']}",
                    "PYTHONPATH": f"{Path(__file__).parents[2]}:{Path(__file__).parent / 'polite'}",
                    "MODEL": f"{model} --port {self.port} {ON_A_CPU}",
                    **(environ or {}),
                },
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Server:  # noqa: PYI034 (Self is newer than our oldest Python)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        for sign, patience in ((signal.SIGTERM, 20), (signal.SIGKILL, 20)):
            if self.process.poll() is None:
                os.killpg(self.process.pid, sign)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
            break

    def log(self) -> str:
        """Return what it has printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def ready(self, patience: float = 400) -> Server:
        """Wait until it answers."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline and self.process.poll() is None:
            if self._answers():
                return self
            time.sleep(0.5)
        raise AssertionError(f"the server is not ready:\n{self.log()[-6000:]}")

    def _answers(self) -> bool:
        try:
            return bool(httpx.get(f"{self.url}/health", timeout=5).status_code == httpx.codes.OK)
        except httpx.TransportError:
            return False

    def metrics(self, prefix: str = "") -> dict[str, float]:
        """Return its metrics, by name and labels."""
        text = httpx.get(f"{self.url}/metrics", timeout=30, follow_redirects=True).text
        lines = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, _, value in lines if name.startswith(prefix)}

    def total(self, name: str, *having: str) -> float:
        """Return a metric's sum over all labels that contain `having`."""
        return sum(
            value
            for key, value in self.metrics(name).items()
            if key.partition("{")[0] == name and all(part in key for part in having)
        )

    def idle(self, patience: float = 30) -> None:
        """Wait until nothing runs and nothing waits, for vLLM and for us."""
        deadline = time.monotonic() + patience
        names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "fairprefix_queue_depth")
        while any(self.total(name) for name in names):
            assert time.monotonic() < deadline, {name: self.metrics(name) for name in names}
            time.sleep(0.3)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
