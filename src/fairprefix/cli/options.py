"""Types of command-line options: each turns text into a checked value, or says what would be valid.

argparse puts the option's name before the message: "argument --quantum: '0' is not valid: expected ...".
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from typing import Protocol

from fairprefix.core.errors import ConfigError, nearest
from fairprefix.hosting.listen import LAST_PORT, check_port


def whole(least: int) -> Callable[[str], int]:
    """Return the type of an integer of at least `least`."""

    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise _invalid(text, f"an integer >= {least}")
        return value

    return convert


def port(text: str) -> int:
    """Return a port; 0 stands for a free one."""
    try:
        return check_port("port", whole(0)(text))
    except (argparse.ArgumentTypeError, ConfigError):
        raise _invalid(text, f"a port from 0 to {LAST_PORT}") from None


def positive(text: str) -> float:
    """Return a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise _invalid(text, "a finite number > 0")
    return value


def name_of(known: Iterable[str]) -> Callable[[str], str]:
    """Return the type of a name that has to be one of those `known`."""
    names = tuple(known)

    def convert(text: str) -> str:
        if text not in names:
            raise _invalid(text, f"one of {', '.join(names)}{nearest(text, names)}")
        return text

    return convert


def names_of(known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    """Return the type of a comma-separated list of `known` names, each at most once."""
    name = name_of(known)

    def convert(text: str) -> tuple[str, ...]:
        found = tuple(name(part.strip()) for part in text.split(","))
        for place, part in enumerate(found):
            if part in found[:place]:
                raise argparse.ArgumentTypeError(f"{part!r} is given twice in {text!r}")
        return found

    return convert


def weight(text: str) -> tuple[str, int]:
    """Return a client's name and weight from NAME=W; the name itself may hold an equals sign."""
    name, _, value = text.rpartition("=")
    try:
        number = int(value)
    except ValueError:
        number = 0
    if not name or number < 1:
        raise _invalid(text, "NAME=W with an integer weight W >= 1")
    return name, number


def either(names: Iterable[str]) -> str:
    """Return names as a choice between them."""
    *others, last = names
    return f"{', '.join(others)} or {last}"


class Options(Protocol):
    """A parser, or a group of its options."""

    @property
    def add_argument(self) -> Callable[..., argparse.Action]:
        """Adds an option."""
        ...


def add_settings(options: Options, *, variable: str | None = None) -> None:
    """Add --config; `variable` is that of the environment which names a file too."""
    otherwise = f" (or {variable})" if variable else ""
    options.add_argument("--config", metavar="FILE", help=f"settings from a .toml, .json or .yaml file{otherwise}")


def add_shares(options: Options, *, quantum: int | None = None) -> None:
    """Add --quantum and --weight; `quantum` is what help shows as the default."""
    otherwise = f" (default: {quantum})" if quantum else ""
    options.add_argument("--quantum", type=whole(1), metavar="N", help=f"dlpm: service units a refill{otherwise}")
    options.add_argument(
        "--weight",
        type=weight,
        action="append",
        default=[],
        metavar="NAME=W",
        help="a client's share of service, an integer (default: 1); may be given several times",
    )


def _invalid(text: str, valid: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(f"{text!r} is not valid: expected {valid}")
