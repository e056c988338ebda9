"""A story as lines of text, one column a step or more: who waited, who was served, what the counters were."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import TextIO

from fairprefix.testing.story import Story
from fairprefix.testing.timeline import Points, Timeline

WIDTH = 60
"""Columns at most."""
BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.-~=+*#"
"""From the lowest value to the highest."""
MOST_CLIENTS = 6


def text_timeline(story: Story, stream: TextIO) -> list[str]:
    """Return the timeline of a story in characters that the stream can show; nothing without a recording."""
    timeline = story.timeline
    if not timeline.end:
        return []
    ramp = BLOCKS if _shows(stream, BLOCKS) else ASCII
    per_column = -(-timeline.end // WIDTH)
    steps = range(0, timeline.end, per_column)
    title = f"   one column {'a step' if per_column == 1 else f'{per_column} steps'}, {timeline.end} steps in all:"
    lines = [title]
    for client in list(timeline.service)[:MOST_CLIENTS]:
        lines += _client(timeline, client, steps, ramp)
    hidden = len(timeline.service) - MOST_CLIENTS
    if hidden > 0:
        lines.append(f"   and {hidden} clients more")
    if timeline.broke_at is not None:
        lines.append(f"{'':{_LABEL}}{' ' * (timeline.broke_at // per_column)}^ step {timeline.broke_at}")
    return lines


_LABEL = 14
"""Characters before the first column."""


def _client(timeline: Timeline, client: str, steps: range, ramp: str) -> list[str]:
    spans = timeline.backlogged.get(client, ())
    waits = "".join(
        ramp[-1] if any(start < step + steps.step and step < end for start, end in spans) else " "
        for step in steps
    )
    lines = [f"{f'   {client} waits':{_LABEL}}{waits}".rstrip()]
    for label, series in (("served", timeline.service), (timeline.counter, timeline.counters)):
        if client in series:
            values = [value_at(series[client], step + steps.step - 1) for step in steps]
            every = [value for points in series.values() for _step, value in points]
            bars = _bars(values, min(every), max(every), ramp)
            lines.append(f"{f'     {label}':{_LABEL}}{bars}  {_range(label, values)}")
    return lines


def value_at(points: Points, step: int) -> float:
    """Return the value of a series at the end of a step."""
    return points[bisect_right(points, step, key=lambda point: point[0]) - 1][1]


def _bars(values: Sequence[float], low: float, high: float, ramp: str) -> str:
    span = high - low or 1
    return "".join(ramp[int((value - low) / span * (len(ramp) - 1))] for value in values)


def _range(label: str, values: Sequence[float]) -> str:
    if label == "served":
        return f"{values[-1]:g}"
    return f"{values[-1]:g} ({min(values):g} to {max(values):g})"


def _shows(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
