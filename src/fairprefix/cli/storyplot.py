"""One picture of the stories of a report: who was served while who waited, and what the counters were.

One column per failed check. Above, each client's service; in the middle, where the claim names a rule, the
counters by which that rule decides; below, when each client had a request queued. A dashed line marks the step at
which the check failed. Needs matplotlib, the extra `report`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

from fairprefix.sim.plot import COLOURS, DPI, GREY, INK
from fairprefix.testing import Report, Verdict
from fairprefix.testing.story import Story
from fairprefix.testing.timeline import Points, Timeline

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_STORIES = 4
COLUMN, HEIGHT, NARROWEST = 5.2, 7.0, 7.0
"""Inches."""
LETTERS = 62
"""Of the verdict in a line, above a column."""


def drawable(report: Report) -> tuple[list[Verdict], int]:
    """Return the failed checks whose story was recorded, the first few of them, and how many are left out."""
    told = [verdict for verdict in report.failed if verdict.story and verdict.story.timeline.end]
    return told[:MOST_STORIES], len(told[MOST_STORIES:])


def plot_stories(told: Sequence[Verdict], subject: str, path: Path) -> None:
    """Draw the stories of failed checks, one column each, into a file whose suffix says the format."""
    _draw(told, subject).savefig(path, dpi=DPI)


def _draw(told: Sequence[Verdict], subject: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  # an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(max(NARROWEST, COLUMN * len(told)), HEIGHT), facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, len(told), sharex="col", squeeze=False, height_ratios=(3, 3, 1))
    for column, verdict in enumerate(told):
        assert verdict.story is not None, "only stories are drawn"
        _draw_story(verdict.check, verdict.story, list(axes[:, column]))
    axes[0, 0].set_ylabel("service received\n(units, cumulative)", color=INK)
    axes[2, 0].set_ylabel("queued", color=INK)
    figure.suptitle(subject, x=0.01, y=0.985, ha="left", fontsize=12, fontweight="bold", color=INK)
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    return figure


def _draw_story(check: str, story: Story, axes: Sequence[Axes]) -> None:
    timeline = story.timeline
    service, counters, queued = axes
    colour = dict.fromkeys(timeline.service, GREY) | dict(zip(timeline.service, COLOURS, strict=False))
    service.set_title(f"{check}\n{fill(story.verdict, LETTERS)}", loc="left", fontsize=9, color=INK)
    for client, points in timeline.service.items():
        _draw_series(service, points, timeline, colour[client], client)
    service.legend(frameon=False, loc="upper left", fontsize=9)
    _draw_counters(counters, timeline, colour)
    _draw_queues(queued, timeline, colour)
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
        each.tick_params(colors=INK, labelsize=9)
        if timeline.broke_at is not None:
            each.axvline(timeline.broke_at, color=INK, linestyle="--", linewidth=1)


def _draw_series(axes: Axes, points: Points, timeline: Timeline, colour: str, label: str) -> None:
    steps = [step for step, _value in points] + [timeline.end]
    values = [value for _step, value in points]
    axes.step(steps, [*values, values[-1]], where="post", color=colour, linewidth=1.8, label=label)


def _draw_counters(axes: Axes, timeline: Timeline, colour: dict[str, str]) -> None:
    if not timeline.counters:
        axes.text(0.5, 0.5, "no rule is claimed: no counters", ha="center", color=GREY, transform=axes.transAxes)
        axes.set_yticks([])
        return
    for client, points in timeline.counters.items():
        _draw_series(axes, points, timeline, colour[client], client)
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_ylabel(f"counter {timeline.counter}", color=INK)


def _draw_queues(axes: Axes, timeline: Timeline, colour: dict[str, str]) -> None:
    clients = list(timeline.service)
    for place, client in enumerate(clients):
        spans = [(start, end - start) for start, end in timeline.backlogged.get(client, ())]
        axes.broken_barh(spans, (place - 0.35, 0.7), color=colour[client])
    axes.set_yticks(range(len(clients)), clients)
    axes.set_ylim(len(clients) - 0.5, -0.5)
    axes.set_xlabel("step of the engine", color=INK)
