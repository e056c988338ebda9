"""Where a host that has no command line of ours gets its configuration from.

    FAIRPREFIX_CONFIG=/etc/fair.toml          a file: TOML, JSON or YAML
    FAIRPREFIX_CONFIG='{"quantum": 4096}'     or the settings themselves, as JSON
    FAIRPREFIX_POLICY=vtc                     the policy alone, or instead of the one in the configuration

The settings are those of `fairprefix.core.config.PolicyConfig`. A host differs from the simulator in two defaults:
the gate is `credit`, whose bound does not depend on how the engine admits, and the reservation mode is the
engine's own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from fairprefix.configfile import make_config, read_settings
from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import ConfigError

CONFIG_VARIABLE = "FAIRPREFIX_CONFIG"
POLICY_VARIABLE = "FAIRPREFIX_POLICY"


def is_configured(environ: Mapping[str, str] = os.environ) -> bool:
    """Return whether the environment asks for fairprefix at all."""
    return any(environ.get(name, "").strip() for name in (CONFIG_VARIABLE, POLICY_VARIABLE))


def host_config(
    given: str | Mapping[str, Any] | None = None,
    *,
    reservation: str | None = None,
    environ: Mapping[str, str] = os.environ,
) -> PolicyConfig:
    """Return the configuration of a host.

    Args:
        given: a file's path, settings as JSON text, or settings; None: what FAIRPREFIX_CONFIG says.
        reservation: how this engine admits, `full` or `none`; None when it does as it is configured.
        environ: environment variables.

    Raises:
        ConfigError: the configuration cannot be read, or a setting is unknown, invalid, or contradicts how this
            engine admits; the message says where it came from and names all problems.
    """
    source, settings = _settings(given, environ)
    policy = environ.get(POLICY_VARIABLE, "").strip()
    if policy:
        source = f"{source} and {POLICY_VARIABLE}" if settings else POLICY_VARIABLE
        settings = settings | {"policy": policy}
    wanted = settings.get("reservation", reservation)
    if reservation is not None and wanted != reservation:
        raise ConfigError(
            f"{source}: reservation = {wanted!r} is not valid: this engine admits by {reservation!r}; "
            "leave the setting out"
        )
    defaults = {"gate": "credit"} | ({} if reservation is None else {"reservation": reservation})
    return make_config(defaults | settings, source)


def _settings(given: str | Mapping[str, Any] | None, environ: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """Return where the settings came from, and what they are."""
    if isinstance(given, Mapping):
        return "fairprefix settings", dict(given)
    source = CONFIG_VARIABLE if given is None else "fairprefix settings"
    text = environ.get(CONFIG_VARIABLE, "").strip() if given is None else given.strip()
    if not text:
        return source, {}
    if not text.startswith("{"):
        return text, read_settings(text)
    try:
        return source, dict(json.loads(text))
    except ValueError as problem:
        raise ConfigError(f"{source}: is not valid JSON: {problem}") from problem
