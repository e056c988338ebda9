"""From MODULE:FACTORY on a command line to policies, whatever the user's module does."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

from fairprefix.cli.errors import UsageError
from fairprefix.core.config import POLICIES, PolicyConfig
from fairprefix.core.errors import FairprefixError, nearest
from fairprefix.core.policy import Policy
from fairprefix.core.prefixes import PrefixIndex

BROKEN = 1
"""Exit code when a policy does not do what it should."""

METHODS = tuple(name for name in vars(Policy) if not name.startswith("_"))


def is_factory(name: str) -> bool:
    """Return whether a name has the form MODULE:FACTORY."""
    module, _, attribute = name.partition(":")
    return bool(module and attribute)


def load_factory(name: str) -> Any:  # noqa: ANN401 (whatever stands in the user's module)
    """Import the factory that a name says; modules are looked for in the current directory as well.

    Raises:
        UsageError: the name has another form, or there is no such module or attribute.
    """
    if not is_factory(name):
        hint = nearest(name, POLICIES)
        raise UsageError(f"{name!r} is not valid: expected MODULE:FACTORY or one of {', '.join(POLICIES)}{hint}")
    module, _, attribute = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module)
    except (Exception, SystemExit) as problem:  # noqa: BLE001 (whatever the module does when it is imported)
        hint = _spelt_as_file(module, attribute)
        raise UsageError(f"cannot import {module!r}: {_shown(problem)}{hint}") from None
    part = ""
    try:
        for part in attribute.split("."):
            found = getattr(found, part)
    except AttributeError:
        raise UsageError(f"module {module!r} has no {attribute!r}{nearest(part, dir(found))}") from None
    except (Exception, SystemExit) as problem:  # noqa: BLE001 (whatever a property does)
        raise UsageError(f"cannot look up {attribute!r} in {module!r}: {_shown(problem)}") from None
    return found


def _spelt_as_file(module: str, attribute: str) -> str:
    """Return a hint for those who give the module as a file."""
    if not module.endswith(".py") and "/" not in module:
        return ""
    path = PurePath(module.removesuffix(".py"))
    if path.is_absolute() or ".." in path.parts:
        return " (a module is given by its name, and looked for in the current directory and on PYTHONPATH)"
    return f" (a module is given by its name: did you mean '{'.'.join(path.parts)}:{attribute}'?)"


class BrokenPolicyError(FairprefixError):
    """A policy of somebody's own, or the factory that makes it, raised; the message says where and what."""


class OwnPolicy:
    """A policy of somebody's own: what it raises becomes a `BrokenPolicyError` that names the call.

    What it refuses (`HostError` and other errors of this package) is passed on as it is.

    Raises:
        BrokenPolicyError: the factory raised, or returned something that is no policy.
    """

    def __init__(self, name: str, factory: Any, config: PolicyConfig, prefixes: PrefixIndex) -> None:  # noqa: ANN401
        call = f"make_policy = {name}: called with (config, prefixes)"
        try:
            self._policy = factory(config, prefixes)
        except (Exception, SystemExit) as error:
            raise BrokenPolicyError(f"{call} it raised {_shown(error)}") from error
        missing = [method for method in METHODS if not callable(getattr(self._policy, method, None))]
        if missing:
            lacks = f"which is no fairprefix.Policy: it lacks {', '.join(missing)}"
            raise BrokenPolicyError(f"{call} it returned {self._policy!r}, {lacks}")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._policy, name)

        def call(*args: object, **named: object) -> Any:  # noqa: ANN401 (whatever the method returns)
            try:
                return method(*args, **named)
            except FairprefixError:
                raise
            except (Exception, SystemExit) as error:
                raise BrokenPolicyError(f"{name}() of the policy raised {_shown(error)}") from error

        return call


def _shown(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
