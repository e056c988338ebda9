"""Runs the server: listens, says so, and on SIGTERM lets requests finish before it goes."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Iterator

import uvicorn

from fairprefix.gpu_ref_engine.server.app import make_app
from fairprefix.gpu_ref_engine.server.service import Service
from fairprefix.hosting.listen import address_of

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Server(uvicorn.Server):
    """Uvicorn, with our way of starting and stopping.

    Args:
        service: what is served.
        announce: called with the address once the server accepts requests.
    """

    def __init__(self, service: Service, announce: Callable[[str], None]) -> None:
        config = uvicorn.Config(
            make_app(service),
            log_level="warning",
            access_log=False,
            # Or a header could change the address by which clients are trusted.
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=service.config.drain_s,
        )
        super().__init__(config)
        self._service = service
        self._announce = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept requests, and say where."""
        await super().startup(sockets)
        if self.started:
            self._announce(address_of(self.servers[0].sockets[0]))

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Drain on the first signal, leave at once on the second."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        if self.should_exit:
            self.force_exit = True
            return
        self._service.worker.draining = True
        self.should_exit = True
        waiting = self._service.worker.requests
        sys.stderr.write(f"fairprefix: stopping; {waiting} requests go on to their end\n")


def serve(service: Service, listening: socket.socket, announce: Callable[[str], None]) -> None:
    """Serve on a socket that listens, until told to stop."""
    asyncio.run(Server(service, announce).serve(sockets=[listening]))
