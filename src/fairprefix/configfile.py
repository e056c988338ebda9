"""Read a configuration from a file: TOML, JSON, or (with the extra `yaml`) YAML.

    config = load_config("fair.toml")
    problems = find_problems(read_settings("fair.toml"))      # all of them, not only the first

The settings are those of `fairprefix.core.config.PolicyConfig`, for every host alike.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import attrs

from fairprefix.core.config import PolicyConfig
from fairprefix.core.errors import ConfigError, nearest

# By name, since a type checker that stands in for the one Python does not find the module of the other.
_toml: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

KNOWN = tuple(attribute.name for attribute in attrs.fields(PolicyConfig))
"""Names of all settings."""


def load_config(path: str | Path) -> PolicyConfig:
    """Return the configuration in a file.

    Raises:
        ConfigError: the file cannot be read, or a setting is unknown or invalid; the message names them all.
    """
    return make_config(read_settings(path), str(path))


def make_config(settings: Mapping[str, Any], source: str) -> PolicyConfig:
    """Return the configuration with these settings, all others at their defaults.

    Raises:
        ConfigError: a setting is unknown or invalid; the message names the `source` and all problems.
    """
    problems = find_problems(settings)
    if problems:
        raise ConfigError(describe_problems(source, problems))
    return PolicyConfig.from_mapping(settings)


def read_settings(path: str | Path) -> dict[str, Any]:
    """Return what a file says, unchecked but for its syntax; an empty file leaves every setting at its default.

    Raises:
        ConfigError: the file is missing, cannot be read or parsed, or is not a table of settings.
    """
    file = Path(path)
    if file.suffix.lower() not in _READERS:
        known = ", ".join(_READERS)
        raise ConfigError(
            f"{file}: the type {file.suffix or 'without suffix'!r} is unknown, expected one of {known}"
        )
    values = _READERS[file.suffix.lower()](file, _read_text(file))
    if not isinstance(values, dict):
        raise ConfigError(f"{file}: expected a table of settings, and not {type(values).__name__}")
    _refuse_nameless(file, values)
    return values


def find_problems(settings: Mapping[str, Any]) -> list[str]:
    """Return one message per unknown or invalid setting; none for a valid configuration.

    Each setting is checked by itself first, and then those that are valid by themselves are checked together.
    """
    problems = [f"unknown setting {key!r}{nearest(key, KNOWN)}" for key in settings if key not in KNOWN]
    valid: dict[str, Any] = {}
    for key in KNOWN:
        if key in settings:
            wrong = [problem for part in _parts(key, settings[key]) if (problem := _problem({key: part}))]
            problems += wrong
            valid |= {} if wrong else {key: settings[key]}
    together = _problem(valid)
    return [*problems, together] if together else problems


def describe_problems(source: str, problems: list[str]) -> str:
    """Return all problems as one message, a line each."""
    if len(problems) == 1:
        return f"{source}: {problems[0]}"
    return "\n  ".join([f"{source}: {len(problems)} problems", *problems])


def _parts(key: str, value: object) -> Iterator[object]:
    """Yield the weights or identity sources one by one, so that each is checked; any other value as it is."""
    if key == "weights" and isinstance(value, dict) and value:
        yield from ({name: entry} for name, entry in value.items())
    elif key == "identity" and isinstance(value, list) and value:
        yield from ([entry] for entry in value)
    else:
        yield value


def _problem(settings: Mapping[str, Any]) -> str | None:
    try:
        PolicyConfig.from_mapping(settings)
    except ConfigError as problem:
        return str(problem)
    return None


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as problem:
        raise ConfigError(f"{path}: is not text in UTF-8") from problem
    except OSError as problem:
        raise ConfigError(f"{path}: cannot be read: {problem.strerror}") from problem


def _parse_toml(path: Path, text: str) -> Any:  # noqa: ANN401  # as the file has it
    try:
        return _toml.loads(text)
    except (_toml.TOMLDecodeError, RecursionError) as problem:
        raise ConfigError(f"{path}: is not valid TOML: {problem}") from problem


def _parse_json(path: Path, text: str) -> Any:  # noqa: ANN401  # as the file has it
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as problem:
        raise ConfigError(f"{path}: is not valid JSON: {problem}") from problem


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse a setting that is given twice, of which JSON would keep the last."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is given twice")
    return values


def _parse_yaml(path: Path, text: str) -> Any:  # noqa: ANN401  # as the file has it
    try:
        import yaml  # noqa: PLC0415  # an extra
    except ImportError as problem:
        raise ConfigError(f"{path}: YAML needs PyYAML: pip install 'fairprefix[yaml]'") from problem
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise ConfigError(f"{path}: is not valid YAML: {' '.join(str(problem).split())}") from problem
    return {} if values is None else values


def _refuse_nameless(path: Path, values: Mapping[Any, Any]) -> None:
    """Refuse a name that YAML takes for a number or the like, at whatever depth."""
    for name, value in values.items():
        if not isinstance(name, str):
            raise ConfigError(f"{path}: the name {name!r} is not text: write it in quotes")
        if isinstance(value, dict):
            _refuse_nameless(path, value)


_READERS: dict[str, Callable[[Path, str], Any]] = {
    ".toml": _parse_toml,
    ".json": _parse_json,
    ".yaml": _parse_yaml,
    ".yml": _parse_yaml,
}
