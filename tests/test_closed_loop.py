"""What closed-loop clients measure of a fleet."""

from __future__ import annotations

import asyncio

import pytest

from tests.closed_loop import Answer, Outcome, Stream, load, output_rate


def test_the_rate_does_not_depend_on_how_answers_bunch() -> None:
    """Eight at a time for two seconds each, or one every quarter of a second: as many tokens come in an hour."""
    together = [Answer(10, began_s=2.0 * turn, latency_s=2.0) for turn in range(11) for _ in range(8)]
    apart = [Answer(10, began_s=turn / 4, latency_s=2.0) for turn in range(81)]
    assert output_rate(together) == pytest.approx(40)
    assert output_rate(apart) == pytest.approx(40)


def test_each_loop_has_one_request_out() -> None:
    """A loop asks again when it is answered, for a prompt of the next family, until time is up."""
    out: dict[str, int] = {}
    most: dict[str, int] = {}

    async def ask(stream: Stream, family: int, number: int) -> Outcome:
        del number
        assert family < stream.families
        out[stream.client] = out.get(stream.client, 0) + 1
        most[stream.client] = max(most.get(stream.client, 0), out[stream.client])
        await asyncio.sleep(0.01)
        out[stream.client] -= 1
        return Outcome(stream.output_tokens)

    streams = [Stream("a", 3, 2, 1, 1, 5), Stream("b", 1, 1, 1, 1, 7)]
    answers = asyncio.run(load(streams, 0.1, ask))
    assert most == {"a": 3, "b": 1}
    assert {one.output_tokens for one in answers if one.client == "b"} == {7}
    assert len(answers) > 8
