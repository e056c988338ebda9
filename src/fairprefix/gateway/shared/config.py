"""Where Redis is, and how often gateways report."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen

from fairprefix.core.errors import ConfigError, reject

_SCHEMES = ("redis", "rediss", "unix")


@frozen(kw_only=True)
class RedisConfig:
    """How to reach Redis, and how gateways share through it.

    Raises:
        ConfigError: a value is outside its range; the message names the field, the value and the fix.
    """

    url: str
    """redis://HOST:PORT/DATABASE; rediss:// for TLS; unix://PATH."""
    username: str = ""
    password_env: str = ""
    """Environment variable that holds the password."""
    ca_file: str = ""
    """Certificates that are trusted; by default those of the system."""
    namespace: str = "fairprefix"
    """What all keys begin with: gateways with the same one share."""
    interval_ms: int = 50
    """A gateway reports at least this often while something happens: what the others believe is at most this old,
    and the time that Redis takes."""
    lease_ms: int = 2_000
    """A gateway that was not heard of for so long has nobody waiting."""
    timeout_ms: int = 1_000
    """After so long without an answer every gateway goes on alone until Redis is back."""

    def __attrs_post_init__(self) -> None:
        """Check every field."""
        parts = urlsplit(str(self.url))
        if parts.scheme not in _SCHEMES or not (parts.hostname or (parts.scheme == "unix" and bool(parts.path))):
            raise reject("redis url", self.url, "redis://HOST:PORT, rediss://HOST:PORT or unix://PATH")
        if parts.password or parts.username:
            raise ConfigError(
                "redis url: holds a password, which would end up in logs: use username and password_env"
            )
        if not self.namespace or any(char in self.namespace for char in "{}\0"):
            raise reject("namespace", self.namespace, "a name without braces")
        if self.ca_file and parts.scheme != "rediss":
            raise reject("ca_file", self.ca_file, "none without TLS: the url has to begin with rediss://")
        if self.ca_file and not Path(self.ca_file).is_file():
            raise reject("ca_file", self.ca_file, "an existing file in PEM form")
        for name in ("interval_ms", "lease_ms", "timeout_ms"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise reject(name, value, "an integer >= 1")
        if self.lease_ms < 2 * self.interval_ms:
            raise reject("lease_ms", self.lease_ms, f"at least twice interval_ms, {2 * self.interval_ms}")

    def arguments(self, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
        """Return what redis-py's `from_url` takes beside the URL.

        Raises:
            ConfigError: the variable with the password is not set.
        """
        given: dict[str, Any] = {}
        if self.password_env:
            password = environ.get(self.password_env)
            if not password:
                raise ConfigError(f"password_env = {self.password_env!r}: this environment variable is not set")
            given["password"] = password
        if self.username:
            given["username"] = self.username
        if self.url.startswith("rediss:"):
            given["ssl_cert_reqs"] = ssl.CERT_REQUIRED
            given["ssl_check_hostname"] = True
            if self.ca_file:
                given["ssl_ca_certs"] = self.ca_file
        return given
