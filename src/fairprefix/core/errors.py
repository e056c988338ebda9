"""Errors that the core raises, each with a message that names the field, the value and the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FairprefixError(Exception):
    """Base of every error that this library raises on purpose."""


class ConfigError(FairprefixError, ValueError):
    """A parameter is outside its valid range; the message names field, value and range."""


class HostError(FairprefixError):
    """The host broke the life cycle of a request (see `fairprefix.core.policy`)."""


class SnapshotError(FairprefixError, ValueError):
    """A snapshot or an event log cannot be read: wrong schema version, or not ours."""


def reject(field: str, value: object, valid: str) -> ConfigError:
    """Build the error for a bad parameter: `field`, the `value` given and what is `valid`."""
    return ConfigError(f"{field} = {value!r} is not valid: expected {valid}")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the closest of `known`, or an empty string."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" (did you mean {found[0]!r}?)" if found else ""


def at_least(field: str, value: object, least: int) -> int:
    """Return `value` when it is an integer of at least `least`.

    Raises:
        ConfigError: it is not (a bool does not count as an integer).
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise reject(field, value, f"an integer >= {least}")
    return value


def one_of(field: str, value: object, known: Iterable[str]) -> str:
    """Return `value` when it is one of the `known` names.

    Raises:
        ConfigError: it is not; the message suggests the nearest name.
    """
    names = list(known)
    if not isinstance(value, str) or value not in names:
        hint = nearest(value, names) if isinstance(value, str) else ""
        raise reject(field, value, f"one of {', '.join(names)}{hint}")
    return value
