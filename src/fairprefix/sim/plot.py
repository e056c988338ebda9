"""One picture of several runs: who was served when, and who waited how long.

One column per policy. Above, cumulative service per client over time: where the curves of clients that all have
work rise together, service is shared fairly. Below, each client's latency: median as a bar, p99 as its whisker.
Needs matplotlib, the extra `report`; nothing global is touched (no pyplot, no settings).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairprefix.core.errors import FairprefixError
from fairprefix.core.request import Client
from fairprefix.sim.simulate import RunResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg", ".pdf")
"""What a picture's file name may end in."""

COLOURS = (
    "#D55E00",
    "#0072B2",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#222222",
    "#882255",
    "#999933",
    "#332288",
)
"""Okabe and Ito's palette and what goes with it: told apart with any kind of colour vision."""
GREY = "#BBBBBB"
"""Every client beyond the coloured ones."""
INK = "#333333"

WIDTH, HEIGHT, DPI = 14.0, 7.0, 100
COLUMN, NARROWEST = 4.6, 9.0
"""Inches per column of a picture with few columns, and for the title and legend above a single one."""
LEGEND_ENTRY = 1.35
"""Inches that a client takes in the legend."""
ROW = 0.033
"""Height of a row of the legend, as a share of the picture's."""
MOST_BARS = 24
"""Clients whose latency is shown; more would be unreadable."""
MOST_POINTS = 1500
"""Points of a curve; more cannot be seen."""
DECADES = 100.0
"""Latencies that differ by more than this factor are shown on a logarithmic scale."""
TEN = 10
"""Ratios from here on need no decimals."""
NS_PER_S = 1e9
MS_PER_S = 1e3
THOUSAND = 1e3


class PlotError(FairprefixError):
    """A picture cannot be drawn."""


def require_matplotlib() -> None:
    """See to it that pictures can be drawn.

    Raises:
        PlotError: matplotlib is not installed; the message says how to install it.
    """
    try:
        import matplotlib.backends.backend_agg  # noqa: F401, PLC0415  # an extra: only where it is wanted
    except ImportError as problem:
        raise PlotError("a plot needs matplotlib: pip install 'fairprefix[report]'") from problem


def plot_runs(results: Sequence[RunResult], path: str | Path, title: str) -> None:
    """Draw the runs of one trace under several policies, and write the picture.

    Args:
        results: the runs, one column each.
        path: the file; its suffix, one of `SUFFIXES`, says which format.
        title: stands above everything.

    Raises:
        PlotError: matplotlib is not installed, or the suffix is unknown.
    """
    file = Path(path)
    if file.suffix.lower() not in SUFFIXES:
        raise PlotError(f"{file}: expected a name that ends in {', '.join(SUFFIXES)}")
    require_matplotlib()
    figure = _draw(results, title)
    # Without a date the same runs give the same picture.
    dates: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    figure.savefig(file, dpi=DPI, metadata=dates.get(file.suffix.lower()))


