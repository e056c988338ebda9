"""Streams on their way: what is in them is found and taken out, slow readers hold nobody up."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairprefix.gateway.config import make_settings
from fairprefix.gateway.gateway import Gateway
from fairprefix.gateway.stream import Stream
from fairprefix.gateway.upstream import Answer, UpstreamError
from fairprefix.gateway.usage import EventReader, Usage, usage_of


def event(**chunk: object) -> bytes:
    """Return one event."""
    return b"data: " + json.dumps({"id": "x", **chunk}).encode() + b"\n\n"


def token(text: str = "tok ") -> bytes:
    """Return an event with one token."""
    return event(choices=[{"index": 0, "delta": {"content": text}}])


USAGE = event(
    choices=[], usage={"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
)
DONE = b"data: [DONE]\n\n"
OPENING = event(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}}])


class Worker:
    """An answer that comes piece by piece."""

    def __init__(self, pieces: list[bytes | UpstreamError]) -> None:
        self._pieces = pieces
        self.read = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield them."""
        for piece in self._pieces:
            await asyncio.sleep(0)
            if isinstance(piece, UpstreamError):
                raise piece
            self.read += 1
            yield piece


def stream(worker: Worker, heard: list[object]) -> Stream:
    """Return a stream that tells what it hears."""
    reader = EventReader(strip=False)
    return Stream(cast("Answer", worker), reader, heard.append, lambda: heard.append("end"))


def test_it_is_read_to_its_end_although_nobody_takes_it() -> None:
    """The worker's last word is heard before the client has read the second one; nothing is lost or reordered."""

    async def run() -> None:
        pieces: list[bytes | UpstreamError] = [token(str(k)) for k in range(50)]
        heard: list[object] = []
        coming = stream(Worker(pieces), heard)
        first = await coming.next()
        coming.read_ahead()
        await asyncio.sleep(0.05)
        assert heard == [1] * 50 + ["end"]
        rest = [data async for data in _rest(coming)]
        assert b"".join([first or b"", *rest]) == b"".join(cast("list[bytes]", pieces))

    asyncio.run(run())


def test_who_is_slow_is_read_ahead_of_and_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway looks at those under way again and again: at how long they have not taken what they are sent."""
    monkeypatch.setattr("fairprefix.gateway.gateway._SWEEP_S", 0.01)
    given = {"workers": [{"url": "http://127.0.0.1:1"}], "gateway": {"write_timeout_s": 100}}

    async def run() -> list[set[str]]:
        made = Gateway(make_settings(given, "test"))
        await made.start()
        under_way = [_UnderWay(since) for since in (None, 0.0, 1.0, 101.0)]
        made.exchanges.update(under_way)  # type: ignore[arg-type]  # what is looked at of an exchange
        await asyncio.sleep(0.2)
        await made.stop()
        assert made.cut_off > 0
        return [one.heard for one in under_way]

    assert asyncio.run(run()) == [set(), set(), {"read ahead"}, {"read ahead", "cut off"}]


class _UnderWay:
    """A request whose client has not read for so many seconds."""

    def __init__(self, since: float | None) -> None:
        self.blocked_since = None if since is None else time.monotonic() - since
        self.heard: set[str] = set()

    def read_ahead(self) -> None:
        """Note it."""
        self.heard.add("read ahead")

    def cut_off(self) -> None:
        """Note it."""
        self.heard.add("cut off")


def test_no_more_than_a_megabyte_is_kept() -> None:
    """A client that reads nothing of an endless answer costs a bounded amount of memory."""

    async def run() -> None:
        worker = Worker([token("x" * 100_000)] * 50)
        coming = stream(worker, [])
        coming.read_ahead()
        await asyncio.sleep(0.05)
        assert worker.read == 11
        await coming.next()
        coming.read_ahead()
        await asyncio.sleep(0.05)
        assert worker.read == 12
        coming.stop()

    asyncio.run(run())


def test_what_came_before_a_failure_is_handed_on_first() -> None:
    """Then the failure is told, as if it had just happened."""

    async def run() -> None:
        heard: list[object] = []
        coming = stream(Worker([token(), token(), UpstreamError("gone")]), heard)
        coming.read_ahead()
        await asyncio.sleep(0.05)
        assert [await coming.next(), await coming.next()] == [token(), token()]
        with pytest.raises(UpstreamError, match="gone"):
            await coming.next()
        assert heard == [1, 1]

    asyncio.run(run())


async def _rest(coming: Stream) -> AsyncIterator[bytes]:
    while (data := await coming.next()) is not None:
        yield data


@given(st.lists(st.integers(1, 40), max_size=60), st.booleans())
def test_however_it_is_cut_the_same_is_found(cuts: list[int], strip: bool) -> None:  # noqa: FBT001
    """Pieces end anywhere; events, tokens and usage are the same, and what is taken out is just our own event."""
    whole = OPENING + token() + token('quotes "usage" and data: and \\n') + token() + USAGE + DONE
    reader, got, rest = EventReader(strip=strip), b"", whole
    for cut in cuts:
        got += reader.feed(rest[:cut])
        rest = rest[cut:]
    got += reader.feed(rest) + reader.flush()
    assert reader.tokens == 3
    assert reader.done
    assert reader.usage == Usage(7, 3, 2)
    expected = whole.replace(USAGE, b"") if strip else whole
    assert _events(got) == _events(expected)


def _events(data: bytes) -> list[Any]:
    return [json.loads(part[6:]) if b"[DONE]" not in part else "done" for part in data.split(b"\n\n") if part]


def test_usage_beside_the_last_text_is_taken_out_and_the_text_is_kept() -> None:
    """Some servers put usage into the last chunk with content."""
    last = event(choices=[{"index": 0, "text": "end"}], usage={"prompt_tokens": 1, "completion_tokens": 1})
    reader = EventReader(strip=True)
    got = _events(reader.feed(last))
    assert got == [{"id": "x", "choices": [{"index": 0, "text": "end"}]}]
    assert reader.usage == Usage(1, 1, None)


@pytest.mark.parametrize(
    "usage",
    [None, [], {}, {"prompt_tokens": "7"}, {"prompt_tokens": -1}, {"prompt_tokens": True}, {"prompt_tokens": 1.5}],
)
def test_usage_that_makes_no_sense_is_none(usage: object) -> None:
    """What a worker reports goes into accounts: it has to be numbers of tokens."""
    assert usage_of(json.dumps({"usage": usage}).encode()) is None


def test_more_cached_than_prompt_is_not_believed() -> None:
    """Nobody's prompt costs less than nothing."""
    body = {"usage": {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 9}}}
    assert usage_of(json.dumps(body).encode()) == Usage(5, 1, 5)


def test_lines_that_end_otherwise_are_read_as_well() -> None:
    """HTTP's own line ends are allowed in events."""
    reader = EventReader(strip=True)
    assert reader.feed((token() + USAGE + DONE).replace(b"\n", b"\r\n")).count(b"data:") == 2
    assert reader.usage == Usage(7, 3, 2)
