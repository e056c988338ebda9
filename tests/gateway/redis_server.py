"""A real Redis, on a port or TLS port of its own, that tests may kill and bring back."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType

SERVER = shutil.which("redis-server") or shutil.which("valkey-server")
_PATIENCE_S = 30


class RedisServer:
    """See above; nothing is kept on disk.

    Args:
        folder: where it runs.
        password: what it asks for.
        certificates: a folder with ca.crt, server.crt and server.key: then it speaks TLS alone.
    """

    def __init__(self, folder: Path, *, password: str = "", certificates: Path | None = None) -> None:
        assert SERVER, "no redis-server here: make services installs it"
        self.port = _free_port()
        self.url = f"{'rediss' if certificates else 'redis'}://localhost:{self.port}/0"
        listen = ["--port", str(self.port)]
        if certificates:
            listen = ["--port", "0", "--tls-port", str(self.port), "--tls-auth-clients", "no"]
            for option, name in (("cert", "server.crt"), ("key", "server.key"), ("ca-cert", "ca.crt")):
                listen += [f"--tls-{option}-file", str(certificates / name)]
        self._command = [SERVER, *listen, "--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "::1"]
        self._command += ["--requirepass", password] if password else []
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RedisServer:  # noqa: PYI034 (Self is newer than our oldest Python)
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        with (self._folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(self._command, cwd=self._folder, stdout=log, stderr=log)  # noqa: S603
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:  # noqa: PERF203 (it is about to start)
                time.sleep(0.02)
            else:
                return
        raise AssertionError((self._folder / "redis.log").read_text())

    def kill(self) -> None:
        """Kill it; what it knew is lost."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_PATIENCE_S)
            self._process = None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
