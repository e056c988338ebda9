"""What an operator may decide about the server."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import Factory, field, frozen

from fairprefix.core.errors import at_least
from fairprefix.hosting.listen import check_port
from fairprefix.hosting.peers import TrustedPeers


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
    _peers: TrustedPeers = field(init=False, eq=False, repr=False)

    @_peers.default
    def _parsed(self) -> TrustedPeers:
        return TrustedPeers(self.trusted)

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        check_port("port", self.port)
        for name in ("max_body", "max_output", "default_output", "max_waiting", "max_choices", "drain_s"):
            at_least(name, getattr(self, name), 1)
        for name in ("max_prompt", "max_per_client"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1)

    def trusts(self, address: str | None) -> bool:
        """Return whether whoever connects from this address may say who a client is."""
        return address in self._peers
