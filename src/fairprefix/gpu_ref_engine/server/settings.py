"""What an operator may decide about the server."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from attrs import Factory, field, frozen

from fairprefix.core.errors import at_least, reject

EVERYBODY = "*"


def _networks(names: tuple[str, ...]) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    spelled = [one for name in names for one in (("0.0.0.0/0", "::/0") if name == EVERYBODY else (name,))]
    return tuple(map(_network, spelled))


def _network(name: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        return ipaddress.ip_network(name, strict=False)
    except ValueError:
        raise reject("trusted", name, "an address, a network such as 10.0.0.0/8, or *") from None


@frozen(kw_only=True)
class ServerConfig:
    """Settings of the server.

    Raises:
        ConfigError: a value is outside its range.
    """

    model: str
    """The name under which the model is served."""
    host: str = "127.0.0.1"
    port: int = 8000
    """0: any free one."""
    api_keys: Mapping[str, str] = Factory(dict)
    """Client names by API key; empty: nobody has to show one."""
    trusted: tuple[str, ...] = ()
    """Addresses and networks of proxies whose headers and bodies may say who a client is."""
    max_body: int = 4 << 20
    """Bytes of a request's body."""
    max_prompt: int | None = None
    """Tokens of a prompt; None: what the model and the memory have room for."""
    max_output: int = 4096
    """Tokens of an answer: the most that may be asked for."""
    default_output: int = 256
    """Tokens of a chat answer whose request names no limit."""
    max_waiting: int = 1000
    """Requests that may wait."""
    max_per_client: int | None = None
    """Requests of one client that may wait or run; None: no limit but `max_waiting`."""
    max_choices: int = 16
    """Prompts times answers (`n`) of one request."""
    drain_s: int = 30
    """How long requests may go on after the server was told to stop."""
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = field(init=False)

    @networks.default
    def _parsed(self) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
        return _networks(self.trusted)

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        at_least("port", self.port, 0)
        for name in ("max_body", "max_output", "default_output", "max_waiting", "max_choices", "drain_s"):
            at_least(name, getattr(self, name), 1)
        for name in ("max_prompt", "max_per_client"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)

    def trusts(self, address: str | None) -> bool:
        """Return whether whoever connects from this address may say who a client is."""
        try:
            found = ipaddress.ip_address(address or "")
        except ValueError:
            return False
        return any(found in network for network in self.networks)
