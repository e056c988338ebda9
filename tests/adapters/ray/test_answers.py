"""What is charged for an answer of an engine that knows nothing of us: what it says itself, in the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from fairprefix.adapters.ray.answers import noted, with_usage
from fairprefix.core.config import PolicyConfig
from fairprefix.core.request import Request
from fairprefix.hosting.gate import Gate

DONE = "data: [DONE]\n\n"


def chunk(*texts: str, usage: dict[str, Any] | None = None, chat: bool = False) -> str:
    """Return an event of a stream."""
    choices = [{"delta": {"role": "assistant", "content": text}} if chat else {"text": text} for text in texts]
    return f"data: {json.dumps({'choices': choices, 'usage': usage})}\n\n"


def usage(output: int, prompt: int = 50, cached: int | None = None) -> dict[str, Any]:
    """Return what an engine says in the end."""
    details = None if cached is None else {"cached_tokens": cached}
    return {"prompt_tokens": prompt, "completion_tokens": output, "prompt_tokens_details": details}


def charged(items: Sequence[object], *, wants_usage: bool = False) -> tuple[int, list[object]]:
    """Return what a client is charged for an answer, its prompt of 50 tokens included, and what it gets."""

    async def answer() -> tuple[int, list[object]]:
        gate = Gate(PolicyConfig(gate="credit", reservation="none"), 1)
        async with gate.admitted(Request("1", "a", 50, 20)) as ticket:
            passed = [item for item in items if noted(ticket, item, wants_usage=wants_usage)]
        (told,) = gate.report().clients
        return told.service, passed

    return asyncio.run(answer())


def test_pieces_are_charged_as_they_come_and_corrected_in_the_end() -> None:
    """A piece is a token until the engine says how many it were: it may put several into one."""
    pieces = [chunk("a"), chunk("b"), chunk("", usage=None)]
    assert charged([*pieces, DONE])[0] == 50 + 2 * 2
    assert charged([*pieces, chunk(usage=usage(5)), DONE])[0] == 50 + 2 * 5
    assert charged([chunk("", chat=True), chunk("a", chat=True)])[0] == 50 + 2


def test_what_was_cached_is_not_charged() -> None:
    """If the engine says so, were it zero tokens; what it does not say stays as it was taken to be."""
    assert charged([chunk(usage=usage(5, cached=32))])[0] == 50 - 32 + 2 * 5
    assert charged([chunk(usage=usage(5, prompt=60, cached=0))])[0] == 60 + 2 * 5
    assert charged([chunk(usage=usage(5, prompt=60))])[0] == 50 + 2 * 5


def test_whole_answers_and_errors() -> None:
    """An answer in one piece says it all; an error costs what the prompt did."""
    whole = SimpleNamespace(
        usage=SimpleNamespace(prompt_tokens=50, completion_tokens=7, prompt_tokens_details=None)
    )
    assert charged([whole]) == (50 + 2 * 7, [whole])
    assert charged([SimpleNamespace(error="no")])[0] == 50


def test_only_who_asked_for_the_usage_sees_it() -> None:
    """The piece that there is for our sake is kept; all others are passed on as they are."""
    items = [chunk("a"), chunk(usage=usage(1)), DONE]
    assert charged(items)[1] == [items[0], items[2]]
    assert charged(items, wants_usage=True)[1] == items


def test_streams_are_asked_to_end_with_their_usage() -> None:
    """What else the client asked of its stream stays; an answer in one piece has its usage anyway."""
    pydantic = pytest.importorskip("pydantic")

    class Options(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        include_usage: bool | None = None
        other: int = 1

    class Asked(pydantic.BaseModel):  # type: ignore[misc, name-defined]
        stream: bool = True
        stream_options: Options | None = None

    changed, wanted = with_usage(Asked())
    assert changed.stream_options.include_usage
    assert not wanted
    changed, wanted = with_usage(Asked(stream_options=Options(other=2)))
    assert (changed.stream_options.include_usage, changed.stream_options.other, wanted) == (True, 2, False)
    for asked in (Asked(stream=False), Asked(stream_options=Options(include_usage=True))):
        assert with_usage(asked) == (asked, True)
