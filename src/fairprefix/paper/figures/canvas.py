"""The pictures of the figures: panels, colours, legends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

COLOURS: dict[str, Any] = {
    "d2lpm": "#0072B2",
    "vtc": "#009E73",
    "lpm": "#D55E00",
    "preble": "#CC79A7",
    "fcfs": "#7F7F7F",
}
"""By system."""
CLIENT_COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
INK = "#333333"
PUBLISHED: dict[str, Any] = {"linestyle": ":", "marker": "x", "alpha": 0.75}
OURS: dict[str, Any] = {"linestyle": "-", "marker": "o", "markersize": 4}


def canvas(rows: int, columns: int, size: tuple[float, float]) -> tuple[Canvas, list[list[Axes]]]:
    """Return an empty picture and its panels, row by row."""
    from matplotlib.figure import Figure as Canvas  # noqa: PLC0415  # an extra

    figure = Canvas(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=INK, labelsize=8)
    return figure, [list(row) for row in panels]


def png(figure: Canvas) -> bytes:
    """Return a picture as the bytes of a PNG file, the same ones every time."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def legend(figure: Canvas, labels: Mapping[str, str], *, published: bool = True) -> None:
    """Name colours (label by colour), and what is dotted."""
    from matplotlib.lines import Line2D  # noqa: PLC0415  # an extra

    handles = [Line2D([], [], color=colour, linewidth=3, label=label) for colour, label in labels.items()]
    if published:
        handles.append(Line2D([], [], color=INK, linestyle="-", marker="o", markersize=4, label="ours"))
        handles.append(Line2D([], [], color=INK, linestyle=":", marker="x", label="published"))
    figure.legend(handles=handles, loc="outside upper left", ncols=len(handles), frameon=False, fontsize=9)


def present(values: Sequence[float | None]) -> list[float]:
    """Return values with gaps that a line leaves out."""
    return [float("nan") if value is None else value for value in values]
