"""Runs both listeners; SIGTERM stops accepting requests and lets those under way finish."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fairprefix.gateway.admin import AdminApp
from fairprefix.gateway.app import ABORT, GatewayApp
from fairprefix.gateway.gateway import Gateway
from fairprefix.hosting.listen import address_of, listen

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_GARBAGE = (20_000, 20, 50)


class Connection(HttpToolsProtocol):
    """Uvicorn's connection, which tells the application how to break it off: ASGI has no word for that.

    What is buffered for a client that reads nothing would keep it open for ever.
    """

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self.scope.setdefault("extensions", {})[ABORT] = {"now": self.transport.abort}


class Listener(uvicorn.Server):
    """Uvicorn, which leaves signals to us."""

    def __init__(self, app: Any, drain_s: int) -> None:  # noqa: ANN401 (any ASGI application)
        super().__init__(
            uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                # Or a header could change the address by which clients are trusted.
                proxy_headers=False,
                server_header=False,
                lifespan="off",
                http=Connection,
                ws="none",
                timeout_graceful_shutdown=drain_s,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them alone."""
        yield


def serve(gateway: Gateway, announce: Callable[[str, str], None]) -> None:
    """Serve until told to stop.

    Args:
        gateway: what to serve.
        announce: called with the addresses of both listeners.

    Raises:
        ConfigError: an address cannot be listened on, or the saved state cannot be used.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    with contextlib.ExitStack() as stack:
        limits = gateway.settings.gateway
        public = stack.enter_context(listen(limits.host, limits.port))
        admin = stack.enter_context(listen(limits.admin_host, limits.admin_port))
        _run(_serve(gateway, public, admin, announce))


def _run(main: Any) -> None:  # noqa: ANN401 (a coroutine)
    try:
        import uvloop  # noqa: PLC0415 (not on every platform)
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


async def _serve(
    gateway: Gateway, public: socket.socket, admin: socket.socket, announce: Callable[[str, str], None]
) -> None:
    await gateway.start()
    drain_s = gateway.settings.gateway.drain_s
    listeners = [Listener(GatewayApp(gateway), drain_s), Listener(AdminApp(gateway), 1)]

    def stop() -> None:
        if gateway.draining:
            for listener in listeners:
                listener.force_exit = True
            return
        gateway.draining = True
        listeners[0].should_exit = True
        sys.stderr.write(f"fairprefix: stopping; {len(gateway.exchanges)} requests go on to their end\n")

    # What is there now stays: looking it over again and again costs a tenth of the throughput.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE)
    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    announce(address_of(public), address_of(admin))
    side = asyncio.create_task(listeners[1].serve(sockets=[admin]))
    try:
        await listeners[0].serve(sockets=[public])
    finally:
        listeners[1].should_exit = True
        await side
        await gateway.stop()
