"""The run as it happens: a live display on a terminal (with rich), else a line now and then; on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from fairprefix.demo.run import Scene, Show

if TYPE_CHECKING:
    from rich.console import RenderableType

_REDRAWS_PER_S = 8
_LINE_EVERY_S = 10.0
_BAR = 32
_TEXT = 90
_COLOURS = ("red", "cyan", "green", "magenta", "yellow")


@contextmanager
def live(policy: str, *, quiet: bool) -> Iterator[Show]:
    """Give the function that shows a scene, while one policy runs."""
    if quiet:
        yield lambda _scene: None
        return
    if sys.stderr.isatty():
        try:
            from rich.console import Console  # noqa: PLC0415  # an extra: only where it is wanted and there
            from rich.live import Live  # noqa: PLC0415
        except ImportError:
            pass
        else:
            console = Console(stderr=True)
            with Live(console=console, refresh_per_second=_REDRAWS_PER_S, transient=True) as display:
                yield _throttled(lambda scene: display.update(_picture(scene)), 1 / _REDRAWS_PER_S)
            return
    print(f"{policy} ...", file=sys.stderr, flush=True)
    yield _throttled(_line, _LINE_EVERY_S)


def _throttled(show: Show, interval_s: float) -> Show:
    """Pass on no more than one scene in so much time: drawing costs time that the model could use."""
    last = time.perf_counter()

    def maybe(scene: Scene) -> None:
        nonlocal last
        if time.perf_counter() - last >= interval_s:
            last = time.perf_counter()
            show(scene)

    return maybe


def _line(scene: Scene) -> None:
    parts = [
        f"{client} {standing.answered}/{standing.asked}, {standing.service:,} units"
        for client, standing in scene.clients.items()
    ]
    print(
        f"  {scene.seconds:5.0f} s  {'   '.join(parts)}   cache hits {_hits(scene)}", file=sys.stderr, flush=True
    )


def _hits(scene: Scene) -> str:
    return f"{scene.cached_tokens / scene.prompt_tokens:.0%}" if scene.prompt_tokens else "-"


def _picture(scene: Scene) -> RenderableType:
    from rich.console import Group  # noqa: PLC0415  # an extra
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    title = f"{scene.policy}: {scene.answered} of {scene.questions} questions answered, {scene.seconds:.0f} s"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for name in ("client", "service received", "units", "answered", "waiting", "mean latency"):
        table.add_column(name, justify="left" if name in ("client", "service received") else "right")
    most = max([standing.service for standing in scene.clients.values()] + [1])
    for (client, standing), colour in zip(scene.clients.items(), _COLOURS * len(scene.clients), strict=False):
        bar = Text("█" * round(_BAR * standing.service / most), style=colour)
        mean = f"{standing.latency_s / standing.answered:.1f} s" if standing.answered else "-"
        waiting = standing.asked - standing.answered
        table.add_row(client, bar, f"{standing.service:,}", str(standing.answered), str(waiting), mean)
    lines: list[RenderableType] = [table, Text(f"cache hits {_hits(scene)} of prompt tokens")]
    if scene.latest:
        text = f"{scene.latest.question.question} {scene.latest.text}".replace("\n", " ")
        lines.append(Text(text if len(text) <= _TEXT else f"{text[: _TEXT - 3]}...", style="dim"))
    return Group(*lines)
