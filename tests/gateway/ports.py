"""Ports for servers that take minutes to start: below those that the system hands out by itself meanwhile."""

from __future__ import annotations

import os
import socket

_FIRST, _LAST, _STEP, _BETWEEN = 21_000, 30_000, 10, 5


def port_pairs(ranks: int) -> tuple[int, int]:
    """Return two ports, each the first of so many that nobody listens on."""
    begin = _FIRST + os.getpid() * _STEP % (_LAST - _FIRST)
    for base in (*range(begin, _LAST, _STEP), *range(_FIRST, begin, _STEP)):
        first, second = base, base + _BETWEEN
        if all(_is_free(port + rank) for port in (first, second) for rank in range(ranks)):
            return first, second
    raise AssertionError("no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
