"""The socket of a server of ours: opened before anything is announced, with one clear sentence if that fails."""

from __future__ import annotations

import socket

from fairprefix.core.errors import ConfigError, at_least, reject

LAST_PORT = 65_535
_BACKLOG = 2048


def check_port(field: str, value: object) -> int:
    """Return `value` when it is a port; 0 stands for a free one.

    Raises:
        ConfigError: it is not.
    """
    port = at_least(field, value, 0)
    if port > LAST_PORT:
        raise reject(field, value, f"a port from 0 to {LAST_PORT}")
    return port


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 stands for a free one.

    Raises:
        ConfigError: the port is taken, or the address is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as problem:
        raise ConfigError(f"cannot listen on {host} port {port}: {problem.strerror or problem}") from problem


def address_of(listening: socket.socket) -> str:
    """Return http://HOST:PORT of a socket that listens."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
