"""What an answer in OpenAI's format says that it cost, whole or in pieces: for engines that are not ours."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fairprefix.hosting.gate import Ticket

_EVENT = "data: "


def with_usage(request: Any) -> tuple[Any, bool]:  # noqa: ANN401 (a request of vLLM's or SGLang's)
    """Return a request that ends with its usage, and whether whoever sent it wanted that."""
    if not getattr(request, "stream", False):
        return request, True
    options = getattr(request, "stream_options", None)
    if options is not None and getattr(options, "include_usage", False):
        return request, True
    from pydantic import TypeAdapter  # noqa: PLC0415 (only where Ray is)

    wanted: Any = type(request).model_fields["stream_options"].annotation
    given = options.model_dump(exclude_unset=True) if options is not None else {}
    return request.model_copy(
        update={"stream_options": TypeAdapter(wanted).validate_python(given | {"include_usage": True})}
    ), False


def noted(turn: Ticket, item: object, *, wants_usage: bool) -> bool:
    """Charge what an item of an answer says; return whether it is to be passed on."""
    if not isinstance(item, str):
        _settle(turn, getattr(item, "usage", None))
        return True
    passed = True
    for event in _events(item):
        choices = event.get("choices") or ()
        turn.produced(sum(1 for choice in choices if _says_something(choice)))
        _settle(turn, event.get("usage"))
        passed = passed and bool(choices or wants_usage or not event.get("usage"))
    return passed


def _events(text: str) -> Iterator[Mapping[str, Any]]:
    for line in text.splitlines():
        if line.startswith(_EVENT) and line[len(_EVENT)] == "{":
            yield json.loads(line[len(_EVENT) :])


def _says_something(choice: Mapping[str, Any]) -> bool:
    delta = choice.get("delta") or {}
    return bool(choice.get("text") or any(value for name, value in delta.items() if name != "role"))


def _settle(turn: Ticket, usage: Any) -> None:  # noqa: ANN401 (an object or a table)
    """Correct what was charged, once the engine has said what it was."""
    if usage is None:
        return
    details = _field(usage, "prompt_tokens_details")
    if details is not None:
        turn.found(max(_number(usage, "prompt_tokens") - _number(details, "cached_tokens"), 0))
    turn.produced(max(_number(usage, "completion_tokens") - turn.output, 0))


def _field(thing: Any, name: str) -> Any:  # noqa: ANN401
    return thing.get(name) if isinstance(thing, Mapping) else getattr(thing, name, None)


def _number(thing: Any, name: str) -> int:  # noqa: ANN401
    return int(_field(thing, name) or 0)
