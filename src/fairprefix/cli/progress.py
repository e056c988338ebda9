"""How far a simulation is: a bar on a terminal (with rich), else a line per policy, on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress

OnFinish = Callable[[int], None]
"""Hears how many requests are done."""
Begin = Callable[[str], OnFinish]
"""Announces a policy's run, and returns who hears of its progress."""

UPDATES = 200
"""How often a bar moves from empty to full: more would cost time and show nothing."""


@contextmanager
def progress(policies: tuple[str, ...], requests: int, *, quiet: bool) -> Iterator[Begin]:
    """Show the progress of running `requests` requests through each of `policies`."""
    bar = None if quiet or not sys.stderr.isatty() else _rich_progress()
    if quiet:
        yield lambda _policy: _ignore
    elif bar is None:
        yield lambda policy: _announce(policy, policies, requests)
    else:
        with bar:
            yield lambda policy: _bar(bar, policy, requests)


def _ignore(_count: int) -> None:
    """Show nothing."""


def _announce(policy: str, policies: tuple[str, ...], requests: int) -> OnFinish:
    place = policies.index(policy) + 1
    print(f"running {policy} ({place} of {len(policies)}), {requests:,} requests", file=sys.stderr, flush=True)
    return _ignore


def _bar(bar: Progress, policy: str, requests: int) -> OnFinish:
    task = bar.add_task(policy, total=requests)
    step = max(requests // UPDATES, 1)
    shown = 0

    def move(count: int) -> None:
        nonlocal shown
        if count - shown >= step or count == requests != shown:
            bar.update(task, completed=count)
            shown = count

    return move


@contextmanager
def task_bar(*, quiet: bool) -> Iterator[Callable[[int], Callable[[Titled, int, int], None]]]:
    """Show which of many tasks are done: a bar on a terminal (with rich), else a line per task."""
    bar = None if quiet or not sys.stderr.isatty() else _rich_progress()
    if quiet:
        yield lambda _total: lambda *_: None
    elif bar is None:
        yield lambda _total: _say
    else:
        with bar:
            yield lambda total: _move(bar, total)


class Titled(Protocol):
    """A task."""

    @property
    def title(self) -> str:
        """Return what progress calls it."""
        ...


def _say(task: Titled, done: int, total: int) -> None:
    print(f"{done} of {total}: {task.title}", file=sys.stderr, flush=True)


def _move(bar: Progress, total: int) -> Callable[[Titled, int, int], None]:
    shown = bar.add_task("runs", total=total)

    def move(task: Titled, done: int, total: int) -> None:
        bar.update(shown, completed=done, total=total, description=task.title)

    return move


@contextmanager
def download_bar() -> Iterator[Callable[[int, int], None]]:
    """Show how many bytes of how many are there: a bar on a terminal (with rich), else a single line."""
    bar = _rich_progress() if sys.stderr.isatty() else None
    if bar is None:
        print("downloading", file=sys.stderr, flush=True)
        yield lambda _done, _total: None
        return
    with bar:
        task = bar.add_task("bytes", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _rich_progress() -> Progress | None:
    """Return rich's progress display; None where rich is not installed."""
    try:
        from rich.console import Console  # noqa: PLC0415  # an extra: only where it is wanted and there
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415
    except ImportError:
        return None
    columns = (TextColumn("{task.description:>5}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