def _draw(results: Sequence[RunResult], title: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  # an extra
    from matplotlib.figure import Figure  # noqa: PLC0415

    width = min(WIDTH, max(NARROWEST, COLUMN * len(results)))
    figure = Figure(figsize=(width, HEIGHT), facecolor="white")
    FigureCanvasAgg(figure)
    clients = _by_service(results)
    colour = dict.fromkeys(clients, GREY) | dict(zip(clients, COLOURS, strict=False))
    axes = figure.subplots(2, len(results), sharex="row", sharey="row", squeeze=False, height_ratios=(3, 2))
    end_s = max(result.figures["duration"] for result in results)
    for column, result in enumerate(results):
        _draw_service(axes[0, column], result, colour, end_s)
        _draw_latency(axes[1, column], result, colour)
    most = max((points[-1][1] for result in results for points in result.timeline.values()), default=1)
    # Above the highest curve there is room for a label.
    axes[0, 0].set_ylim(0, most / THOUSAND * 1.18)
    _scale_latency(axes[1, 0], results)
    axes[0, 0].set_ylabel("service received\n(thousand units, cumulative)", color=INK)
    axes[1, 0].set_ylabel("end-to-end latency, s\n(bar: median, whisker: p99)", color=INK)
    figure.suptitle(_plain(title), x=0.01, y=0.985, ha="left", fontsize=12, fontweight="bold", color=INK)
    rows = _add_legend(figure, clients, colour)
    _add_footnote(figure, results)
    figure.tight_layout(rect=(0, 0.03, 1, 0.97 - ROW * (rows - 1)), w_pad=1.2, h_pad=1.6)
    return figure


def _by_service(results: Sequence[RunResult]) -> list[Client]:
    """Return all clients, those with most service over all runs first."""
    service: dict[Client, int] = {}
    for result in results:
        for client, figures in result.figures["clients"].items():
            service[client] = service.get(client, 0) + figures["service"]
    return sorted(service, key=lambda client: (-service[client], client))


def _draw_service(axes: Axes, result: RunResult, colour: dict[Client, str], end_s: float) -> None:
    start_ns = min((points[0][0] for points in result.timeline.values()), default=0)
    duration_s = result.figures["duration"]
    # Grey curves first, so that they lie below.
    for client in reversed(colour):
        points = _thinned(result.timeline.get(client, []))
        if points:
            times = [(at - start_ns) / NS_PER_S for at, _ in points]
            units = [total / THOUSAND for _, total in points]
            axes.plot(times, units, color=colour[client], linewidth=1 if colour[client] == GREY else 2.2)
            # A thin line goes on where a client has got all that it asked for.
            axes.plot([times[-1], duration_s], [units[-1], units[-1]], color=colour[client], linewidth=0.8)
    _mark_end(axes, duration_s, end_s)
    axes.set_xlim(0, end_s * 1.02 or 1)
    axes.set_xlabel("time, s", color=INK)
    axes.set_title(_headline(result), fontsize=10, color=INK, linespacing=1.5)
    _tidy(axes)


def _mark_end(axes: Axes, duration_s: float, end_s: float) -> None:
    """Show when everything was done."""
    axes.axvline(duration_s, color=INK, linewidth=1, linestyle=":")
    left = duration_s > end_s / 2
    axes.annotate(
        f"done: {duration_s:,.0f} s",
        (duration_s, 0.98),
        xycoords=("data", "axes fraction"),
        xytext=(-5 if left else 5, 0),
        textcoords="offset points",
        ha="right" if left else "left",
        va="top",
        fontsize=9,
        color=INK,
    )


def _thinned(points: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """Return points of a curve, no more than can be seen, the last one among them."""
    if len(points) <= MOST_POINTS:
        return points
    every = -(-len(points) // MOST_POINTS)
    return [*points[::every], points[-1]]


def _headline(result: RunResult) -> str:
    figures = result.figures
    jain = "-" if figures["jain_index"] is None else f"{figures['jain_index']:.2f}"
    ratio = figures["bound_ratio"]
    mark = "" if ratio is None or figures["bound_is_claimed"] else "*"
    gap = "" if ratio is None else f"   gap/bound {ratio:.{2 if ratio < TEN else 0}f}{mark}"
    return f"$\\bf{{{_bold(result.label)}}}$\ncache hits {figures['prefix_hit_rate']:.0%}   Jain {jain}{gap}"


def _bold(label: str) -> str:
    """Return a label as it stands in a formula, where an underscore is none."""
    return label.replace("_", r"\_").replace("+", r"{+}")


def _draw_latency(axes: Axes, result: RunResult, colour: dict[Client, str]) -> None:
    shown = list(colour)[:MOST_BARS]
    figures = result.figures["clients"]
    for place, client in enumerate(shown):
        if client in figures and figures[client]["completed"]:
            median = figures[client]["p50_e2el_ms"] / MS_PER_S
            p99 = figures[client]["p99_e2el_ms"] / MS_PER_S
            axes.bar(place, median, width=0.7, color=colour[client])
            axes.errorbar(place, median, yerr=[[0], [p99 - median]], color=INK, capsize=4, linewidth=1.2)
    few = len(shown) <= len(COLOURS)
    axes.set_xticks(range(len(shown)) if few else [], [_short(client) for client in shown] if few else [])
    axes.tick_params(axis="x", labelrotation=0 if sum(map(len, shown)) <= 24 else 45)  # noqa: PLR2004  # fits
    axes.set_xlim(-0.6, len(shown) - 0.4)
    _tidy(axes)


def _scale_latency(axes: Axes, results: Sequence[RunResult]) -> None:
    """Make the shared scale logarithmic if latencies lie far apart."""
    each = [
        figures for result in results for figures in result.figures["clients"].values() if figures["completed"]
    ]
    lowest = min((figures["p50_e2el_ms"] for figures in each), default=0)
    highest = max((figures["p99_e2el_ms"] for figures in each), default=0)
    if lowest > 0 and highest / lowest > DECADES:
        axes.set_yscale("log")
        axes.set_ylim(lowest / MS_PER_S / 2, highest / MS_PER_S * 2)


def _add_legend(figure: Figure, clients: Sequence[Client], colour: dict[Client, str]) -> int:
    """Name the clients' colours, once for all columns; return how many rows that takes."""
    from matplotlib.lines import Line2D  # noqa: PLC0415  # an extra

    named = clients[: len(COLOURS)]
    handles = [Line2D([], [], color=colour[client], linewidth=4, label=_short(client)) for client in named]
    if len(clients) > len(named):
        handles.append(Line2D([], [], color=GREY, linewidth=4, label=f"{len(clients) - len(named)} others"))
    columns = min(len(handles), int(figure.get_figwidth() / LEGEND_ENTRY))
    figure.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.004, 0.965),
        ncols=columns,
        frameon=False,
        fontsize=10,
        handlelength=1.2,
        columnspacing=1.5,
    )
    return -(-len(handles) // columns)


def _add_footnote(figure: Figure, results: Sequence[RunResult]) -> None:
    notes = ["service: prompt tokens that the cache did not hold, and output tokens, weighted by cost"]
    if any(result.figures["bound"] is not None and not result.figures["bound_is_claimed"] for result in results):
        notes.append("* against DLPM's bound, for comparison: this policy promises none")
    figure.text(0.01, 0.012, "     ".join(notes), fontsize=9, color=INK)


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, labelsize=9)


def _short(client: Client) -> str:
    """Return a client's name as it fits the picture."""
    return _plain(client if len(client) <= 12 else f"{client[:10]}...")  # noqa: PLR2004  # characters


def _plain(text: str) -> str:
    """Return text that matplotlib does not take for a formula, and without characters that have no shape."""
    return "".join(char for char in text if char.isprintable()).replace("$", r"\$")
