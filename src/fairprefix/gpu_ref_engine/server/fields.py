"""Reads the fields of a request's body, each with one clear error."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from fairprefix.gpu_ref_engine.server.errors import BAD_REQUEST, ApiError, invalid


class Fields:
    """The fields of a JSON object; null counts as absent.

    Args:
        values: the object.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values

    def get(self, name: str) -> Any:  # noqa: ANN401 (whatever the client wrote)
        """Return a value as it is; None when it is absent."""
        return self._values.get(name)

    def whole(self, name: str, default: int, least: int, most: int) -> int:
        """Return an integer between `least` and `most`."""
        value = self._values.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise invalid(name, value, f"an integer from {least} to {most}")
        return value

    def number(self, name: str, default: float, least: float, most: float) -> float:
        """Return a number between `least` and `most`."""
        value = self._values.get(name)
        if value is None:
            return default
        # Beyond what a float holds an integer cannot be compared with one; NaN is in no range.
        plausible = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf
        if not plausible or not least <= value <= most:
            raise invalid(name, value, f"a number from {least:g} to {most:g}")
        return float(value)

    def flag(self, name: str) -> bool:
        """Return a boolean; False when it is absent."""
        value = self._values.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise invalid(name, value, "true or false")
        return value

    def text(self, name: str) -> str | None:
        """Return a text; None when it is absent."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, str):
            raise invalid(name, value, "text")
        return value

    def table(self, name: str) -> Mapping[str, Any]:
        """Return an object; an empty one when it is absent."""
        value = self._values.get(name)
        if value is None:
            return {}
        if not isinstance(value, dict):
            raise invalid(name, value, "an object")
        return value

    def refuse(self, name: str, harmless: tuple[object, ...] = ()) -> None:
        """Refuse a field that would change the answer and is not supported."""
        value = self._values.get(name)
        if value and value not in harmless:
            raise ApiError(
                BAD_REQUEST,
                f"{name} is not supported by this server: leave it out",
                param=name,
                code="unsupported",
            )


def parse(body: bytes) -> Mapping[str, Any]:
    """Return the object that a body holds.

    Raises:
        ApiError: it is not JSON, or not an object.
    """
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as problem:
        raise ApiError(BAD_REQUEST, f"the body is not valid JSON: {problem}", code="invalid_json") from None
    if not isinstance(values, dict):
        raise ApiError(
            BAD_REQUEST, f"the body is {type(values).__name__}, expected an object", code="invalid_json"
        )
    return values
