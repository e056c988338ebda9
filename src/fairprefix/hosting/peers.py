"""Whose words count: connections from trusted proxies, by address."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache

from fairprefix.core.errors import reject

EVERYBODY = "*"


class TrustedPeers:
    """Knows which addresses may name clients.

    Args:
        networks: addresses or networks (CIDR); * for everybody.

    Raises:
        ConfigError: one of them is neither.
    """

    def __init__(self, networks: Sequence[str]) -> None:
        self._everybody = EVERYBODY in networks
        self._networks = [_network(name) for name in networks if name != EVERYBODY]
        self._known = lru_cache(maxsize=4096)(self._look_up)

    def __contains__(self, address: object) -> bool:
        """Return whether a peer's address is trusted; one without an address only if everybody is."""
        return self._everybody or (bool(self._networks) and self._known(address))

    def _look_up(self, address: object) -> bool:
        try:
            found = ipaddress.ip_address(str(address).partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(found, "ipv4_mapped", None)
        return any((mapped or found) in network for network in self._networks)


def _network(name: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(name, strict=False)
    except ValueError:
        raise reject("trusted", name, "an address, a network such as 10.0.0.0/8, or *") from None
