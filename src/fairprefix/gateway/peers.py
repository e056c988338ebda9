"""Whose words count: connections from trusted proxies, by address."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache


class TrustedPeers:
    """Knows which addresses may name clients.

    Args:
        networks: addresses or networks (CIDR); * for everybody.
    """

    def __init__(self, networks: Sequence[str]) -> None:
        self._everybody = "*" in networks
        self._networks = [ipaddress.ip_network(network, strict=False) for network in networks if network != "*"]
        self._known = lru_cache(maxsize=4096)(self._look_up)

    def __contains__(self, address: object) -> bool:
        """Return whether a peer's address is trusted; a peer without one (a Unix socket) is local."""
        return self._everybody or (bool(self._networks) and self._known(address))

    def _look_up(self, address: object) -> bool:
        try:
            found = ipaddress.ip_address(str(address).partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(found, "ipv4_mapped", None)
        return any((mapped or found) in network for network in self._networks)
